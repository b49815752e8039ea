"""What the relay does to DHCPv4 messages: port sets are addresses towards the server."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_lw4o6.core import dhcpv4
from ryu_lw4o6.core.binding import BindingKey, Prefix
from ryu_lw4o6.core.dhcp_relay import (
    NOBODYS,
    Drop,
    Dropped,
    Lease,
    Query,
    holder,
    softwire_address,
    to_client,
    to_server,
)
from ryu_lw4o6.core.dhcpv4 import Kind, Message, Option, parse_agent
from ryu_lw4o6.core.errors import Malformed
from ryu_lw4o6.core.leases import Leases
from ryu_lw4o6.core.portset import FULL_ADDRESS, PortParams
from ryu_lw4o6.core.s46 import PortSet
from tests.core.test_dhcp import dhcpv4_messages

A6K6 = PortParams(6, 6)
SHARED = Prefix(IPv4Network("192.0.2.0/24"), A6K6, IPv4Network("10.64.0.0/18"))
WHOLE = Prefix(IPv4Network("203.0.113.0/29"), FULL_ADDRESS)
UNLEASED = Prefix(IPv4Network("198.18.0.0/24"), A6K6)
LEASES = Leases([SHARED, WHOLE, UNLEASED])
LWB4, OTHER = IPv6Address("2001:db8:b4::1"), IPv6Address("2001:db8:b4::2")
ADDRESS, PSID = IPv4Address("192.0.2.1"), 3
STAND_IN = IPv4Address("10.64.0.67")  # 1 * 64 + 3
SERVER = IPv4Address("198.51.100.67")
CLIENT_ID = bytes.fromhex("ff00000001000300010200000000b4")
FOREIGN = IPv4Address("198.51.100.200")


# --- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ipv4", "psid", "leased"),
    [
        ("192.0.2.0", 0, "10.64.0.0"),
        ("192.0.2.0", 63, "10.64.0.63"),
        ("192.0.2.1", 3, "10.64.0.67"),
        ("192.0.2.255", 63, "10.64.63.255"),
        ("203.0.113.5", 0, "203.0.113.5"),
    ],
)
def test_an_address_stands_for_a_port_set(ipv4: str, psid: int, leased: str) -> None:
    key = BindingKey(IPv4Address(ipv4), psid)
    assert LEASES.to_server(key) == IPv4Address(leased)
    found = LEASES.from_server(IPv4Address(leased))
    assert found == (key, WHOLE if ipv4.startswith("203") else SHARED)


def test_addresses_that_stand_for_nothing() -> None:
    for ipv4, psid in (("192.0.2.1", 64), ("192.0.3.0", 0), ("203.0.113.5", 1), ("198.18.0.1", 0)):
        assert LEASES.to_server(BindingKey(IPv4Address(ipv4), psid)) is None
    for leased in ("10.63.255.255", "10.64.64.0", "192.0.2.1", "198.18.0.1"):
        assert LEASES.from_server(IPv4Address(leased)) is None


@given(st.integers(0, 16), st.integers(0, 16), st.data())
def test_every_port_set_has_an_address_of_its_own(
    length: int, bits: int, data: st.DataObject
) -> None:
    prefix = Prefix(
        IPv4Network((0xC0000000, 32 - bits)), PortParams(0, length),
        IPv4Network((0x0A000000 if bits + length <= 24 else 0, 32 - bits - length)),
    )  # fmt: skip
    leases = Leases([prefix])
    keys = st.builds(
        BindingKey.from_numbers,
        st.integers(0xC0000000, 0xC0000000 + (1 << bits) - 1),
        st.integers(0, (1 << length) - 1),
    )
    one, other = data.draw(keys), data.draw(keys)
    first, second = leases.to_server(one), leases.to_server(other)
    assert first is not None
    assert leases.from_server(first) == (one, prefix)
    assert (first == second) == (one == other)


# --- to the server ------------------------------------------------------------------------------


MAC = b"\2\0\0\0\0\xb4"


def client(kind: Kind, options: dict[int, bytes] | None = None, **fields: Any) -> Message:
    base: dict[int, bytes] = {Option.MESSAGE_TYPE: bytes([kind]), Option.CLIENT_ID: CLIENT_ID}
    fields = {"chaddr": MAC} | fields
    return Message(dhcpv4.REQUEST, 7, base | (options or {}), **fields)


PORT_SET: dict[int, bytes] = {Option.PORT_PARAMS: PortSet(A6K6, PSID).pack()}


def test_discover() -> None:
    wanted: dict[int, bytes] = {Option.PARAMETER_REQUEST_LIST: bytes([51, 159])}
    sent, query = to_server(client(Kind.DISCOVER, wanted), LWB4, None, LEASES)
    assert sent.options == wanted | {
        Option.MESSAGE_TYPE: b"\1",
        Option.CLIENT_ID: b"\0" + LWB4.packed,
        Option.RELAY_AGENT: b"\2\x10" + LWB4.packed,
    }
    assert sent.chaddr == LWB4.packed  # whatever the client says, if it says anything
    assert (query.client_id, query.chaddr) == (CLIENT_ID, MAC)
    assert (query.given, query.key) == (None, None)
    assert query.knows_port_sets
    assert not query.wants_source


def test_who_knows_port_sets_asks_for_them() -> None:
    """Who names one but does not ask for one must not be given one (RFC 7618 section 8)."""
    asked = client(Kind.REQUEST, asking(ADDRESS) | PORT_SET)
    _, query = to_server(asked, LWB4, None, LEASES)
    assert query.port_set == PortSet(A6K6, PSID)
    assert not query.knows_port_sets


def test_the_br_address_is_told() -> None:
    br = IPv6Address("2001:db8:ffff::2")
    sent, _ = to_server(client(Kind.DISCOVER), LWB4, br, LEASES)
    assert holder(sent.options[Option.RELAY_AGENT]) == (LWB4, br)


def requested(sent: Message) -> IPv4Address | None:
    return sent.address(Option.REQUESTED_ADDRESS)


def asking(address: IPv4Address) -> dict[int, bytes]:
    return {Option.REQUESTED_ADDRESS: address.packed}


def naming(server: IPv4Address) -> dict[int, bytes]:
    return {Option.SERVER_ID: server.packed}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (asking(ADDRESS) | PORT_SET, STAND_IN),
        (asking(ADDRESS) | PORT_SET | naming(SERVER), STAND_IN),
        (asking(ADDRESS) | naming(STAND_IN), STAND_IN),  # it does not repeat option 159
        (asking(ADDRESS), None),  # the server goes by the client identifier
        (asking(ADDRESS) | naming(SERVER), NOBODYS),  # an offer that is accepted is no lease yet
        (asking(ADDRESS) | naming(IPv4Address("10.64.1.67")), NOBODYS),  # that of 192.0.2.5
        (asking(ADDRESS) | {Option.PORT_PARAMS: PortSet(PortParams(6, 5), 3).pack()}, NOBODYS),
        (asking(IPv4Address("203.0.113.5")), IPv4Address("203.0.113.5")),
        (asking(FOREIGN), NOBODYS),
        (asking(STAND_IN), NOBODYS),  # a client cannot speak for the relay
        (asking(IPv4Address("198.18.0.1")) | PORT_SET, NOBODYS),  # not leased by DHCP
    ],
)
def test_request(options: dict[int, bytes], expected: IPv4Address | None) -> None:
    sent, _ = to_server(client(Kind.REQUEST, options), LWB4, None, LEASES)
    assert requested(sent) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [(PORT_SET, STAND_IN), ({}, None), (naming(STAND_IN), STAND_IN)],
)
def test_renewal(options: dict[int, bytes], expected: IPv4Address | None) -> None:
    """To the server it is the verification of a lease: what it does not know it refuses."""
    sent, query = to_server(client(Kind.REQUEST, options, ciaddr=ADDRESS), LWB4, None, LEASES)
    assert requested(sent) == expected
    assert sent.ciaddr == IPv4Address(0)
    assert (query.ciaddr, query.given) == (ADDRESS, ADDRESS)


def test_a_server_identifier_that_is_a_stand_in_is_the_servers() -> None:
    """RFC 5107 section 4: the server takes it for its own."""
    options: dict[int, bytes] = asking(ADDRESS) | naming(STAND_IN)
    sent, _ = to_server(client(Kind.REQUEST, options), LWB4, None, LEASES)
    assert sent.address(Option.SERVER_ID) == STAND_IN
    assert parse_agent(sent.options[Option.RELAY_AGENT])[11] == STAND_IN.packed
    sent, _ = to_server(
        client(Kind.REQUEST, asking(ADDRESS) | PORT_SET | naming(SERVER)), LWB4, None, LEASES
    )
    assert sent.address(Option.SERVER_ID) == SERVER
    assert 11 not in parse_agent(sent.options[Option.RELAY_AGENT])


@pytest.mark.parametrize("kind", [Kind.RELEASE, Kind.DECLINE])
def test_release_and_decline_name_a_port_set(kind: Kind) -> None:
    def message(options: dict[int, bytes]) -> Message:
        if kind == Kind.RELEASE:
            return client(kind, options, ciaddr=ADDRESS)
        return client(kind, options | asking(ADDRESS))

    for known in (PORT_SET, naming(STAND_IN)):
        sent, query = to_server(message(known), LWB4, None, LEASES)
        assert STAND_IN in (sent.ciaddr, requested(sent))
        assert query.key == BindingKey(ADDRESS, PSID)
    assert dropped(message({}), LWB4) is Drop.NO_LEASE
    assert dropped(message(naming(SERVER)), LWB4) is Drop.NO_LEASE


def dropped(message: Message, lwb4: IPv6Address) -> Drop:
    with pytest.raises(Dropped) as caught:
        to_server(message, lwb4, None, LEASES)
    return caught.value.drop


def test_what_clients_must_not_say() -> None:
    """Nobody speaks for another lwB4, and nobody chooses another subnet."""
    forged: dict[int, bytes] = {
        Option.RELAY_AGENT: b"\2\x10" + OTHER.packed,
        Option.SUBNET_SELECTION: b"\x0a\0\0\0",
        Option.CLIENT_ID: b"\0" + OTHER.packed,
    }
    sent, _ = to_server(client(Kind.REQUEST, forged), LWB4, None, LEASES)
    assert sent.options[Option.CLIENT_ID] == b"\0" + LWB4.packed
    assert holder(sent.options[Option.RELAY_AGENT]) == (LWB4, None)
    assert Option.SUBNET_SELECTION not in sent.options
    relayed = client(Kind.DISCOVER, giaddr=IPv4Address("10.0.0.1"))
    assert dropped(relayed, LWB4) is Drop.RELAYED_DHCPV4
    for kind in (Kind.OFFER, Kind.ACK, Kind.NAK):
        assert dropped(client(kind), LWB4) is Drop.WRONG_KIND
    assert dropped(replace(client(Kind.DISCOVER), op=2), LWB4) is Drop.WRONG_KIND


# --- whose softwire -----------------------------------------------------------------------------

LINK = IPv6Address("2001:db8:1::1")
LINK_LOCAL = IPv6Address("fe80::b4")


def source(named: str | None, peer: IPv6Address = LWB4, bits: int = 64) -> IPv6Address | Drop:
    option: dict[int, bytes] = (
        {} if named is None else {Option.SOFTWIRE_SOURCE: IPv6Address(named).packed}
    )
    try:
        return softwire_address(client(Kind.DISCOVER, option), peer, LINK, bits)
    except Dropped as caught:
        return caught.drop


def test_the_softwire_begins_where_the_message_came_from() -> None:
    assert source(None) == LWB4
    assert source("::") == LWB4
    assert source(None, LINK_LOCAL) is Drop.SOFTWIRE_ADDRESS


def test_another_address_of_the_same_prefix_is_believed() -> None:
    near, far = "2001:db8:b4::99", "2001:db8:b4:1::99"
    assert source(near) == IPv6Address(near)
    assert source(far) is Drop.SOFTWIRE_ADDRESS
    assert source(far, bits=48) == IPv6Address(far)
    assert source(near, bits=128) is Drop.SOFTWIRE_ADDRESS
    assert source("fe80::1", bits=0) is Drop.SOFTWIRE_ADDRESS
    assert source("ff02::1", bits=0) is Drop.SOFTWIRE_ADDRESS
    assert source("2001:db8:1::b4", LINK_LOCAL) == IPv6Address("2001:db8:1::b4")
    assert source(near, LINK_LOCAL) is Drop.SOFTWIRE_ADDRESS


# --- to the client ------------------------------------------------------------------------------

ASKED = Query(
    LWB4, 7, Kind.REQUEST, CLIENT_ID, MAC, IPv4Address(0), ADDRESS, PortSet(A6K6, PSID),
    BindingKey(ADDRESS, PSID), knows_port_sets=True, wants_source=False,
)  # fmt: skip


def server(kind: Kind, yiaddr: IPv4Address = STAND_IN, seconds: int | None = 4000) -> Message:
    options: dict[int, bytes] = {
        Option.MESSAGE_TYPE: bytes([kind]), Option.SUBNET_MASK: b"\xff\xff\xc0\0",
        Option.ROUTER: b"\x0a\x40\0\1", Option.SERVER_ID: SERVER.packed,
        Option.CLIENT_ID: b"\0" + LWB4.packed, Option.RELAY_AGENT: b"\2\x10" + LWB4.packed,
    }  # fmt: skip
    if seconds is not None:
        options[Option.LEASE_TIME] = seconds.to_bytes(4, "big")
    return Message(dhcpv4.REPLY, 7, options, yiaddr=yiaddr, chaddr=LWB4.packed)


@pytest.mark.parametrize("kind", [Kind.OFFER, Kind.ACK])
def test_an_address_becomes_a_port_set(kind: Kind) -> None:
    message, lease = to_client(server(kind), ASKED, LEASES)
    assert (message.yiaddr, message.chaddr) == (ADDRESS, MAC)
    assert message.options == {
        Option.MESSAGE_TYPE: bytes([kind]),
        Option.SERVER_ID: STAND_IN.packed,
        Option.CLIENT_ID: CLIENT_ID,
        Option.LEASE_TIME: b"\0\0\x0f\xa0",
        Option.PORT_PARAMS: bytes.fromhex("06060c00"),
    }
    given = Lease(LWB4, BindingKey(ADDRESS, PSID), A6K6, 4000)
    assert lease == (given if kind == Kind.ACK else None)


def test_a_full_address_stays_what_it_is() -> None:
    full = IPv4Address("203.0.113.5")
    query = replace(ASKED, given=full, port_set=None, knows_port_sets=False, client_id=None)
    message, lease = to_client(server(Kind.ACK, full, dhcpv4.INFINITE), query, LEASES)
    assert message.yiaddr == full
    assert message.options == {
        Option.MESSAGE_TYPE: b"\5",
        Option.SERVER_ID: SERVER.packed,
        Option.LEASE_TIME: b"\xff" * 4,
    }
    assert lease == Lease(LWB4, BindingKey(full, 0), FULL_ADDRESS, None)


def test_the_softwire_address_is_confirmed_to_who_asks() -> None:
    message, _ = to_client(server(Kind.ACK), replace(ASKED, wants_source=True), LEASES)
    assert message.softwire_source == LWB4


@pytest.mark.parametrize(
    "query",
    [
        replace(ASKED, given=IPv4Address("192.0.2.2"), port_set=None),
        replace(ASKED, port_set=PortSet(A6K6, 4)),
        replace(ASKED, given=FOREIGN, port_set=None),
    ],
)
def test_another_lease_than_the_client_has_is_a_refusal(query: Query) -> None:
    message, lease = to_client(server(Kind.ACK), query, LEASES)
    assert lease is None
    assert message.kind == Kind.NAK
    assert set(message.options) == {Option.MESSAGE_TYPE, Option.SERVER_ID, Option.CLIENT_ID}
    assert (message.yiaddr, message.ciaddr) == (IPv4Address(0), IPv4Address(0))


def test_refusals_and_information_pass() -> None:
    query = replace(ASKED, kind=Kind.INFORM, ciaddr=ADDRESS)
    message, lease = to_client(server(Kind.ACK, IPv4Address(0), None), query, LEASES)
    assert (message.kind, message.ciaddr, lease) == (Kind.ACK, ADDRESS, None)
    renewal = replace(ASKED, ciaddr=ADDRESS)
    message, lease = to_client(server(Kind.NAK, IPv4Address(0), None), renewal, LEASES)
    assert (message.kind, message.options[Option.CLIENT_ID], lease) == (Kind.NAK, CLIENT_ID, None)
    assert (message.ciaddr, message.yiaddr) == (IPv4Address(0), IPv4Address(0))  # RFC 2131 table 3


@pytest.mark.parametrize(
    ("message", "query", "drop"),
    [
        (server(Kind.ACK, IPv4Address("10.99.0.1")), ASKED, Drop.NOT_OURS),
        (server(Kind.OFFER, ADDRESS), ASKED, Drop.NOT_OURS),
        (server(Kind.OFFER), replace(ASKED, knows_port_sets=False), Drop.NO_PORT_SETS),
        (server(Kind.ACK, seconds=None), ASKED, Drop.MALFORMED),
        (server(Kind.ACK, seconds=0), ASKED, Drop.MALFORMED),
        (replace(server(Kind.ACK), op=1), ASKED, Drop.WRONG_KIND),
        (server(Kind.DISCOVER), ASKED, Drop.WRONG_KIND),
    ],
)
def test_answers_that_go_no_further(message: Message, query: Query, drop: Drop) -> None:
    with pytest.raises(Dropped) as caught:
        to_client(message, query, LEASES)
    assert caught.value.drop is drop


@given(dhcpv4_messages, dhcpv4_messages)
def test_anything_is_translated_or_dropped(asked: Message, answer: Message) -> None:
    with contextlib.suppress(Dropped):
        sent, query = to_server(asked, LWB4, None, LEASES)
        assert holder(sent.options[Option.RELAY_AGENT]) == (LWB4, None)
        assert dhcpv4.Message.parse(sent.pack()) == sent
        shown, _ = to_client(answer, query, LEASES)
        assert dhcpv4.Message.parse(shown.pack()) == shown


@pytest.mark.parametrize("agent", [b"", b"\2\4abcd", b"\1\1x", b"\2\x10" + bytes(16) + b"\1\1x"])
def test_leases_of_no_lwb4(agent: bytes) -> None:
    with pytest.raises(Malformed):
        holder(agent)
