"""UDP over IPv4, held against Scapy."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.packet import Packet

from ryu_lw4o6.core import udp
from ryu_lw4o6.core.udp import Datagram

SOURCE, DESTINATION = "192.0.0.2", "192.0.0.1"
ports = st.integers(0, 0xFFFF)


def packet(**fields: object) -> Packet:
    return IP(src=SOURCE, dst=DESTINATION, id=0, flags="DF", **fields)


@given(ports, ports, st.binary(max_size=100))
def test_what_scapy_makes(source_port: int, destination_port: int, payload: bytes) -> None:
    datagram = Datagram(
        IPv4Address(SOURCE), IPv4Address(DESTINATION), source_port, destination_port, payload
    )
    expected = bytes(packet(ttl=64) / UDP(sport=source_port, dport=destination_port) / payload)
    assert datagram.encode() == expected
    assert udp.parse(expected) == datagram
    assert udp.parse(expected + b"padding") == datagram


def test_what_need_not_be_there() -> None:
    """IPv4 options, and a checksum (RFC 768: all zero if there is none)."""
    for sent in (packet(options=b"\x01" * 4) / UDP(dport=5351) / b"x",
                 packet() / UDP(dport=5351, chksum=0) / b"x"):  # fmt: skip
        found = udp.parse(bytes(sent))
        assert found is not None
        assert (found.destination_port, found.payload) == (5351, b"x")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        bytes(packet() / UDP(chksum=1) / b"x"),
        bytes(packet(chksum=1) / UDP() / b"x"),
        bytes(packet() / UDP(len=7) / b"x"),
        bytes(packet() / UDP(len=10) / b"x"),
        bytes(packet(proto=6) / UDP() / b"x"),
        bytes(packet(frag=1) / UDP() / b"x"),
        bytes(IP(src=SOURCE, dst=DESTINATION, flags="MF") / UDP() / b"x"),
        bytes(packet() / UDP() / b"xyz")[:-1],
        bytes(packet(version=6) / UDP() / b"x"),
    ],
)
def test_what_is_no_whole_datagram(sent: bytes) -> None:
    assert udp.parse(sent) is None
