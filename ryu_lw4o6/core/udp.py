"""UDP over IPv4 as bytes (RFC 768, RFC 791)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from ryu_lw4o6.core.ethernet import checksum

PROTOCOL = 17
TTL = 64
_HEADER = 20
_FRAGMENT = 0x3FFF  # more fragments, or an offset


@dataclass(frozen=True, slots=True)
class Datagram:
    source: IPv4Address
    destination: IPv4Address
    source_port: int
    destination_port: int
    payload: bytes

    def encode(self, ttl: int = TTL) -> bytes:
        """The IPv4 packet. It is never fragmented, so it needs no identification (RFC 6864)."""
        length = 8 + len(self.payload)
        udp = struct.pack("!HHHH", self.source_port, self.destination_port, length, 0)
        total = checksum(self._pseudo_header(length) + udp + self.payload) or 0xFFFF
        header = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, _HEADER + length, 0, 0x4000, ttl, PROTOCOL, 0,
            self.source.packed, self.destination.packed,
        )  # fmt: skip
        header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
        return header + udp[:6] + struct.pack("!H", total) + self.payload

    def _pseudo_header(self, length: int) -> bytes:
        return self.source.packed + self.destination.packed + struct.pack("!HH", PROTOCOL, length)


def parse(packet: bytes) -> Datagram | None:
    """The datagram in an IPv4 packet; None if it holds none that is whole and undamaged."""
    if len(packet) < _HEADER or packet[0] >> 4 != 4:
        return None
    header = (packet[0] & 0xF) * 4
    total, _, fragment = struct.unpack_from("!HHH", packet, 2)
    if header < _HEADER or total > len(packet) or total < header + 8:
        return None
    if fragment & _FRAGMENT or packet[9] != PROTOCOL or checksum(packet[:header]):
        return None
    source_port, destination_port, length, given = struct.unpack_from("!HHHH", packet, header)
    if length < 8 or header + length > total:
        return None
    datagram = Datagram(
        IPv4Address(packet[12:16]),
        IPv4Address(packet[16:20]),
        source_port,
        destination_port,
        packet[header + 8 : header + length],
    )
    whole = datagram._pseudo_header(length) + packet[header : header + length]
    return None if given and checksum(whole) else datagram
