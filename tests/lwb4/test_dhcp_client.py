"""The DHCPv4-over-DHCPv6 client's state machine: RFC 7341, RFC 2131, RFC 7618."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_lw4o6.core import dhcpv4, dhcpv6
from ryu_lw4o6.core.dhcpv4 import Kind, Option
from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.core.s46 import PortSet
from topo.lwb4.dhcp import Client, Config, Phase, step
from topo.lwb4.lease import Lease
from topo.lwb4.machine import Action, Bound, Event, Lost, Note, Received, Send, Start, Stop, Timer

LWB4, AFTR = IPv6Address("2001:db8:b4:1::1"), IPv6Address("2001:db8:ffff::1")
DUID = bytes.fromhex("00030001 02000000b401")
ADDRESS, SERVER = IPv4Address("192.0.2.1"), IPv4Address("198.51.100.67")
PORT_SET = PortSet(PortParams(6, 6), 3)
LEASE = Lease.of(ADDRESS, PORT_SET.params, PORT_SET.psid)
NEW = Client(Config(LWB4, DUID, servers=(AFTR,)))
DHCPV6_SERVER = (2, bytes.fromhex("00030001 020000000067"))


def middle() -> float:
    """No jitter where it is symmetrical."""
    return 0.5


def sent(actions: tuple[Action, ...]) -> tuple[dhcpv6.Message, dhcpv4.Message]:
    """The one message that goes out, to the one server."""
    (send,) = [action for action in actions if isinstance(action, Send)]
    assert send.server == AFTR
    outer = dhcpv6.parse(send.payload)
    assert isinstance(outer, dhcpv6.Message)
    assert outer.kind == dhcpv6.Kind.DHCPV4_QUERY
    assert outer.dhcpv4 is not None
    return outer, dhcpv4.Message.parse(outer.dhcpv4)


def answer(client: Client, kind: int, **changed: Any) -> Received:
    options: dict[int, bytes] = {
        Option.MESSAGE_TYPE: bytes([kind]),
        Option.SERVER_ID: SERVER.packed,
        Option.LEASE_TIME: (1000).to_bytes(4, "big"),
        Option.PORT_PARAMS: PORT_SET.pack(),
        **changed.pop("options", {}),
    }
    options = {code: value for code, value in options.items() if value is not None}
    fields: dict[str, Any] = {"op": dhcpv4.REPLY, "xid": client.xid, "yiaddr": ADDRESS} | changed
    message = dhcpv4.Message(options=options, **fields)
    return Received(dhcpv6.dhcpv4_response(message.pack()).pack())


def bound(now: float = 0.0, **more: Any) -> Client:
    client, _ = step(NEW, Start(), now, middle)
    client, _ = step(client, answer(client, Kind.OFFER, **more), now, middle)
    client, actions = step(client, answer(client, Kind.ACK, **more), now, middle)
    assert isinstance(actions[0], Bound)
    return client


def test_option_88_says_whom_to_ask() -> None:
    client = Client(Config(LWB4, DUID, dhcpv6=AFTR))
    client, actions = step(client, Start(), 0.0, middle)
    # A random time up to a second first (RFC 8415 section 18.2.6).
    assert (actions, client.wake) == ((), 0.5)
    client, (send,) = step(client, Timer(), 0.5, middle)
    assert isinstance(send, Send)
    assert send.payload == bytes.fromhex(
        "0b 000000"  # INFORMATION-REQUEST, the transaction (half of 2^32, its low 24 bits)
        "0001 000a 00030001 02000000b401"  # client identifier
        "0008 0002 0000"  # elapsed time
        "0006 0002 0058"  # wanted: option 88
    )
    ids, servers = ((1, DUID), DHCPV6_SERVER), ((88, AFTR.packed * 2),)
    # Without a server's identifier, or the client's own, it is not an answer (section 16.10).
    for wrong in (ids[:1], ids[1:], ((1, DUID[::-1]), DHCPV6_SERVER)):
        other = dhcpv6.Message(dhcpv6.Kind.REPLY, 0, (*wrong, *servers)).pack()
        assert isinstance(step(client, Received(other), 0.6, middle)[1][0], Note)
        assert step(client, Received(other), 0.6, middle)[0] == client
    reply = dhcpv6.Message(dhcpv6.Kind.REPLY, 0, (*ids, *servers)).pack()
    client, actions = step(client, Received(reply), 0.6, middle)
    assert sent(actions)[1].kind == Kind.DISCOVER
    # It is not asked again when provisioning restarts.
    client, actions = step(client, Start(), 1.0, middle)
    assert sent(actions)[1].kind == Kind.DISCOVER


def test_no_option_88_means_no_dhcpv4_over_dhcpv6() -> None:
    client = Client(Config(LWB4, DUID, dhcpv6=AFTR))
    client, _ = step(client, Start(), 0.0, middle)
    client, _ = step(client, Timer(), 0.5, middle)
    reply = dhcpv6.Message(dhcpv6.Kind.REPLY, 0, ((1, DUID), DHCPV6_SERVER)).pack()
    client, actions = step(client, Received(reply), 0.6, middle)
    assert actions == (Note("dhcp_not_offered", {"asked": AFTR}),)
    assert client.phase is Phase.ASKING
    waits = []
    now = 0.5
    for _ in range(14):
        assert client.wake is not None
        waits.append(client.wake - now)
        now = client.wake
        client, _ = step(client, Timer(), now, middle)
    # 1 s, doubled, an hour at most (RFC 8415 section 15).
    assert waits == [*(2.0**n for n in range(12)), 3600, 3600]


def test_an_empty_option_88_means_the_link() -> None:
    client = Client(Config(LWB4, DUID))
    client, _ = step(client, Start(), 0.0, middle)
    client, _ = step(client, Timer(), 0.5, middle)
    options = (1, DUID), DHCPV6_SERVER, (88, b"")
    reply = dhcpv6.Message(dhcpv6.Kind.REPLY, 0, options).pack()
    _, (send,) = step(client, Received(reply), 0.6, middle)
    assert isinstance(send, Send)
    assert send.server == IPv6Address("ff02::1:2")


def test_from_discover_to_ack() -> None:
    client, actions = step(NEW, Start(), 0.0, middle)
    outer, discover = sent(actions)
    assert (discover.kind, outer.unicast) == (Kind.DISCOVER, False)
    assert discover.options[Option.CLIENT_ID] == b"\xff\0\0\0\x01" + DUID  # RFC 4361 section 6.1
    assert discover.asks_for(Option.PORT_PARAMS)
    assert discover.softwire_source == LWB4
    assert Option.REQUESTED_ADDRESS not in discover.options
    client, actions = step(client, answer(client, Kind.OFFER), 0.1, middle)
    _, request = sent(actions)
    assert (request.kind, request.xid) == (Kind.REQUEST, discover.xid)
    assert request.address(Option.REQUESTED_ADDRESS) == ADDRESS
    assert request.address(Option.SERVER_ID) == SERVER
    assert request.port_set == PORT_SET
    assert request.ciaddr == IPv4Address(0)
    client, actions = step(client, answer(client, Kind.ACK), 0.2, middle)
    # From when it was asked for, not from when the answer came (RFC 2131 section 4.4.1).
    assert actions == (Bound(LEASE, 999.9),)
    assert client.wake == pytest.approx(0.1 + 500 * 0.975)


def test_a_restart_asks_whether_the_lease_still_holds() -> None:
    client, actions = step(bound(), Start(), 10.0, middle)
    outer, request = sent(actions)
    # INIT-REBOOT: the address in option 50, no server (RFC 2131 section 4.3.2).
    assert (request.kind, outer.unicast) == (Kind.REQUEST, False)
    assert request.address(Option.REQUESTED_ADDRESS) == ADDRESS
    assert request.port_set == PORT_SET
    assert Option.SERVER_ID not in request.options
    assert request.ciaddr == IPv4Address(0)
    after, actions = step(client, answer(client, Kind.ACK), 10.1, middle)
    assert actions == (Bound(LEASE, 999.9),)
    no = answer(client, Kind.NAK, yiaddr=IPv4Address(0), options={Option.LEASE_TIME: None})
    after, actions = step(client, no, 10.1, middle)
    assert actions[0] == Lost("refused")
    _, discover = sent(actions)
    assert discover.kind == Kind.DISCOVER
    assert Option.REQUESTED_ADDRESS not in discover.options
    assert after.phase is Phase.SELECTING


def test_renewing_rebinding_and_the_end() -> None:
    more: dict[str, Any] = {
        "options": {
            Option.RENEWAL_TIME: (400).to_bytes(4, "big"),
            Option.REBINDING_TIME: (800).to_bytes(4, "big"),
        }
    }
    client = bound(**more)
    assert client.wake == pytest.approx(390)  # T1, less the fuzz
    seen = []
    while client.valid:
        assert client.wake is not None
        now = client.wake
        client, actions = step(client, Timer(), now, middle)
        if any(isinstance(action, Send) for action in actions):
            outer, message = sent(actions)
            seen.append((round(now), Kind(message.kind), message.ciaddr, outer.unicast))
    assert seen == [
        (390, Kind.REQUEST, ADDRESS, True),  # to the server that granted it
        (585, Kind.REQUEST, ADDRESS, True),  # after half of what is left until T2
        (682, Kind.REQUEST, ADDRESS, True),
        (742, Kind.REQUEST, ADDRESS, True),  # 60 s apart at least
        (780, Kind.REQUEST, ADDRESS, False),  # T2: to any server
        (890, Kind.REQUEST, ADDRESS, False),
        (950, Kind.REQUEST, ADDRESS, False),
        (1000, Kind.DISCOVER, IPv4Address(0), False),
    ]


def test_waits_are_doubled() -> None:
    client, _ = step(NEW, Start(), 0.0, middle)
    waits, now = [], 0.0
    for _ in range(7):
        assert client.wake is not None
        waits.append(client.wake - now)
        now = client.wake
        client, actions = step(client, Timer(), now, middle)
        assert sent(actions)[1].secs == int(now)
    assert waits == [4, 8, 16, 32, 64, 64, 64]


def test_a_request_has_the_seconds_of_its_discover() -> None:
    """So that relays treat them alike (RFC 2131 section 3.1 item 3)."""
    client, _ = step(NEW, Start(), 0.0, middle)
    client, actions = step(client, Timer(), 4.0, middle)
    assert sent(actions)[1].secs == 4
    client, actions = step(client, answer(client, Kind.OFFER), 7.0, middle)
    assert sent(actions)[1].secs == 4
    assert client.wake is not None
    client, actions = step(client, Timer(), client.wake, middle)
    assert (sent(actions)[1].kind, sent(actions)[1].secs) == (Kind.REQUEST, 4)


def test_an_offer_that_is_not_acknowledged_is_given_up() -> None:
    client, _ = step(NEW, Start(), 0.0, middle)
    client, _ = step(client, answer(client, Kind.OFFER), 0.0, middle)
    kinds = []
    for _ in range(5):
        assert client.wake is not None
        client, actions = step(client, Timer(), client.wake, middle)
        kinds.append(sent(actions)[1].kind)
    assert kinds == [Kind.REQUEST] * 4 + [Kind.DISCOVER]


def test_a_withdrawn_offer_is_not_asked_for_in_a_loop() -> None:
    client, _ = step(NEW, Start(), 0.0, middle)
    client, _ = step(client, answer(client, Kind.OFFER), 0.0, middle)
    client, actions = step(client, answer(client, Kind.NAK), 1.0, middle)
    assert (actions, client.phase, client.wake) == ((), Phase.SELECTING, 5.0)


@pytest.mark.parametrize(
    "changed",
    [
        {"xid": 1},
        {"op": dhcpv4.REQUEST},
        {"yiaddr": IPv4Address(0)},
        {"yiaddr": IPv4Address("224.0.0.1")},
        {"options": {Option.CLIENT_ID: b"\xff\0\0\0\x02" + DUID}},
        {"options": {Option.SERVER_ID: None}},
        {"options": {Option.LEASE_TIME: None}},
        {"options": {Option.LEASE_TIME: bytes(4)}},
        {"options": {Option.MESSAGE_TYPE: bytes([Kind.ACK])}},
        {"options": {Option.PORT_PARAMS: bytes([10, 7, 0, 0])}},  # 17 bits
    ],
)
def test_an_offer_that_cannot_be_used(changed: dict[str, Any]) -> None:
    client, _ = step(NEW, Start(), 0.0, middle)
    after, actions = step(client, answer(client, Kind.OFFER, **changed), 0.1, middle)
    assert after == client
    assert [type(action) for action in actions] == [Note]


@pytest.mark.parametrize(
    "changed",
    [
        {"yiaddr": IPv4Address("192.0.2.2")},
        {"options": {Option.PORT_PARAMS: PortSet(PORT_SET.params, 4).pack()}},
        {"options": {Option.PORT_PARAMS: None}},
    ],
)
def test_only_what_was_asked_for_is_taken(changed: dict[str, Any]) -> None:
    """A whole address for a port set, for instance, would take others' ports."""
    client, _ = step(bound(), Start(), 10.0, middle)
    after, actions = step(client, answer(client, Kind.ACK, **changed), 10.1, middle)
    assert after == client
    assert [type(action) for action in actions] == [Note]


def test_a_full_address_and_one_for_ever() -> None:
    more: dict[str, Any] = {"options": {Option.PORT_PARAMS: None, Option.LEASE_TIME: b"\xff" * 4}}
    client = bound(**more)
    assert client.leased is not None
    assert client.leased.lease == Lease.of(ADDRESS)
    assert client.wake is None


def test_a_clean_stop_releases() -> None:
    client, actions = step(bound(), Stop(), 5.0, middle)
    outer, release = sent(actions)
    assert (release.kind, release.ciaddr, outer.unicast) == (Kind.RELEASE, ADDRESS, True)
    assert release.address(Option.SERVER_ID) == SERVER
    assert release.port_set == PORT_SET
    assert Option.REQUESTED_ADDRESS not in release.options
    assert actions[1] == Lost("released")
    assert client.wake is None
    assert step(NEW, Stop(), 0.0, middle)[1] == ()


@given(st.data(), st.randoms())
def test_whatever_happens(data: st.DataObject, random: Any) -> None:
    """A lease is announced before it is lost and never twice lost; somebody always wakes it."""
    client, now, leased = NEW, 0.0, False
    client, _ = step(client, Start(), now, random.random)
    for _ in range(data.draw(st.integers(0, 30))):
        due = client.wake
        assert due is not None
        event: Any = data.draw(st.sampled_from(("timer", "start", "answer", "noise")))
        wait = data.draw(st.floats(0, 400))
        now = max(now + wait, due) if event == "timer" else min(now + wait, max(now, due))
        if event == "answer":
            kind = data.draw(st.sampled_from((Kind.OFFER, Kind.ACK, Kind.NAK)))
            seconds = data.draw(st.integers(1, 5000)).to_bytes(4, "big")
            received = answer(client, kind, options={Option.LEASE_TIME: seconds})
        else:
            received = Received(data.draw(st.binary(max_size=60)))
        happened: Event = Timer() if event == "timer" else Start() if event == "start" else received
        client, actions = step(client, happened, now, random.random)
        for action in actions:
            if isinstance(action, Bound):
                assert action.seconds > 0
                leased = True
            elif isinstance(action, Lost):
                assert leased
                leased = False
        assert leased is client.valid
        assert client.wake is not None


def test_a_client_without_a_lease_asks_for_the_one_it_had() -> None:
    client = replace(bound(), valid=False)
    _, actions = step(client, Start(), 5000.0, middle)
    _, discover = sent(actions)
    assert discover.kind == Kind.DISCOVER
    assert discover.address(Option.REQUESTED_ADDRESS) == ADDRESS
    assert discover.port_set == PORT_SET
