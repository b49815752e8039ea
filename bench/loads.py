"""Packets of 64 subscribers that need one feature each of the lwAFTR."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from bench.rates import Way
from bench.rig import (
    AFTR,
    NIC4,
    NIC6,
    SERVER,
    WIRE4,
    WIRE6,
    Rig,
    bindings,
    downstream,
    upstream,
    wire,
)
from ryu_lw4o6.core.binding import Binding
from ryu_lw4o6.core.ethernet import checksum
from tests.support.netns import inside
from tests.support.ovs import wait_for

SUBSCRIBERS = bindings(64)
PACED = 2000
"""Packets per second where the controller takes part."""
MOST_SECONDS = 4
"""For how long packets that must not come twice have to last."""
PATH_MTU = 1400
_BLOCK = 64
"""Bytes of a small packet, and of what is in a fragment."""
_UP, _DOWN = Way("wire6", "wire4"), Way("wire4", "wire6")
_TURNED6, _TURNED4 = Way("wire6", "wire6"), Way("wire4", "wire4")
_SIDES = (("from lwB4s", _UP, 6), ("to lwB4s", _DOWN, 4))


@dataclass(frozen=True)
class Load:
    """``frames`` are sent in turn, from the IPv6 or IPv4 ``side``; ``arriving`` come out of each.
    One that is ``paced`` goes through the controller, ``PACED`` frames a second."""

    name: str
    side: int
    way: Way
    frames: Sequence[bytes]
    arriving: float = 1
    paced: bool = False
    prepare: Callable[[Rig], None] = lambda rig: None


def plain(
    name: str,
    way: Callable[[Way], Way] = lambda way: way,
    change: Callable[[bytes, int], bytes] = lambda frame, side: frame,
) -> list[Load]:
    """Small packets of UDP, both ways; ``change`` makes a frame of a side fit the rig."""
    return [
        Load(
            f"{name}, {what}",
            side,
            way(there),
            [change(_plain(b, side), side) for b in SUBSCRIBERS],
        )
        for what, there, side in _SIDES
    ]


def loads() -> Iterator[Load]:
    """What needs no configuration of its own. Path MTUs, which stay, come last."""
    for what, way, side in _SIDES:
        yield Load(f"IPv4 fragments in order, {what}", side, way, _fragments(side))
        yield Load("of 8 different A fields", side, way, _fragments(side, 8))
        yield Load("out of order", side, way, _early(side), paced=True)
    yield Load(
        "softwire packets in two IPv6 fragments", 6, _UP, _each(_in_ipv6_fragments), 0.5, True
    )
    yield Load("1500 bytes to lwB4s", 4, _DOWN, _each(lambda b: [_of_size(b, 1500)]))
    others = [*SUBSCRIBERS[1:], SUBSCRIBERS[0]]
    pairs = zip(SUBSCRIBERS, others, strict=True)
    yield Load("from lwB4 to lwB4", 6, _TURNED6, [_to_neighbour(b, other) for b, other in pairs])
    yield Load("echo requests to the lwAFTR", 4, _TURNED4, [_echo()])
    yield Load("TTL 1", 4, _TURNED4, _each(lambda b: [_expiring(b)]), paced=True)
    unreachable = ICMPv6DestUnreach(code=3)
    yield Load("ICMPv6 errors about the tunnel", 6, _UP,
               _each(lambda b: [_about(b, unreachable)]), paced=True)  # fmt: skip
    yield Load("a smaller path MTU, packets that fit", 4, _DOWN,
               [_plain(b, 4) for b in SUBSCRIBERS], prepare=_learn_path_mtus)  # fmt: skip
    yield Load("that do not, and have DF", 4, _TURNED4,
               _each(lambda b: [_of_size(b, PATH_MTU, "DF")]), paced=True)  # fmt: skip
    yield Load("and have not", 4, _DOWN, _each(lambda b: [_of_size(b, PATH_MTU)]), 2, True)


def to_be_fragmented() -> list[Load]:
    """Where softwire packets have 1500 bytes at most."""
    frames = _each(lambda b: [_of_size(b, 1500)])
    return [Load("1500 bytes, which the shim fragments", 4, _DOWN, frames, 2)]


# --- packets --------------------------------------------------------------------------------------


def _each(make: Callable[[Binding], list[bytes]]) -> list[bytes]:
    return [frame for binding in SUBSCRIBERS for frame in make(binding)]


def _plain(binding: Binding, side: int) -> bytes:
    return (upstream if side == 6 else downstream)(binding, bytes(_BLOCK - 28))


def _port(binding: Binding, a_field: int = 1) -> int:
    """The first port of the binding with this A field."""
    return list(binding.params.port_ranges(binding.psid))[a_field - 1][0]


def _from_lwb4(binding: Binding, inner: Packet) -> bytes:
    outer = IPv6(src=str(binding.lwb4), dst=AFTR, nh=4)
    return bytes(Ether(dst=NIC6, src=WIRE6) / outer / inner)


def _from_internet(inner: Packet) -> bytes:
    return bytes(Ether(dst=NIC4, src=WIRE4) / inner)


def _in_fragments(binding: Binding, side: int, number: int, a_field: int = 1) -> list[bytes]:
    """An IPv4 packet in two."""
    own = _port(binding, a_field)
    source, destination = str(binding.ipv4), SERVER
    ports = UDP(sport=own, dport=9)
    if side == 4:
        source, destination = destination, source
        ports = UDP(sport=9, dport=own)
    ports.len, ports.chksum = 2 * _BLOCK, 0
    header = {"src": source, "dst": destination, "proto": 17, "id": number}
    first = IP(**header, flags="MF") / ports / Raw(bytes(_BLOCK - 8))
    later = IP(**header, frag=_BLOCK // 8) / Raw(bytes(_BLOCK))
    return [
        _from_lwb4(binding, piece) if side == 6 else _from_internet(piece)
        for piece in (first, later)
    ]


def _fragments(side: int, a_fields: int = 1) -> list[bytes]:
    numbers = range(1, a_fields + 1)
    return _each(lambda b: [p for n in numbers for p in _in_fragments(b, side, n, n)])


def _early(side: int) -> list[bytes]:
    """Second fragments before the first ones, each packet once: after that its ports are known."""
    pairs = [_in_fragments(binding, side, 0)[::-1] for binding in SUBSCRIBERS]
    return [
        _numbered(piece, 54 if side == 6 else 14, number)
        for number in range(PACED * MOST_SECONDS // 2)
        for piece in pairs[number % len(pairs)]
    ]


def _numbered(frame: bytes, at: int, number: int) -> bytes:
    """With another identification in the IPv4 header at ``at``. Scapy would take its time."""
    header = bytearray(frame[at : at + 20])
    header[4:6], header[10:12] = number.to_bytes(2, "big"), bytes(2)
    header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
    return frame[:at] + header + frame[at + 20 :]


def _in_ipv6_fragments(binding: Binding) -> list[bytes]:
    inner = bytes(
        IP(src=str(binding.ipv4), dst=SERVER)
        / UDP(sport=_port(binding), dport=9, chksum=0)
        / Raw(bytes(2 * _BLOCK - 28))
    )
    outer = Ether(dst=NIC6, src=WIRE6) / IPv6(src=str(binding.lwb4), dst=AFTR, nh=44)
    first = IPv6ExtHdrFragment(nh=4, m=1, id=7) / Raw(inner[:_BLOCK])
    last = IPv6ExtHdrFragment(nh=4, offset=_BLOCK // 8, id=7) / Raw(inner[_BLOCK:])
    return [bytes(outer / first), bytes(outer / last)]


def _to_neighbour(binding: Binding, other: Binding) -> bytes:
    ports = UDP(sport=_port(binding), dport=_port(other), chksum=0)
    inner = IP(src=str(binding.ipv4), dst=str(other.ipv4)) / ports / Raw(bytes(_BLOCK - 28))
    return _from_lwb4(binding, inner)


def _of_size(binding: Binding, size: int, flags: str = "") -> bytes:
    ports = UDP(sport=9, dport=_port(binding), chksum=0)
    header = IP(src=SERVER, dst=str(binding.ipv4), flags=flags)
    return _from_internet(header / ports / Raw(bytes(size - 28)))


def _echo() -> bytes:
    return _from_internet(IP(src=SERVER, dst="198.51.100.1") / ICMP(id=1) / Raw(bytes(36)))


def _expiring(binding: Binding) -> bytes:
    ports = UDP(sport=9, dport=_port(binding), chksum=0)
    return _from_internet(IP(src=SERVER, dst=str(binding.ipv4), ttl=1) / ports)


def _about(binding: Binding, message: Packet) -> bytes:
    """What a router says about a packet that went to the subscriber."""
    ports = UDP(sport=9, dport=_port(binding), chksum=0)
    sent = IPv6(src=AFTR, dst=str(binding.lwb4), nh=4) / IP(src=SERVER, dst=str(binding.ipv4))
    error = IPv6(src="2001:db8:77::1", dst=AFTR) / message / Raw(bytes(sent / ports))
    return bytes(Ether(dst=NIC6, src=WIRE6) / error)


def _learn_path_mtus(rig: Rig) -> None:
    with inside(rig.outside):
        out = wire("wire6")
    with contextlib.closing(out):
        for binding in SUBSCRIBERS:
            out.send(_about(binding, ICMPv6PacketTooBig(mtu=PATH_MTU)))
    wait_for(
        "all path MTUs are known",
        lambda: rig.controller.switch()["paths"]["paths"] == len(SUBSCRIBERS),
    )
