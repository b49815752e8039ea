"""Packets per second through the lwAFTR, against the same Open vSwitch that only forwards.

A second bridge of the same ovs-vswitchd, between veths like the lwAFTR's, has a single flow from
port to port. Both get the same frames, in turns, faster than they can take them; counted is what
arrives at the far end, by seconds of the clock, and by the seconds that ovs-vswitchd had a
processor: it keeps one busy, and on a machine with other work that is fairer. The figures of one
run compare with each other, and with those of no other machine.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

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
from bench.traffic import flood
from ryu_lw4o6 import receive_buffers
from ryu_lw4o6.core.binding import Binding
from tests.support.netns import inside
from tests.support.ovs import run

SUBSCRIBERS = 256
FLOWS_EACH = 2
SIZES = (64, 1400)
"""Bytes of the IPv4 packet."""

ROUNDS = 7
SECONDS = 1.5
WARM_UP = 0.5
_HEADERS = 28  # IPv4 and UDP


class Rate(NamedTuple):
    """Packets that arrive, per second of either kind."""

    clock: float
    processor: float


@dataclass(frozen=True)
class Way:
    """Through the switch: the wires by which frames go in and come out."""

    into: str
    out: str


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
        generator = _pin(rig)
        for size in SIZES:
            for direction in DIRECTIONS:
                rates = _compare(rig, generator, direction, size)
                what = f"{direction.name}, {size} bytes"
                rows.append(_row(f"{what}: packets/s", direction, rates, "clock"))
                rows.append(_row(f"{what}: per processor-second", direction, rates, "processor"))
                figures.append({
                    "direction": direction.name, "bytes": size,
                    **{name: [rate._asdict() for rate in found] for name, found in rates.items()},
                })  # fmt: skip
    return Result(rows, {"packets_per_second": figures})


def _row(what: str, direction: Direction, rates: dict[str, list[Rate]], by: str) -> Row:
    ours, plain = (median(getattr(rate, by) for rate in rates[n]) for n in ("lwaftr", "plain"))
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
        receive_buffers.enlarge(["near1", "near2"])
    discard(rig.outside, "far1", "far2")


def _pin(rig: Rig) -> list[str]:
    """Give the switch the last processor; returns the command that keeps the generator off it."""
    *others, last = sorted(os.sched_getaffinity(0))
    run("taskset", "-acp", str(last), str(rig.ovs.switch_pid))
    return ["taskset", "-c", ",".join(map(str, others or [last]))]


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
            rates[name].append(_rate(rig, generator, way, frames))
    return rates


def _rate(rig: Rig, generator: list[str], way: Way, frames: list[bytes]) -> Rate:
    """What arrives while the switch gets more than it can take."""
    seconds = WARM_UP + SECONDS + 0.5
    process = flood(rig.outside, way.into, frames, seconds, prefix=generator)
    try:
        time.sleep(WARM_UP)
        before, started = _arrived(rig, way.out), _processor_seconds(rig)
        began = time.monotonic()
        time.sleep(SECONDS)
        after, ended = _arrived(rig, way.out), _processor_seconds(rig)
        passed = time.monotonic() - began
    finally:
        process.kill()
        process.wait()
    return Rate((after - before) / passed, (after - before) / (ended - started))


def _processor_seconds(rig: Rig) -> float:
    """What ovs-vswitchd's main thread, which forwards packets, has used."""
    return int(Path(f"/proc/{rig.ovs.switch_pid}/schedstat").read_text().split()[0]) / 1e9


def _arrived(rig: Rig, wire: str) -> int:
    text = run("ip", "-n", rig.outside, "-j", "-s", "link", "show", "dev", wire).stdout
    return int(json.loads(text)[0]["stats64"]["rx"]["packets"])
