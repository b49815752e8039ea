"""ICMPv6 errors about softwire packets, and what they mean for whoever sent what was inside (RFC
2473 section 8). Pure: bytes in, values out."""

from __future__ import annotations

import struct
from collections.abc import Hashable
from dataclasses import dataclass
from ipaddress import IPv6Address

from ryu_lw4o6.core import ipv6
from ryu_lw4o6.core.ethernet import checksum

MIN_MTU = 1280  # RFC 8200 section 5
_UNREACHABLE, _TOO_BIG, _TIME_EXCEEDED, _PARAMETER = 1, 2, 3, 4
_HOP_LIMIT_EXCEEDED = 0  # code of _TIME_EXCEEDED; 1 is about reassembly, which is not the tunnel's
_QUOTED = 28  # bytes of the IPv4 packet: its header, and the ports


@dataclass(frozen=True, slots=True)
class Report:
    """``packet`` is what the error quotes of the IPv4 packet that we sent from ``br_address`` to
    ``lwb4``. ``mtu`` is what the path takes of an IPv6 packet, None if it takes none at all.
    A ``parameter_problem`` is ours: RFC 2473 section 8.1 hands on those about an encapsulation
    limit, of which we send none."""

    br_address: IPv6Address
    lwb4: IPv6Address
    packet: bytes
    mtu: int | None
    parameter_problem: bool


def read(packet: bytes) -> Report | None:
    """What an IPv6 packet reports; None if nothing is to be told to the source of the packet
    inside, or if it is not about a softwire packet of the address that it was sent to."""
    try:
        header, next_header, data = ipv6.read(packet)
        opened = ipv6.behind_extensions(next_header, data)
        message = opened.payload
        if opened.next_header != ipv6.ICMPV6 or opened.fragment or len(message) < 8:
            return None
        pseudo = packet[8:40] + struct.pack("!II", len(message), ipv6.ICMPV6)
        if checksum(pseudo + message):
            return None
        kind, code, _, word = struct.unpack_from("!BBHI", message)
        if kind == _TIME_EXCEEDED and code != _HOP_LIMIT_EXCEEDED:
            return None
        if kind not in (_UNREACHABLE, _TOO_BIG, _TIME_EXCEEDED, _PARAMETER):
            return None
        if kind == _TOO_BIG and word < MIN_MTU:  # must be discarded (RFC 8201 section 4)
            return None
        quoted = message[8:]
        # Its length is that of the whole packet, of which this is the beginning.
        whole = quoted[:4] + struct.pack("!H", max(0, len(quoted) - ipv6.HEADER)) + quoted[6:]
        outer, next_header, inner = ipv6.read(whole)
        if next_header == ipv6.FRAGMENT:
            if len(inner) < 8 or inner[0] != ipv6.IPIP or inner[2:4] not in (b"\0\1", b"\0\0"):
                return None
            next_header, inner = inner[0], inner[8:]
    except ipv6.Malformed:
        return None
    if next_header != ipv6.IPIP or outer.source != header.destination:
        return None
    if len(inner) < _QUOTED or inner[0] >> 4 != 4 or inner[0] & 0xF < 5:
        return None
    mtu = word if kind == _TOO_BIG else None
    return Report(outer.source, outer.destination, inner, mtu, kind == _PARAMETER)


class PathMtus:
    """Which paths have a smaller MTU, for ``seconds`` (RFC 8201 section 5.3), at most ``limit``."""

    def __init__(self, seconds: float, limit: int) -> None:
        self._seconds = seconds
        self._limit = limit
        self._known: dict[Hashable, tuple[int, float]] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, key: Hashable, mtu: int, now: float) -> bool:
        """Note the MTU of a path; False if it says nothing new, or there are too many."""
        while self._known:
            oldest = next(iter(self._known))
            if self._known[oldest][1] > now - self._seconds:
                break
            del self._known[oldest]
        known = self._known.get(key)
        if known is not None and known[0] <= mtu:
            return False
        if known is None and len(self._known) >= self._limit:
            return False
        self._known.pop(key, None)
        self._known[key] = mtu, now
        return True
