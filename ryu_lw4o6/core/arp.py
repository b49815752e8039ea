"""ARP as bytes (RFC 826), for Ethernet and IPv4."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

from ryu_lw4o6.core import ethernet

_BROADCAST = b"\xff" * 6
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_REQUEST = 1


def solicit(mac: bytes, own: IPv4Address, target: IPv4Address, known: bytes | None = None) -> bytes:
    """A frame asking who has ``target``; only ``known`` is asked if it is given."""
    body = _ARP.pack(1, ethernet.ETH_IPV4, 6, 4, _REQUEST, mac, own.packed, bytes(6), target.packed)
    return ethernet.frame(known or _BROADCAST, mac, ethernet.ETH_ARP, body)


def sender(frame: bytes) -> tuple[IPv4Address, bytes] | None:
    """Who sent an ARP packet: (address, MAC address). None if the frame holds no sound one."""
    if len(frame) < ethernet.HEADER + _ARP.size or frame[12:14] != b"\x08\x06":
        return None
    hardware, protocol, hlen, plen, _, mac, address, _, _ = _ARP.unpack_from(frame, 14)
    if (hardware, protocol, hlen, plen) != (1, ethernet.ETH_IPV4, 6, 4):
        return None
    return (IPv4Address(address), mac) if ethernet.is_station(mac) else None
