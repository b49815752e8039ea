"""A scenario: frames in by either side, frames out by either side, and what the counters say.

Everything is written down by hand from the RFCs. Frames come out exactly as expected, byte by
byte, and no others: after each scenario a packet that is known to pass is sent by both sides, and
whatever came out before it belongs to the scenario.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.support import evidence
from tests.support.rig import NIC4, NIC6, ROUTER4, ROUTER6, Rig, frames

AFTR, SECOND_AFTR = "2001:db8:ffff::1", "2001:db8:ffff::2"
LWB4 = {n: f"2001:db8:b4::{n}" for n in range(1, 10)}
INTERNET = "198.51.100.200"
SENTINEL = 0x5EA1


@dataclass(frozen=True)
class Scenario:
    """``send6`` are IPv6 packets from the access network, ``send4`` IPv4 packets from the
    Internet; ``out6`` and ``out4`` what is to come out, with their Ethernet headers implied.
    ``shim`` are the shim's counters of what it refused or changed."""

    name: str
    send6: Sequence[Packet] = ()
    send4: Sequence[Packet] = ()
    out6: Sequence[Packet] = ()
    out4: Sequence[Packet] = ()
    counters: dict[str, int] = field(default_factory=dict)
    shim: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def softwire(
    inner: Packet, lwb4: str = LWB4[1], aftr: str = AFTR, *, hlim: int = 63, **fields: int
) -> Packet:
    """An lwB4's packet (RFC 2473 section 3), as a router hands it over."""
    return IPv6(src=lwb4, dst=aftr, nh=4, hlim=hlim, **fields) / inner


def tunnelled(inner: Packet, lwb4: str = LWB4[1], aftr: str = AFTR, tc: int = 0) -> Packet:
    """What the lwAFTR sends to an lwB4."""
    return IPv6(src=aftr, dst=lwb4, nh=4, hlim=255, tc=tc) / inner


def forwarded(packet: Packet) -> Packet:
    """An IPv4 packet one hop further on: its TTL is one less, its checksum right."""
    packet = packet.copy()
    packet.ttl -= 1
    return packet


def upstream(**fields: object) -> Packet:
    """An IPv4 header from subscriber 1 to the Internet."""
    return IP(**{"src": "192.0.2.1", "dst": INTERNET, "ttl": 64, "id": 7} | fields)


def downstream(**fields: object) -> Packet:
    """An IPv4 header from the Internet to subscriber 1."""
    return IP(**{"src": INTERNET, "dst": "192.0.2.1", "ttl": 60, "id": 9} | fields)


UP = {"from_softwire": 1, "to_internet": 1}
DOWN = {"from_internet": 1, "to_softwire": 1}
HAIRPINNED = {"from_softwire": 1, "hairpinned": 1, "to_softwire": 1}


def goes_up(name: str, packet: Packet, lwb4: int = 1, aftr: str = AFTR, **outer: int) -> Scenario:
    return Scenario(
        f"up: {name}", send6=[softwire(packet, LWB4[lwb4], aftr, **outer)],
        out4=[forwarded(packet)], counters=UP,
    )  # fmt: skip


def goes_down(name: str, packet: Packet, lwb4: int = 1, aftr: str = AFTR, tc: int = 0) -> Scenario:
    return Scenario(
        f"down: {name}", send4=[packet],
        out6=[tunnelled(forwarded(packet), LWB4[lwb4], aftr, tc)], counters=DOWN,
    )  # fmt: skip


def is_dropped_up(name: str, packet: Packet, counter: str, lwb4: int = 1) -> Scenario:
    return Scenario(
        f"up, dropped: {name}", send6=[softwire(packet, LWB4[lwb4])],
        counters={"from_softwire": 1, counter: 1},
    )  # fmt: skip


def is_dropped_down(name: str, packet: Packet, counter: str) -> Scenario:
    return Scenario(
        f"down, dropped: {name}", send4=[packet], counters={"from_internet": 1, counter: 1}
    )


_PASSED = Counter(from_softwire=1, to_internet=1, from_internet=1, to_softwire=1)


def run(rig: Rig, scenario: Scenario) -> None:
    """Play a scenario, and fail with what differs."""
    before, shim_before = rig.all_counters(known=True)
    for packet in scenario.send6:
        rig.wire6.send(frame_of(packet, 6))
    for packet in scenario.send4:
        rig.wire4.send(frame_of(packet, 4))
    # What the controller answers comes later than what the switch forwards.
    early4 = frames(rig.wire4, len(scenario.out4))
    early6 = frames(rig.wire6, len(scenario.out6))
    got6, got4 = early6 + _rest(rig, 6), early4 + _rest(rig, 4)
    after, shim_after = rig.all_counters()
    changes = after - before - _PASSED
    if "drop_arp_ignored" not in scenario.counters:
        del changes["drop_arp_ignored"]  # routers ask for each other as they please
    # The switch keeps packets of one flow in order, not those of different flows.
    assert _shown(got6) == _shown([frame_of(p, 6, out=True) for p in scenario.out6])
    assert _shown(got4) == _shown([frame_of(p, 4, out=True) for p in scenario.out4])
    assert dict(changes) == scenario.counters
    assert dict(shim_after - shim_before) == scenario.shim
    evidence.moved([*scenario.counters, *scenario.shim])


def _rest(rig: Rig, side: int) -> list[bytes]:
    """What else comes out by a side before a packet that passes."""
    if side == 4:
        passing: Packet = upstream(id=SENTINEL) / UDP(sport=1072, dport=53)
        rig.wire6.send(frame_of(softwire(passing), 6))
        wire = rig.wire4
    else:
        passing = downstream(id=SENTINEL) / UDP(sport=53, dport=1072)
        rig.wire4.send(frame_of(passing, 4))
        wire = rig.wire6
    found: list[bytes] = []
    while True:
        (frame,) = frames(wire, 1) or [b""]
        assert frame, "the packet that passes did not come out"
        at = 14 if side == 4 else 54
        if frame[at + 4 : at + 6] == SENTINEL.to_bytes(2, "big"):
            return found
        found.append(frame)


def frame_of(packet: Packet, side: int, *, out: bool = False) -> bytes:
    """A packet in a frame on a side's wire: to the lwAFTR, or ``out`` of it to the router."""
    nic, router = (NIC6, ROUTER6) if side == 6 else (NIC4, ROUTER4)
    source, destination = (nic, router) if out else (router, nic)
    return bytes(Ether(src=source, dst=destination) / packet)


def _shown(found: list[bytes]) -> list[str]:
    """Frames so that a failed comparison can be read, sorted: Scapy's view, and the bytes."""
    return sorted(f"{Ether(f).command()} {Raw(f).load.hex(' ', 4)}" for f in found)
