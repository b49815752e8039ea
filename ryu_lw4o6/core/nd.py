"""IPv6 neighbour discovery as bytes (RFC 4861), as far as asking a router for its address."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address

from ryu_lw4o6.core import ethernet
from ryu_lw4o6.core.icmp import icmpv6

_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOURCE_LINK, _TARGET_LINK = 1, 2
_HOP_LIMIT = 255  # so that nobody off the link can take part (RFC 4861 section 7.1)
_SOLICITED_NODE = IPv6Address("ff02::1:ff00:0").packed[:13]


def solicit(mac: bytes, own: IPv6Address, target: IPv6Address, known: bytes | None = None) -> bytes:
    """A neighbour solicitation; only ``known`` is asked if it is given (RFC 4861 section 4.3)."""
    group = IPv6Address(_SOLICITED_NODE + target.packed[13:])
    destination = target if known else group
    link = known or b"\x33\x33" + group.packed[12:]
    body = bytes(4) + target.packed + bytes([_SOURCE_LINK, 1]) + mac
    packet = icmpv6(own.packed, destination.packed, _SOLICITATION, 0, body, hop_limit=_HOP_LIMIT)
    return ethernet.frame(link, mac, ethernet.ETH_IPV6, packet)


def sender(frame: bytes) -> tuple[IPv6Address, bytes] | None:
    """What a neighbour advertisement says: (target, MAC address). None if the frame holds no
    sound one (RFC 4861 section 7.1.2)."""
    packet = frame[ethernet.HEADER :]
    if frame[12:14] != b"\x86\xdd" or len(packet) < 64 or packet[6] != 58:
        return None
    (length,) = struct.unpack_from("!H", packet, 4)
    message = packet[40 : 40 + length]
    if packet[7] != _HOP_LIMIT or len(message) < 24 or message[0] != _ADVERTISEMENT or message[1]:
        return None
    pseudo = packet[8:40] + struct.pack("!II", len(message), 58)
    if ethernet.checksum(pseudo + message):
        return None
    mac = frame[6:12]
    at = 24
    while at + 8 <= len(message):
        size = message[at + 1] * 8
        if size == 0:
            return None
        if message[at] == _TARGET_LINK and size == 8:
            mac = message[at + 2 : at + 8]
        at += size
    return (IPv6Address(message[8:24]), mac) if ethernet.is_station(mac) else None
