"""IPv6 packets as bytes, as far as a softwire's end has to read them (RFC 8200)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv6Address

HEADER = 40
IPIP, ROUTING, FRAGMENT, OPTIONS, HOP_BY_HOP, ICMPV6 = 4, 43, 44, 60, 0, 58
_ENCAPSULATION_LIMIT = 4
_MOST_HEADERS = 8
_ECN = 3  # the bits of a traffic class; all of them set are CE (RFC 3168 section 5)


class Malformed(ValueError):
    """A packet that goes no further; the text is the counter's name."""


class Forbidden(Malformed):
    """One whose extension headers do not let it. Its source may have to be told, which the kernel
    knows (RFC 8200 sections 4.1, 4.2, 4.4 and 4.5)."""


@dataclass(frozen=True, slots=True)
class Header:
    source: IPv6Address
    destination: IPv6Address
    traffic_class: int
    label: int
    hop_limit: int


@dataclass(frozen=True, slots=True)
class Fragment:
    """What a fragment header says; ``offset`` in bytes."""

    identification: int
    offset: int
    more: bool
    next_header: int


@dataclass(frozen=True, slots=True)
class Opened:
    """What is behind the extension headers: ``payload`` of type ``next_header``, or a fragment of
    it. ``limited`` is whether there was a tunnel encapsulation limit."""

    next_header: int
    payload: bytes
    fragment: Fragment | None
    limited: bool


def read(packet: bytes) -> tuple[Header, int, bytes]:
    """(header, next header, what follows the header). Raises Malformed."""
    if len(packet) < HEADER or packet[0] >> 4 != 6:
        raise Malformed("malformed")
    first, length, next_header, hop_limit = struct.unpack_from("!IHBB", packet)
    if HEADER + length > len(packet):
        raise Malformed("malformed")
    source, destination = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
    header = Header(source, destination, traffic_class(packet), first & 0xFFFFF, hop_limit)
    return header, next_header, packet[HEADER : HEADER + length]


def traffic_class(packet: bytes) -> int:
    return packet[0] << 4 & 0xF0 | packet[1] >> 4


def behind_extensions(next_header: int, data: bytes, *, first: bool = True) -> Opened:
    """Pass over extension headers up to a fragment, IPv4, or something else. ``first`` is whether
    ``data`` follows the IPv6 header itself. Raises Malformed, or Forbidden."""
    limited = False
    for position in range(_MOST_HEADERS):
        if next_header == FRAGMENT:
            if len(data) < 8:
                raise Malformed("malformed")
            following, _, field, identification = struct.unpack_from("!BBHI", data)
            next_header, data = following, data[8:]
            if field & 0xFFF9:
                part = Fragment(identification, field & 0xFFF8, bool(field & 1), following)
                return Opened(next_header, data, part, limited)
            continue  # a fragment that is all of its packet (RFC 6946)
        if next_header not in (HOP_BY_HOP, ROUTING, OPTIONS):
            return Opened(next_header, data, None, limited)
        if len(data) < 8 or len(data) < (length := (data[1] + 1) * 8):
            raise Malformed("malformed")
        if next_header == ROUTING:
            if data[3]:  # segments left: it goes elsewhere (RFC 8200 section 4.4)
                raise Forbidden("options")
        else:
            if next_header == HOP_BY_HOP and not (first and position == 0):
                raise Forbidden("options")
            limited |= _check_options(data[2:length])
        next_header, data = data[0], data[length:]
    raise Forbidden("options")


def _check_options(options: bytes) -> bool:
    """Whether an encapsulation limit is among them. Raises Forbidden if one of the options is not
    to be skipped by those who do not know it (RFC 8200 section 4.2)."""
    limited = False
    while options:
        kind = options[0]
        if kind == 0:  # Pad1
            options = options[1:]
            continue
        if kind >> 6 or len(options) < 2 or len(options) < 2 + options[1]:
            raise Forbidden("options")
        limited |= kind == _ENCAPSULATION_LIMIT
        options = options[2 + options[1] :]
    return limited


def reassembled_class(classes: list[int]) -> int:
    """The traffic class of a packet whose fragments, in order, have had these: that of the first
    (RFC 8200 section 4.5), but no sign of congestion is lost. Raises Malformed if not all
    are of a transport that heeds it (RFC 3168 section 5.3)."""
    if any(each & _ECN == _ECN for each in classes):
        if any(not each & _ECN for each in classes):
            raise Malformed("ecn")
        return classes[0] | _ECN
    return classes[0]


def in_fragments(
    header: Header, payload: bytes, next_header: int, mtu: int, identification: int
) -> list[bytes]:
    """An IPv6 packet in fragments of at most ``mtu`` bytes (RFC 8200 section 4.5)."""
    size = (mtu - HEADER - 8) & ~7
    first = 6 << 28 | header.traffic_class << 20 | header.label
    made = []
    for at in range(0, len(payload), size):
        data = payload[at : at + size]
        more = at + size < len(payload)
        made.append(
            struct.pack("!IHBB", first, 8 + len(data), FRAGMENT, header.hop_limit)
            + header.source.packed + header.destination.packed
            + struct.pack("!BBHI", next_header, 0, at | more, identification) + data
        )  # fmt: skip
    return made
