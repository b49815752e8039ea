"""The softwire packet out of the frame that the shim made of it; frames written down by hand."""

from __future__ import annotations

from ipaddress import IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from openflow_rules.outer import softwire_packet
from tests.shim.model import checksum, wire_to_ovs

LWB4, ANYCAST = IPv6Address("2001:db8:b4::1"), IPv6Address("2001:db8:ffff::1")
UDP = bytes.fromhex("4500001c 0007 0000 40 11 0000 c0000201 c63364c8 0430 0035 0008 0000")
ERROR = bytes.fromhex("45000038 0007 0000 40 01 0000 c0000201 c63364c8 0303 0000 00000000") + UDP


def test_the_outer_header_is_put_together_again() -> None:
    """Traffic class 0x28, flow label 0x12345, hop limit 63."""
    frame = bytes.fromhex("024b00000028 3a3123450000 0800") + UDP
    expected = bytes.fromhex("62812345 001c 04 3f") + LWB4.packed + ANYCAST.packed + UDP
    assert softwire_packet(frame, LWB4.packed, ANYCAST.packed) == expected


def test_an_encapsulation_limit_is_put_back() -> None:
    """RFC 2473 section 4.1.1: option type 4, length 1; what tunnel drivers send is limit 4."""
    frame = bytes.fromhex("024b00000100 3a3000000000 0800") + UDP
    expected = bytes.fromhex("60000000 0024 3c 3f") + LWB4.packed + ANYCAST.packed
    expected += bytes.fromhex("04 00 04 01 04 01 01 00") + UDP
    assert softwire_packet(frame, LWB4.packed, ANYCAST.packed) == expected


def test_of_an_icmp_error_the_flow_label_is_not_known() -> None:
    frame = bytes.fromhex("024b00000000 3a3100350430 0800") + ERROR
    assert softwire_packet(frame, LWB4.packed, ANYCAST.packed)[:8] == bytes.fromhex(
        "60000000 0038 04 3f"
    )


@given(st.integers(0, 0xFF), st.integers(0, 0xFFFFF), st.integers(0, 0xFF), st.booleans())
def test_whatever_the_shim_translates_comes_back(
    traffic_class: int, label: int, hop_limit: int, limited: bool
) -> None:
    options = bytes.fromhex("0400040104010100") if limited else b""
    first = 6 << 28 | traffic_class << 20 | label
    # ECN CE inside: no traffic class changes it (RFC 6040 section 4.2).
    inner = UDP[:1] + b"\x03" + UDP[2:]
    inner = inner[:10] + checksum(inner[:20]).to_bytes(2, "big") + inner[12:]
    length = len(options + inner).to_bytes(2, "big")
    packet = first.to_bytes(4, "big") + length + bytes([60 if limited else 4, hop_limit])
    packet += LWB4.packed + ANYCAST.packed + options + inner
    frame = wire_to_ovs(bytes(12) + b"\x86\xdd" + packet, {ANYCAST.packed})
    assert frame is not None
    assert softwire_packet(frame[58:], LWB4.packed, ANYCAST.packed) == packet
