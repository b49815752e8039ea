"""The relay when Kea, the controller or a client does not do its part."""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from ryu_lw4o6.core import dhcpv4, dhcpv6
from ryu_lw4o6.core.dhcp_relay import Drop
from ryu_lw4o6.core.dhcpv4 import Kind, Option
from ryu_lw4o6.core.dhcpv6 import Relayed
from tests.provisioning.dhcp_rig import ANYCAST, OWN, SERVER, DhcpRig
from tests.provisioning.test_dhcp import binding_of, seconds_left
from tests.support.lwb4 import Client, accept, held, port_params
from tests.support.netns import inside
from tests.support.ovs import wait_for

LINK, PEER = IPv6Address("2001:db8:a::1"), IPv6Address("2001:db8:b4:9::9")
DISCOVER = dhcpv4.Message(dhcpv4.REQUEST, 9, {Option.MESSAGE_TYPE: b"\1"})
QUERY = dhcpv6.dhcpv4_query(DISCOVER.pack())


def forwarded(hop_count: int, message: bytes = QUERY.pack()) -> bytes:
    return Relayed(12, hop_count, LINK, PEER, ((9, message),)).pack()


def query(message: dhcpv4.Message) -> bytes:
    return dhcpv6.dhcpv4_query(message.pack()).pack()


HOSTILE = [
    (b"", Drop.MALFORMED),
    (b"\x14", Drop.MALFORMED),
    (b"\x01" + b"\xff" * 1400, Drop.MALFORMED),
    (QUERY.pack()[:-1], Drop.MALFORMED),
    (dhcpv6.dhcpv4_query(b"").pack(), Drop.MALFORMED),
    (dhcpv6.dhcpv4_query(DISCOVER.pack()[:-1]).pack(), Drop.MALFORMED),
    (forwarded(0, b"\x14\0\0\0"), Drop.MALFORMED),
    (forwarded(8), Drop.HOP_LIMIT),
    (dhcpv6.dhcpv4_response(DISCOVER.pack()).pack(), Drop.WRONG_KIND),
    (dhcpv6.Message(7, 1, ()).pack(), Drop.WRONG_KIND),
    (query(dhcpv4.Message(2, 9, {53: b"\1"})), Drop.WRONG_KIND),
    (query(dhcpv4.Message(1, 9, {53: b"\1"}, giaddr=IPv4Address("10.0.0.1"))), Drop.RELAYED_DHCPV4),
    (query(dhcpv4.Message(1, 9, {53: b"\1", 109: LINK.packed})), Drop.SOFTWIRE_ADDRESS),
    (query(dhcpv4.Message(1, 9, {53: b"\7"}, ciaddr=IPv4Address("192.0.2.1"))), Drop.NO_LEASE),
    (Relayed(13, 0, LINK, PEER, ((9, QUERY.pack()),)).pack(), Drop.NOT_THE_SERVER),
]


@pytest.mark.parametrize(("data", "drop"), HOSTILE, ids=lambda value: str(value)[:16])
def test_messages_that_go_no_further(rig: DhcpRig, data: bytes, drop: Drop) -> None:
    client = rig.client("2001:db8:ac::99", port=0)
    before = rig.dropped()
    client.socket.sendto(data, (ANYCAST, 547))
    wait_for("it is counted", lambda: rig.dropped() - before)
    assert rig.dropped() - before == {drop: 1}


@pytest.mark.parametrize("kind", [Kind.RELEASE, Kind.DECLINE, Kind.REQUEST])
def test_nobody_relays_in_the_name_of_another(rig: DhcpRig, kind: Kind) -> None:
    victim, hostile = rig.client(f"2001:db8:b4:9::1{kind}"), rig.client("2001:db8:b4:9::20", port=0)
    ack = victim.bind()
    options = port_params(ack) | {
        Option.MESSAGE_TYPE: bytes([kind]),
        Option.REQUESTED_ADDRESS: ack.yiaddr.packed,
        Option.SERVER_ID: ack.options[Option.SERVER_ID],
    }
    forged = query(dhcpv4.Message(1, 9, options))
    before = rig.dropped()
    message = Relayed(12, 0, LINK, victim.address, ((9, forged),))
    hostile.socket.sendto(message.pack(), (ANYCAST, 547))
    wait_for("it is counted", lambda: rig.dropped() - before)
    assert rig.dropped() - before == {Drop.UNTRUSTED_RELAY: 1}
    assert binding_of(rig, victim) is not None


def test_answers_that_nobody_waits_for(rig: DhcpRig) -> None:
    """From the server's own address, or from somebody who claims to be a server."""
    reply = Relayed(13, 0, LINK, PEER, ((9, dhcpv6.dhcpv4_response(DISCOVER.pack()).pack()),))
    before = rig.dropped()
    with inside(rig.router):
        server = Client(SERVER, OWN, port=0)
    server.socket.sendto(reply.pack(), (OWN, 547))
    server.socket.sendto(reply.pack(), (ANYCAST, 547))
    server.close()
    wait_for("both are counted", lambda: sum((rig.dropped() - before).values()) == 2)
    assert rig.dropped() - before == {Drop.UNASKED: 1, Drop.NOT_THE_SERVER: 1}


def test_a_port_set_that_an_operator_gave_away_is_not_passed_on(rig: DhcpRig) -> None:
    """Bindings over REST are an operator's own decision; Kea knows nothing of them."""
    client = rig.client("2001:db8:b4:9::2")
    xid = client.send(Kind.DISCOVER)
    offer = client.receive(xid)
    assert offer is not None
    ipv4, psid = held(offer)
    body = {"lwb4": "2001:db8:b4:9::3", "ipv4": str(ipv4), "psid": psid}
    assert rig.controller.rest("POST", "/v1/bindings?wait=applied", body)[0] == 201
    before = rig.dropped()
    assert client.ask(Kind.REQUEST, accept(offer), xid=xid, timeout=0.5) is None
    assert rig.dropped() - before == {Drop.NOT_APPLIED: 1}
    assert rig.controller.rest("DELETE", f"/v1/bindings/{ipv4}/{psid}?wait=applied")[0] == 204
    ack = client.ask(Kind.REQUEST, accept(offer), xid=xid)
    assert ack is not None
    assert held(ack) == (ipv4, psid)


def test_kea_stands_still(rig: DhcpRig) -> None:
    client = rig.client("2001:db8:b4:9::4")
    ack = client.bind()
    with rig.kea.frozen():
        assert client.ask(Kind.REQUEST, port_params(ack), ciaddr=ack.yiaddr, timeout=0.3) is None
        before = rig.dropped()
        for _ in range(2000):
            client.send(Kind.DISCOVER)
        wait_for("a flood is held off", lambda: (rig.dropped() - before)[Drop.TOO_OFTEN] > 1000)
        began = time.monotonic()
        assert binding_of(rig, client) is not None
        assert time.monotonic() - began < 1
    wait_for(
        "it is renewed",
        lambda: client.ask(Kind.REQUEST, port_params(ack), ciaddr=ack.yiaddr, timeout=1),
        30,
    )


def test_kea_is_killed(rig: DhcpRig) -> None:
    client = rig.client("2001:db8:b4:9::5")
    ack = client.bind()
    xid = client.send(Kind.DISCOVER)
    client.receive(xid)
    rig.kea.kill()
    assert client.ask(Kind.REQUEST, port_params(ack), ciaddr=ack.yiaddr, timeout=0.3) is None
    assert binding_of(rig, client) is not None
    rig.kea.start()
    again = client.ask(Kind.REQUEST, port_params(ack), ciaddr=ack.yiaddr)
    assert again is not None
    assert (again.kind, held(again)) == (Kind.ACK, held(ack))


def test_the_controller_is_killed(rig: DhcpRig) -> None:
    """Between an offer and its acceptance, and beside a lease that is in use."""
    bound, offered = rig.client("2001:db8:b4:9::6"), rig.client("2001:db8:b4:9::7")
    ack = bound.bind()
    left = seconds_left(binding_of(rig, bound))
    xid = offered.send(Kind.DISCOVER)
    offer = offered.receive(xid)
    assert offer is not None
    rig.controller.kill()
    assert offered.ask(Kind.REQUEST, accept(offer), xid=xid, timeout=0.3) is None
    rig.controller.start()
    wait_for("the relay listens", lambda: len(rig.dhcp()["listening"]) == 4)
    assert 0 < left - seconds_left(binding_of(rig, bound)) < 30
    answer = offered.ask(Kind.REQUEST, accept(offer), xid=xid)
    assert answer is not None
    assert (answer.kind, held(answer)) == (Kind.ACK, held(offer))
    again = bound.ask(Kind.REQUEST, port_params(ack), ciaddr=ack.yiaddr)
    assert again is not None
    assert held(again) == held(ack)


def test_the_switch_is_killed(rig: DhcpRig) -> None:
    """The relay's addresses go with the bridge, and come back with it."""
    client, late = rig.client("2001:db8:b4:9::8"), rig.client("2001:db8:b4:9::9")
    ack = client.bind()
    rig.ovs.kill("ovs-vswitchd")
    assert client.ask(Kind.REQUEST, port_params(ack), ciaddr=ack.yiaddr, timeout=0.3) is None
    rig.ovs.start_switch()
    rig.lw4o6("switch", "up")
    wait_for("both next hops are known", rig.neighbours_known, 30)
    again = client.ask(Kind.REQUEST, port_params(ack), ciaddr=ack.yiaddr)
    assert again is not None
    assert held(again) == held(ack)
    assert late.bind().kind == Kind.ACK
    wait_for("the group is heard again", lambda: "ff02::1:2" in rig.dhcp()["listening"])


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DhcpRig]:
    """Full addresses, for a few seconds each."""
    rig = DhcpRig(Path(tmp_path_factory.mktemp("kea")), shared=False, lease_seconds=4)
    yield rig
    rig.stop()


def test_a_full_address_is_leased_and_expires(full: DhcpRig) -> None:
    client = full.client("2001:db8:b4::1", wanted=b"\x33\x36")
    ack = client.bind()
    assert ack.yiaddr in [IPv4Address("203.0.113.0") + n for n in range(1, 8)]
    assert ack.address(Option.SERVER_ID) == IPv4Address("198.51.100.67")
    assert Option.PORT_PARAMS not in ack.options
    binding = binding_of(full, client)
    assert binding is not None
    assert (binding["ipv4"], binding["psid"]) == (str(ack.yiaddr), 0)
    again = client.ask(Kind.REQUEST, ciaddr=ack.yiaddr)
    assert again is not None
    assert (again.kind, again.yiaddr) == (Kind.ACK, ack.yiaddr)
    assert binding_of(full, client) is not None
    wait_for("it is over", lambda: binding_of(full, client) is None, 15)
