"""DHCPv4 and DHCPv6 messages, written down by hand from the RFCs."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_lw4o6.core import dhcpv4, dhcpv6, s46
from ryu_lw4o6.core.errors import Malformed
from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.core.s46 import PortSet, Softwire

A6K6 = PortParams(6, 6)
LWB4, LINK = IPv6Address("2001:db8:b4::1"), IPv6Address("2001:db8:1::1")

DISCOVER = bytes.fromhex(
    "01 01 06 00 3903f326 0000 0000"  # BOOTREQUEST, Ethernet, xid
    "00000000 00000000 00000000 00000000"  # ciaddr, yiaddr, siaddr, giaddr
    "0200000000b4 00000000000000000000"  # chaddr
    + "00"
    * 192  # sname, file
    + "63825363"
    "35 01 01"  # DHCPDISCOVER
    "3d 13 ff 00000001 00030001 0200000000b4 ff00ff00"  # client identifier
    "37 02 33 9f"  # wants 51 and 159
    "6d 10 20010db800b400000000000000000001"  # softwire source
    "9f 04 06 06 0c00"  # a = 6, k = 6, PSID 3, left-aligned
    "ff"
)


def test_dhcpv4_to_the_byte() -> None:
    message = dhcpv4.Message(
        dhcpv4.REQUEST, 0x3903F326,
        {
            53: b"\1",
            61: bytes.fromhex("ff00000001000300010200000000b4ff00ff00"),
            55: b"\x33\x9f",
            109: LWB4.packed,
            159: PortSet(A6K6, 3).pack(),
        },
        chaddr=bytes.fromhex("0200000000b4"),
    )  # fmt: skip
    assert message.pack() == DISCOVER
    read = dhcpv4.Message.parse(DISCOVER)
    assert read == message
    assert (read.kind, read.softwire_source) == (dhcpv4.Kind.DISCOVER, LWB4)
    assert read.port_set == PortSet(A6K6, 3)
    assert read.asks_for(159)
    assert not read.asks_for(3)


def test_dhcpv4_values_of_a_server() -> None:
    ack = dhcpv4.Message(
        dhcpv4.REPLY, 1,
        {53: b"\5", 54: b"\x0a\x40\x00\x01", 51: bytes.fromhex("00000fa0"), 58: b"\xff" * 4},
        yiaddr=IPv4Address("192.0.2.1"),
    )  # fmt: skip
    assert ack.address(dhcpv4.Option.SERVER_ID) == IPv4Address("10.64.0.1")
    assert ack.seconds(dhcpv4.Option.LEASE_TIME) == 4000
    assert ack.seconds(dhcpv4.Option.RENEWAL_TIME) == dhcpv4.INFINITE
    assert (ack.address(50), ack.seconds(59), ack.port_set, ack.softwire_source) == (None,) * 4
    assert dhcpv4.Message.parse(ack.pack()) == ack


def test_dhcpv4_long_options_are_split_and_joined() -> None:
    """RFC 3396: 300 bytes are 255 and 45."""
    value = bytes(range(256)) + bytes(44)
    message = dhcpv4.Message(dhcpv4.REQUEST, 0, {53: b"\1", 200: value, 80: b""})
    packed = message.pack()
    assert packed[243 : 243 + 2] == bytes([200, 255])
    assert packed[243 + 257 : 243 + 259] == bytes([200, 45])
    assert dhcpv4.Message.parse(packed) == message


def test_dhcpv4_options_in_file_and_sname() -> None:
    """RFC 2131 section 4.1: options, then file, then sname."""
    sname = bytes.fromhex("3d 02 cc dd ff").ljust(64, b"\0")
    file = bytes.fromhex("00 3d 02 aa bb 33 04 00000e10 ff").ljust(128, b"\0")
    data = DISCOVER[:44] + sname + file + bytes.fromhex("63825363 35 01 05 34 01 03 ff")
    message = dhcpv4.Message.parse(data)
    assert message.options == {53: b"\5", 61: bytes.fromhex("aabbccdd"), 51: b"\0\0\x0e\x10"}
    assert (message.sname, message.file) == (bytes(64), bytes(128))


HEADER = DISCOVER[:240]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "0 bytes are no DHCPv4 message"),
        (HEADER[:-1], "239 bytes"),
        (HEADER[:-4] + b"abcd" + b"\x35\1\1\xff", "no DHCP"),
        (b"\3" + DISCOVER[1:], "op 3"),
        (DISCOVER[:2] + b"\x11" + DISCOVER[3:], "hardware address of 17 bytes"),
        (HEADER, "without an end"),
        (HEADER + b"\x35\1\1", "without an end"),
        (HEADER + b"\x35", "option 53 is cut off"),
        (HEADER + b"\x35\4\1\xff", "option 53 is cut off"),
        (HEADER + b"\xff", "without a message type"),
        (HEADER + b"\x35\2\1\1\xff", "option 53 has 2 bytes, not 1"),
        (HEADER + b"\x35\1\1\x35\1\3\xff", "option 53 has 2 bytes, not 1"),
        (HEADER + b"\x35\1\1\x32\3\1\2\3\xff", "option 50 has 3 bytes, not 4"),
        (HEADER + b"\x35\1\1\x9f\3\1\2\3\xff", "option 159 has 3 bytes"),
        (HEADER + b"\x35\1\1\x9f\4\6\x0b\0\0\xff", "exceeds 16 bits"),
        (HEADER + b"\x35\1\1\x9f\4\x10\0\0\0\xff", "PSID offset 16"),
        (HEADER + b"\x35\1\1\x6d\4\1\2\3\4\xff", "option 109 has 4 bytes"),
        (HEADER + b"\x35\1\1\x3d\1\1\xff", "client identifier"),
        (HEADER + b"\x35\1\1\x52\3\2\2\1\xff", "sub-option is cut off"),
        (HEADER + b"\x35\1\1\x52\1\2\xff", "sub-option is cut off"),
        (HEADER + b"\x35\1\1\x34\1\4\xff", "option overload"),
        (HEADER + b"\x35\1\1\x34\1\2\xff", "without an end"),
    ],
)
def test_malformed_dhcpv4(data: bytes, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        dhcpv4.Message.parse(data)


def test_relay_agent_information() -> None:
    """RFC 3046 section 2.0."""
    value = dhcpv4.pack_agent({dhcpv4.AgentOption.REMOTE_ID: LWB4.packed, 1: b"x"})
    assert value == bytes.fromhex("02 10 20010db800b400000000000000000001 01 01 78")
    assert dhcpv4.parse_agent(value + b"\1\1y") == {2: LWB4.packed, 1: b"x"}
    assert dhcpv4.parse_agent(b"") == {}


@pytest.mark.parametrize(
    ("value", "port_set"),
    [
        ("06060c00", PortSet(A6K6, 3)),
        ("06060fff", PortSet(A6K6, 3)),  # what stands right of the PSID is not looked at
        ("0010ffff", PortSet(PortParams(0, 16), 0xFFFF)),
        ("0000abcd", PortSet(PortParams(0, 0), 0)),
        ("04088100", PortSet(PortParams(4, 8), 0x81)),
    ],
)
def test_port_params(value: str, port_set: PortSet) -> None:
    """RFC 7618 section 9, RFC 7598 section 4.5."""
    assert PortSet.parse(bytes.fromhex(value)) == port_set
    assert PortSet.parse(port_set.pack()) == port_set


# --- DHCPv6 -------------------------------------------------------------------------------------

QUERY = bytes.fromhex("14 800000 0057 0003 616263")
FORWARDED = (
    bytes.fromhex("0c 00") + LINK.packed + LWB4.packed
    + bytes.fromhex("0012 0001 78 0009 000b") + QUERY
)  # fmt: skip


def test_dhcpv4_query_to_the_byte() -> None:
    """RFC 7341 section 6."""
    assert dhcpv6.dhcpv4_query(b"abc", unicast=True).pack() == QUERY
    message = dhcpv6.parse(QUERY)
    assert isinstance(message, dhcpv6.Message)
    assert (message.kind, message.dhcpv4, message.unicast) == (20, b"abc", True)
    assert dhcpv6.dhcpv4_response(b"").pack() == bytes.fromhex("15 000000 0057 0000")


def test_relay_forward_to_the_byte() -> None:
    """RFC 8415 section 9.1."""
    message = dhcpv6.parse(FORWARDED)
    assert message == dhcpv6.Relayed(12, 0, LINK, LWB4, ((18, b"x"), (9, QUERY)))
    assert message.pack() == FORWARDED
    relays, inner = dhcpv6.unwrap(FORWARDED)
    assert relays == [message]
    assert inner == dhcpv6.dhcpv4_query(b"abc", unicast=True)
    assert dhcpv6.wrap(relays, inner) == FORWARDED
    other = dhcpv6.dhcpv4_response(b"x")
    assert dhcpv6.unwrap(dhcpv6.wrap(relays, other)) == ([message.carrying(other.pack())], other)


def test_what_a_client_reads() -> None:
    """A REPLY with OPTION_DHCP4_O_DHCP6_SERVER (RFC 7341 section 7.2) and a softwire container
    (RFC 7598 sections 4.3 to 5.3)."""
    container = bytes.fromhex(
        "005a 0010 20010db8ffff00000000000000000001"  # S46_BR
        "005c 001d c0000201 80 20010db800b400000000000000000001"  # S46_V4V6BIND, /128
        "005d 0004 06 06 0c00"  # S46_PORTPARAMS
    )
    reply = bytes.fromhex("07 123456") + b"".join(
        s46.option(code, value)
        for code, value in ((1, b"\0\3\0\1abcdef"), (88, LINK.packed), (96, container))
    )
    message = dhcpv6.parse(reply)
    assert isinstance(message, dhcpv6.Message)
    assert message.word == 0x123456
    assert message.dhcp4o6_servers == [LINK]
    assert message.dhcpv4 is None
    softwire = Softwire(
        (IPv6Address("2001:db8:ffff::1"),), IPv4Address("192.0.2.1"),
        IPv6Network("2001:db8:b4::1/128"), PortSet(A6K6, 3),
    )  # fmt: skip
    assert message.softwires == [softwire]
    assert softwire.pack() == container
    everybody = dhcpv6.parse(bytes.fromhex("07 123456 0058 0000"))
    assert isinstance(everybody, dhcpv6.Message)
    assert everybody.dhcp4o6_servers == []
    assert dhcpv6.Message(7, 0, ()).dhcp4o6_servers is None


def test_a_prefix_that_ends_within_a_byte() -> None:
    packed = Softwire((LINK,), IPv4Address("192.0.2.1"), IPv6Network("2001:db8:1230::/44")).pack()
    assert packed.hex().endswith("005c000bc00002012c20010db81230")
    assert Softwire.parse(packed).bound == IPv6Network("2001:db8:1230::/44")
    assert Softwire.parse(Softwire((LINK,)).pack()) == Softwire((LINK,))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("", "0 bytes"),
        ("14 8000", "3 bytes"),
        ("14 000000", "0 times option 87"),
        ("15 000000", "0 times option 87"),
        ("14 000000 0057 0001 61 0057 0001 61", "2 times option 87"),
        ("14 000000 0057 0003 6162", "option 87 is cut off"),
        ("01 000000 0008", "header is cut off"),
        ("01 000000 0008 0003 000000", "option 8 has 3 bytes"),
        ("01 000000 0003 000b" + "00" * 11, "option 3 has 11 bytes"),
        ("01 000000 0001 0002 0001", "DUID of 2 bytes"),
        ("01 000000 0006 0003 000000", "option request"),
        ("07 000000 0058 0011" + "00" * 17, "4o6 servers"),
        ("0c 00", "2 bytes"),
        ("0c 00" + "00" * 31, "header is cut off"),
        ("0c 00" + "00" * 32, "0 times option 9"),
        ("0d 00" + "00" * 32 + "0009 0000 0009 0000", "2 times option 9"),
    ],
)
def test_malformed_dhcpv6(data: str, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        dhcpv6.parse(bytes.fromhex(data))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("", "without a BR address"),
        ("005a 0004 01020304", "16 bytes, not 4"),
        ("005c 0004 c0000201", "that is none"),
        ("005c 0005 c0000201 81", "that is none"),
        ("005c 0007 c0000201 40 2001", "cut off"),
        ("005c 0005 c0000201 00 005c 0005 c0000201 00", "two bindings"),
        ("005c 0015 c0000201 00 005d 0004 06060c00 005d 0004 06060c00", "two port sets"),
    ],
)
def test_malformed_softwire_container(data: str, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        Softwire.parse(bytes.fromhex(data))


def test_messages_wrapped_without_end() -> None:
    data = QUERY
    for _ in range(9):
        data = dhcpv6.Relayed(12, 0, LINK, LWB4, ((9, data),)).pack()
    assert len(dhcpv6.unwrap(data)[0]) == 9
    data = dhcpv6.Relayed(12, 0, LINK, LWB4, ((9, data),)).pack()
    with pytest.raises(Malformed, match="more than 8 relays"):
        dhcpv6.unwrap(data)
    reply = dhcpv6.Relayed(13, 0, LINK, LWB4, ((9, FORWARDED),)).pack()
    with pytest.raises(Malformed, match="in one message"):
        dhcpv6.unwrap(reply)


# --- anything -----------------------------------------------------------------------------------

port_sets = st.integers(0, 15).flatmap(
    lambda a: st.integers(0, 16 - a).flatmap(
        lambda k: st.builds(PortSet, st.just(PortParams(a, k)), st.integers(0, (1 << k) - 1))
    )
)
dhcpv4_options = st.dictionaries(
    st.integers(1, 254).filter(lambda c: c not in dhcpv4._SIZES and c not in (52, 61, 82)),
    st.binary(max_size=600), max_size=6,
)  # fmt: skip
dhcpv4_messages = st.builds(
    lambda options, kind, port_set, **fields: dhcpv4.Message(
        options={53: bytes([kind]), 159: port_set.pack(), **options}, **fields
    ),
    op=st.sampled_from([1, 2]),
    xid=st.integers(0, 0xFFFFFFFF),
    options=dhcpv4_options,
    kind=st.integers(0, 255),
    port_set=port_sets,
    ciaddr=st.ip_addresses(v=4),
    yiaddr=st.ip_addresses(v=4),
    chaddr=st.binary(max_size=16),
    secs=st.integers(0, 0xFFFF),
    file=st.binary(min_size=128, max_size=128),
)


@given(dhcpv4_messages)
def test_every_dhcpv4_message_is_read_as_it_was_written(message: dhcpv4.Message) -> None:
    assert dhcpv4.Message.parse(message.pack()) == message


messages = st.builds(
    dhcpv6.Message,
    st.sampled_from([1, 3, 7, 11]),
    st.integers(0, 0xFFFFFF),
    st.lists(st.tuples(st.sampled_from([14, 16, 96, 500]), st.binary(max_size=40)), max_size=5).map(
        tuple
    ),
) | st.builds(
    dhcpv6.Message,
    st.sampled_from([14, 200]),  # which nobody here knows
    st.integers(0, 0xFFFFFF),
    st.just(()),
    st.binary(max_size=40),
)
relays = st.builds(
    dhcpv6.Relayed, st.just(12), st.integers(0, 255), st.ip_addresses(v=6), st.ip_addresses(v=6),
    st.binary(max_size=20).map(lambda value: ((18, value), (9, b""))),
)  # fmt: skip


@given(st.lists(relays, max_size=9), messages)
def test_every_dhcpv6_message_is_read_as_it_was_written(
    path: list[dhcpv6.Relayed], message: dhcpv6.Message
) -> None:
    wrapped = dhcpv6.wrap(path, message)
    read, inner = dhcpv6.unwrap(wrapped)
    assert inner == message
    assert [(r.hop_count, r.peer) for r in read] == [(r.hop_count, r.peer) for r in path]
    assert dhcpv6.wrap(read, inner) == wrapped


@given(port_sets)
def test_every_port_set_is_read_as_it_was_written(port_set: PortSet) -> None:
    assert PortSet.parse(port_set.pack()) == port_set


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """``data`` with some of its bytes changed, or cut off."""

    def change(edits: list[tuple[int, int]], end: int) -> bytes:
        changed = bytearray(data)
        for at, value in edits:
            changed[at] = value
        return bytes(changed[:end])

    position = st.integers(0, len(data) - 1)
    edits = st.lists(st.tuples(position, st.integers(0, 255)), max_size=8)
    return st.builds(change, edits, st.one_of(st.just(len(data)), position))


@given(st.one_of(st.binary(max_size=400), mutated(DISCOVER)))
def test_any_dhcpv4_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        message = dhcpv4.Message.parse(data)
        assert dhcpv4.Message.parse(message.pack()) == message
        _ = message.kind, message.port_set, message.softwire_source, message.seconds(51)
        _ = message.address(50), dhcpv4.parse_agent(message.options.get(82, b""))


@given(st.one_of(st.binary(max_size=400), mutated(FORWARDED), mutated(QUERY)))
def test_any_dhcpv6_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        path, message = dhcpv6.unwrap(data)
        assert dhcpv6.unwrap(dhcpv6.wrap(path, message)) == (path, message)
        _ = message.dhcpv4, message.dhcp4o6_servers, message.softwires


def test_a_changed_message_is_another_one() -> None:
    message = dhcpv4.Message.parse(DISCOVER)
    fields: dict[str, Any] = {"giaddr": IPv4Address("10.0.0.1"), "hops": 1}
    assert dhcpv4.Message.parse(replace(message, **fields).pack()) == replace(message, **fields)
