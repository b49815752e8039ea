"""A hundred thousand lwB4s that the lwAFTR does not know, all at once, beside subscribers it knows.

After a failover that is what the backup sees. Every source is to be answered by ICMPv6, or, with
the data-packet trigger, to be validated and to get its bindings, its first packet going on to the
Internet; and those who have their bindings are to notice nothing.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6

from bench.alone import switch_alone
from bench.rig import CONFIG, Result, Rig, Row, bindings, lwaftr
from bench.traffic import Collected, Collector, Known, flood, from_each, sample, sent
from ryu_lw4o6.core.binding import Binding
from ryu_lw4o6.store import Store
from tests.support.ovs import wait_for

SOURCES = 100_000
KNOWN = 1000
ROUNDS = 2
LINE_RATE = 0
PACES = (15_000, 50_000, LINE_RATE)
"""Packets per second for the ICMPv6 trigger: one that two processors have no trouble with, one
beyond what is to be answered, and as many as can be sent."""

ANSWERS_TARGET = 40_000
RESTORE_PACE = 20_000
RESTORE_TARGET = 15_000
_FIRST = 64_000  # far from those who are known
_TAG = b"unknown lwB4"
_SETTLING = 3.0
_LEAST_SECONDS = 10.0
_LONGEST_SECONDS = 30.0
_MORE_ROUNDS = 3
_MOST_SECONDS = _LONGEST_SECONDS + _MORE_ROUNDS * SOURCES / RESTORE_PACE


def measure() -> Result:
    rows: list[Row] = []
    figures: dict[str, Any] = {}
    subscribers = bindings(SOURCES, _FIRST)
    with lwaftr(KNOWN, CONFIG + "    failover: icmpv6\n") as rig:
        rig.controller.start()
        rig.wait_ready()
        for pace in PACES:
            more, found = _answered(rig, from_each(sample(_TAG), subscribers), pace)
            rows += more
            figures[f"icmpv6 at {pace or 'line rate'}"] = found
    system = "supporting_system: {{store: 'sqlite:///{directory}/system.sqlite'}}\n"
    with lwaftr(KNOWN, system + CONFIG + "    failover: data-packet\n") as rig:
        store = Store(f"sqlite:///{rig.ovs.directory}/system.sqlite")
        store.save(subscribers, [])
        store.close()
        rig.controller.start()
        rig.wait_ready()
        mixed = random.Random(0).sample(subscribers, SOURCES)  # nobody comes in anybody's order
        frames = [f for n in range(ROUNDS) for f in from_each(sample(_TAG), mixed, n * SOURCES)]
        more, figures["data-packet"] = _restored(rig, frames)
    rows += more
    # The same once more, with nobody to think about it.
    with lwaftr(KNOWN, CONFIG + "    failover: data-packet\n") as rig:
        rig.controller.start()
        rig.wait_ready()
        alone = _alone(rig, frames, subscribers)
    rate = figures["data-packet"]["restored_per_second"]
    rows += [
        Row("Open vSwitch alone: subscribers restored/s", f"{alone:,.0f}"),
        Row("data packet: ratio to Open vSwitch alone", f"{rate / alone:.2f}"),
    ]
    figures["alone"] = {"pace": RESTORE_PACE, "restored_per_second": alone}
    return Result(rows, figures)


def _answered(rig: Rig, frames: Sequence[bytes], pace: int) -> tuple[list[Row], dict[str, Any]]:
    seconds = max(ROUNDS * SOURCES / (pace or ANSWERS_TARGET), _LEAST_SECONDS)
    # Type 1 code 5; the last four bytes of the destination say which lwB4 it is.
    collector = Collector(rig.outside, "wire6", 54, b"\1\5", 50, _FIRST + SOURCES, every=997)
    with Known(rig, seconds + 1) as known:
        sending = flood(rig.outside, "wire6", frames, seconds, pace)
        offered = sent(sending)
        time.sleep(_SETTLING)
    found = collector.stop()
    wrong = sum(not _is_right(answer, frames) for answer in found.samples)
    rate = sum(found.count) / seconds
    beyond = pace == LINE_RATE or pace > ANSWERS_TARGET
    at = f"ICMPv6 at {pace:,}/s:" if pace else "ICMPv6 at line rate:"
    rows = [
        Row(f"{at} answers/s", f"{rate:,.0f}", f">= {ANSWERS_TARGET:,}", rate >= ANSWERS_TARGET)
        if beyond
        else Row(f"{at} answers/s", f"{rate:,.0f}"),
        Row(f"{at} lwB4s without an answer", f"{SOURCES - found.keys:,} of {SOURCES:,}", "0",
            found.keys == SOURCES),
        Row(f"{at} wrong answers in a sample", f"{wrong} of {len(found.samples)}", "0", not wrong),
        Row(f"{at} known subscribers' packets lost", f"{known.loss.lost:,} of {known.loss.sent:,}",
            "0", known.loss.lost == 0),
    ]  # fmt: skip
    return rows, {
        "offered": offered, "pace": pace, "answers_per_second": rate, "answered": found.keys,
        "missed_by_collector": found.missed, "known": asdict(known.loss),
    }  # fmt: skip


def _restored(rig: Rig, frames: Sequence[bytes]) -> tuple[list[Row], dict[str, Any]]:
    at = 14 + 20 + 8
    collector = Collector(rig.outside, "wire4", at, _TAG, at + len(_TAG), len(frames))
    with Known(rig, _MOST_SECONDS) as known:
        started = time.monotonic()
        storm = flood(rig.outside, "wire6", frames, _MOST_SECONDS, RESTORE_PACE)
        with contextlib.suppress(AssertionError):
            wait_for("every binding is confirmed", lambda: _confirmed(rig), _LONGEST_SECONDS)
        confirmed_after = time.monotonic() - started
        # As subscribers do, who send until they are through: once more each, and some again.
        time.sleep(_MORE_ROUNDS * SOURCES / RESTORE_PACE)
        storm.terminate()
        storm.wait()
    found = collector.stop()
    count, first = _by_source(found)
    seconds = max(first, default=started) - started
    rate = count / seconds if seconds else 0.0
    validation = rig.controller.rest("GET", "/v1/failover/lwaftr1")[1]["validation"]
    switch = rig.controller.switch()
    confirmed = switch["bindings"] - switch["backlog"] - KNOWN
    flows = confirmed / confirmed_after
    rows = [
        Row("data packet: subscribers restored/s, flows confirmed", f"{flows:,.0f}",
            f">= {RESTORE_TARGET:,}", flows >= RESTORE_TARGET),
        Row("data packet: subscribers restored/s, a packet through", f"{rate:,.0f}",
            f">= {RESTORE_TARGET:,}", rate >= RESTORE_TARGET),
        Row("data packet: subscribers not restored", f"{SOURCES - count:,} of {SOURCES:,}", "0",
            count == SOURCES),
        Row("data packet: known subscribers' packets lost",
            f"{known.loss.lost:,} of {known.loss.sent:,}", "0", known.loss.lost == 0),
    ]  # fmt: skip
    return rows, {
        "pace": RESTORE_PACE, "restored_per_second": rate, "restored": count,
        "confirmed_per_second": flows,
        "validation": validation, "known": asdict(known.loss),
    }  # fmt: skip


def _alone(rig: Rig, frames: Sequence[bytes], subscribers: Sequence[Binding]) -> float:
    """How many subscribers a second the switch gets restored by a controller without a thought."""
    at = 14 + 20 + 8
    collector = Collector(rig.outside, "wire4", at, _TAG, at + len(_TAG), len(frames))
    with switch_alone(rig, subscribers, frames[0], _MOST_SECONDS) as reflex:
        started = time.monotonic()
        storm = flood(rig.outside, "wire6", frames, _MOST_SECONDS, RESTORE_PACE)
        reflex.wait()
        storm.terminate()
        storm.wait()
    count, first = _by_source(collector.stop())
    return count / (max(first) - started)


def _confirmed(rig: Rig) -> bool:
    switch = rig.controller.switch()
    found = switch["state"] == "ready" and not switch["backlog"] and switch["bindings"]
    return bool(found >= KNOWN + SOURCES)


def _by_source(found: Collected) -> tuple[int, list[float]]:
    """How many sources were seen, in whatever round, and when each was first."""
    first = [
        min(times) for n in range(SOURCES)
        if (times := [t for t in found.first[n::SOURCES] if t])
    ]  # fmt: skip
    return len(first), first


def _is_right(answer: bytes, frames: Sequence[bytes]) -> bool:
    """Whether an ICMPv6 error quotes what was sent, and its checksum is right."""
    number = int.from_bytes(answer[50:54], "big") - _FIRST
    packet = IPv6(answer[14:])
    given = packet[ICMPv6DestUnreach].cksum
    del packet[ICMPv6DestUnreach].cksum
    right = IPv6(bytes(packet))[ICMPv6DestUnreach].cksum
    return bool(given == right and answer[14 + 40 + 8 :] == frames[number][14:])
