"""What frames of any kind need: MAC addresses and the Internet checksum."""

from __future__ import annotations

import functools
import struct

ETH_IPV4, ETH_ARP, ETH_IPV6 = 0x0800, 0x0806, 0x86DD
HEADER = 14
MIN_FRAME = 60  # 64 on the wire, less the frame check sequence


@functools.lru_cache(maxsize=64)
def mac_bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def frame(destination: bytes, source: bytes, ethertype: int, payload: bytes) -> bytes:
    """An untagged Ethernet frame, padded to the shortest length that Ethernet has."""
    return (destination + source + struct.pack("!H", ethertype) + payload).ljust(MIN_FRAME, b"\0")


def is_station(mac: bytes) -> bool:
    """Whether a MAC address can be one host's: not a group address, not all zero."""
    return not mac[0] & 1 and any(mac)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    # 2^16 is 1 modulo 2^16 - 1: the one's complement sum of 16-bit words is the remainder of the
    # whole number, except that a sum of 0 comes of zeros alone.
    total = int.from_bytes(data, "big") % 0xFFFF
    return 0xFFFF - total if total or not any(data) else 0
