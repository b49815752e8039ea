"""What the controller changes of IPv4 packets; expected values from the RFCs, checked by Scapy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP

from ryu_lw4o6.core import ipv4
from tests.shim.model import ECN_AT_THE_END

PACKET = bytes(IP(src="192.0.2.1", dst="198.51.100.200", tos=0x28) / UDP(sport=1072, dport=53))


@pytest.mark.parametrize("inner", range(4))
@pytest.mark.parametrize("outer", range(4))
def test_ecn_out_of_a_tunnel(inner: int, outer: int) -> None:
    """RFC 6040 section 4.2, figure 4."""
    packet = bytes(IP(tos=0x28 | inner) / UDP())
    found = ipv4.out_of_tunnel(packet, 0xB8 | outer, outer_dscp=False)
    expected = ECN_AT_THE_END[inner][outer]
    if expected is None:
        assert found is None
    else:
        assert found == bytes(IP(tos=0x28 | expected) / UDP())


def test_the_outer_dscp() -> None:
    found = ipv4.out_of_tunnel(PACKET, 0xB8, outer_dscp=True)
    assert found is not None
    assert found[1] == 0xB8
    assert ipv4.is_sound(found)


# Stream identifier (0x88) is copied into every fragment, record route (7) and NOP are not
# (RFC 791 section 3.1).
OPTIONS = b"\x01\x88\x04\xab\xcd\x07\x07\x04\0\0\0\0"


def test_fragments_to_the_byte() -> None:
    data = bytes(range(256)) * 8
    whole = IP(src="192.0.2.1", dst="198.51.100.200", id=7, proto=17, ttl=9, options=OPTIONS)
    first, second = ipv4.in_fragments(bytes(whole / data), 1500)
    # 1500 - 32 = 1468, of which 1464 are a multiple of 8
    assert first == bytes(
        IP(src="192.0.2.1", dst="198.51.100.200", id=7, proto=17, ttl=9, flags="MF",
           options=OPTIONS) / data[:1464]
    )  # fmt: skip
    assert second == bytes(
        IP(src="192.0.2.1", dst="198.51.100.200", id=7, proto=17, ttl=9, frag=183,
           options=b"\x88\x04\xab\xcd") / data[1464:]
    )  # fmt: skip


@given(
    st.binary(min_size=1, max_size=4000), st.integers(68, 1500), st.integers(0, 100), st.booleans()
)
def test_fragments_make_the_packet_again(data: bytes, mtu: int, frag: int, more: bool) -> None:
    if more:
        data += bytes(-len(data) % 8)
    packet = bytes(IP(dst="198.51.100.200", frag=frag, flags="MF" if more else 0, proto=17) / data)
    pieces = ipv4.in_fragments(packet, mtu)
    at = frag * 8
    for number, piece in enumerate(pieces):
        assert ipv4.is_sound(piece)
        assert len(piece) <= mtu
        field = ipv4.fragment_field(piece)
        assert (field & ipv4.OFFSET) * 8 == at
        assert bool(field & ipv4.MF) == (more or number + 1 < len(pieces))
        at += len(piece) - 20
    assert b"".join(piece[20:] for piece in pieces) == data
