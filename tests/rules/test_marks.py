"""Frames of the controller's own bear the mark that the shim would have written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Packet, Raw

from openflow_rules.marks import mark, marked_frame, own_error_frame
from openflow_rules.tables import Mark
from tests.shim import model

QUOTED = IP(src="192.0.2.1", dst="198.51.100.200")


def about(quoted: Packet) -> bytes:
    return bytes(IP(src="198.51.100.1", dst="192.0.2.1") / ICMP(type=11) / Raw(bytes(quoted)))


# 0x0430 = 1072 is the subscriber's port, on the destination's side of the error.
@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (about(QUOTED / UDP(sport=1072, dport=53)), 0x0430_0035),
        (about(QUOTED / TCP(sport=1072, dport=80)), 0x0430_0050),
        (about(QUOTED / ICMP(type=8, id=1072)), 0x0430_0430),
        (bytes(QUOTED / ICMP(type=0, id=1072)), 1 << 38 | 0x0430),
        (bytes(QUOTED / ICMP(type=13, ts_ori=0, ts_rx=0, ts_tx=0)), 1 << 39),
        (about(IP(src="192.0.2.1", dst="198.51.100.200", proto=50) / Raw(bytes(8))), 3 << 38),
        # what it quotes came from somebody else
        (about(IP(src="192.0.2.9", dst="198.51.100.200") / UDP(sport=1072, dport=53)), 1 << 39),
        (bytes(QUOTED / UDP(sport=1072, dport=53)), 0),
    ],
)
def test_ports_are_where_the_rules_look(packet: bytes, expected: int) -> None:
    assert mark(packet) == expected
    frame = marked_frame(packet)
    assert frame[6:12] == expected.to_bytes(6, "big")
    assert frame[12:] == b"\x08\x00" + packet


def test_an_own_error_about_a_protocol_without_ports_gets_through() -> None:
    quoted = IP(src="203.0.113.5", dst="198.51.100.200", proto=47) / Raw(bytes(8))
    packet = bytes(IP(src="198.51.100.1", dst="203.0.113.5") / ICMP(type=11) / Raw(bytes(quoted)))
    assert mark(packet) == Mark.NO_PORTS | Mark.ECHO
    assert own_error_frame(packet)[6:12] == bytes(6)


QUOTES = st.sampled_from([0, 6, 1, 17, 47]).flatmap(
    lambda proto: st.binary(max_size=12).map(
        lambda rest: bytes(IP(src="192.0.2.1", dst="192.0.2.7", proto=proto) / Raw(rest))
    )
)


@given(
    st.integers(0, 255), st.binary(max_size=40) | QUOTES, st.sampled_from([0, 1, 0x2000]),
    st.sampled_from([b"", b"\x01" * 4]), st.sampled_from(["192.0.2.1", "192.0.2.7"]),
    st.booleans(),
)  # fmt: skip
def test_the_same_as_the_shims_model(
    kind: int, rest: bytes, frag: int, options: bytes, source: str, upstream: bool
) -> None:
    message = bytes([kind, 0, 0, 0, 4, 48, 0, 0]) + rest
    header = IP(src=source, dst="192.0.2.1", proto=1, options=options)
    packet = bytearray(bytes(header / Raw(message)))
    packet[6:8] = frag.to_bytes(2, "big")
    expected = model.icmp_mark(bytes(packet), upstream=upstream)
    assert mark(bytes(packet), upstream=upstream) == expected
