"""Packets per second through the lwAFTR, against the same Open vSwitch that only forwards.

A second bridge of the same ovs-vswitchd, between veths like the lwAFTR's, has a single flow from
port to port. Both get the same frames, in turns, faster than they can take them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from bench.rates import Rate, Way, pin, rate
from bench.rig import (
    Result,
    Rig,
    Row,
    bindings,
    discard,
    downstream,
    link,
    lwaftr,
    upstream,
)
from ryu_lw4o6 import vswitchd
from ryu_lw4o6.core.binding import Binding
from tests.support.netns import inside

SUBSCRIBERS = 256
FLOWS_EACH = 2
SIZES = (64, 1400)
"""Bytes of the IPv4 packet."""

ROUNDS = 7
_HEADERS = 28  # IPv4 and UDP


@dataclass(frozen=True)
class Direction:
    name: str
    target: float
    frame: Callable[[Binding, bytes, int], bytes]
    lwaftr: Way
    plain: Way


DIRECTIONS = (
    Direction("decapsulation", 0.8, upstream, Way("wire6", "wire4"), Way("far1", "far2")),
    Direction("encapsulation", 0.7, downstream, Way("wire4", "wire6"), Way("far2", "far1")),
)


def measure() -> Result:
    rows, figures = [], []
    with lwaftr(SUBSCRIBERS) as rig:
        _add_plain_bridge(rig)
        rig.controller.start()
        rig.wait_ready()
        generator = pin(rig)
        for size in SIZES:
            for direction in DIRECTIONS:
                rates = _compare(rig, generator, direction, size)
                what = f"{direction.name}, {size} bytes"
                rows.append(_row(f"{what}: packets/s", direction, rates, "clock"))
                rows.append(_row(f"{what}: per processor-second", direction, rates, "processor"))
                figures.append({
                    "direction": direction.name, "bytes": size,
                    **{name: [one._asdict() for one in found] for name, found in rates.items()},
                })  # fmt: skip
    return Result(rows, {"packets_per_second": figures})


def _row(what: str, direction: Direction, rates: dict[str, list[Rate]], by: str) -> Row:
    ours, plain = (median(getattr(found, by) for found in rates[n]) for n in ("lwaftr", "plain"))
    ratio = ours / plain
    seen = f"{ratio:.2f} ({ours / 1e3:.0f}k of {plain / 1e3:.0f}k)"
    return Row(what, seen, f">= {direction.target}", ratio >= direction.target)


def _add_plain_bridge(rig: Rig) -> None:
    """Bridge ``plain``: near1 to near2 and back, whatever comes."""
    ovs = rig.ovs
    for number in (1, 2):
        near, far = f"near{number}", f"far{number}"
        link(ovs, near, f"02:00:00:00:0{number}:01", rig.outside, far, f"02:00:00:00:0{number}:fe")
    ovs(
        "ovs-vsctl", "add-br", "plain", "--", "set", "bridge", "plain", "datapath_type=netdev",
        "fail_mode=secure", "--", "add-port", "plain", "near1", "--", "add-port", "plain", "near2",
    )  # fmt: skip
    ovs("ovs-ofctl", "add-flow", "plain", "in_port=near1,actions=output:near2")
    ovs("ovs-ofctl", "add-flow", "plain", "in_port=near2,actions=output:near1")
    with inside(ovs.name):
        vswitchd.prepare(["near1", "near2"])
    discard(rig.outside, "far1", "far2")


def _frames(direction: Direction, size: int) -> list[bytes]:
    """Every subscriber's."""
    return [
        direction.frame(binding, bytes(size - _HEADERS), flow)
        for flow in range(FLOWS_EACH)
        for binding in bindings(SUBSCRIBERS)
    ]


def _compare(
    rig: Rig, generator: list[str], direction: Direction, size: int
) -> dict[str, list[Rate]]:
    frames = _frames(direction, size)
    ways = {"lwaftr": direction.lwaftr, "plain": direction.plain}
    rates: dict[str, list[Rate]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            rates[name].append(rate(rig, generator, way, frames))
    return rates
