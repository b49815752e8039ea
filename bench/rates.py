"""How many packets the switch forwards when it gets more than it can take.

Counted is what arrives at the far end, by seconds of the clock, and by the seconds that
ovs-vswitchd had a processor: it keeps one busy, and on a machine with other work that is fairer.
The figures of one run compare with each other, and with those of no other machine.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.rig import Rig
from bench.traffic import flood
from tests.support.ovs import run, wait_for

SECONDS = 1.5
WARM_UP = 0.5


class Rate(NamedTuple):
    """Packets that arrive, per second of either kind."""

    clock: float
    processor: float


class Way(NamedTuple):
    """Through the switch: the wires by which frames go in and come out."""

    into: str
    out: str


def pin(rig: Rig) -> list[str]:
    """Give the switch the last processor; returns the command that keeps the generator off it."""
    *others, last = sorted(os.sched_getaffinity(0))
    run("taskset", "-acp", str(last), str(rig.ovs.switch_pid))
    return ["taskset", "-c", ",".join(map(str, others or [last]))]


def rate(
    rig: Rig, generator: Sequence[str], way: Way, frames: Sequence[bytes], *,
    per_second: int = 0, warm_up: float = WARM_UP, seconds: float = SECONDS,
    watch: Callable[[], None] = lambda: None,
) -> Rate:  # fmt: skip
    """What arrives while ``frames`` come in turn, as fast as it goes if ``per_second`` is 0.
    ``watch`` is called when it has been measured, with the packets still coming."""
    sent_before = sent(rig, way.into)
    process = flood(
        rig.outside, way.into, frames, warm_up + seconds + 2, per_second, prefix=generator
    )
    try:
        wait_for("the generator sends", lambda: sent(rig, way.into) > sent_before)
        time.sleep(warm_up)
        before, started = arrived(rig, way.out), processor_seconds(rig)
        began = time.monotonic()
        time.sleep(seconds)
        after, ended = arrived(rig, way.out), processor_seconds(rig)
        passed = time.monotonic() - began
        watch()
    finally:
        process.kill()
        process.wait()
    _drain(rig, way.out)
    return Rate((after - before) / passed, (after - before) / (ended - started))


def _drain(rig: Rig, wire: str) -> None:
    """Wait until the switch has worked off what it had received by then."""
    last = -1
    while (now := arrived(rig, wire)) != last:
        last = now
        time.sleep(0.05)


def processor_seconds(rig: Rig) -> float:
    """What ovs-vswitchd's main thread, which forwards packets, has used."""
    return int(Path(f"/proc/{rig.ovs.switch_pid}/schedstat").read_text().split()[0]) / 1e9


def arrived(rig: Rig, wire: str) -> int:
    """How many frames have come in by a wire of the outside."""
    return _statistics(rig, wire, "rx")


def sent(rig: Rig, wire: str) -> int:
    """How many frames have gone out by a wire of the outside."""
    return _statistics(rig, wire, "tx")


def _statistics(rig: Rig, wire: str, way: str) -> int:
    text = run("ip", "-n", rig.outside, "-j", "-s", "link", "show", "dev", wire).stdout
    return int(json.loads(text)[0]["stats64"][way]["packets"])
