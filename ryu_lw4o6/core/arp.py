"""ARP packets as bytes (RFC 826, Ethernet and IPv4 only)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

BROADCAST = bytes.fromhex("ffffffffffff")
REQUEST, REPLY = 1, 2
_ETHERTYPE = b"\x08\x06"
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_MIN_FRAME = 60  # 64 on the wire, less the frame check sequence


@dataclass(frozen=True, slots=True)
class ArpPacket:
    operation: int
    sender_mac: bytes
    sender: IPv4Address
    target_mac: bytes
    target: IPv4Address


def request(mac: bytes, own: IPv4Address, target: IPv4Address, to: bytes = BROADCAST) -> bytes:
    """A frame asking for the MAC address of ``target``; unicast when ``to`` is given."""
    body = _ARP.pack(1, 0x0800, 6, 4, REQUEST, mac, own.packed, bytes(6), target.packed)
    return (to + mac + _ETHERTYPE + body).ljust(_MIN_FRAME, b"\0")


def parse(frame: bytes) -> ArpPacket | None:
    """The ARP packet in an untagged Ethernet frame; None if it holds none that makes sense."""
    if len(frame) < 14 + _ARP.size or frame[12:14] != _ETHERTYPE:
        return None
    hardware, protocol, hlen, plen, operation, smac, sender, tmac, target = _ARP.unpack_from(
        frame, 14
    )
    if (hardware, protocol, hlen, plen) != (1, 0x0800, 6, 4):
        return None
    return ArpPacket(operation, smac, IPv4Address(sender), tmac, IPv4Address(target))
