"""From arrival times to figures. Plain arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence


def outage(arrivals: Sequence[float], since: float, until: float, end: float) -> float:
    """Seconds of the longest silence that begins between ``since`` and ``until``.

    ``arrivals`` are in order. A silence that goes on at the ``end`` of the measurement lasts until
    there. The one in which ``since`` lies counts from ``since`` on.
    """
    longest, last = 0.0, since
    for when in (*arrivals, end):
        if when <= since:
            continue
        if last >= until:
            break
        longest = max(longest, min(when, end) - last)
        last = when
    return longest


def shown(seconds: float) -> str:
    """For people."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that ``percent`` of all values do not exceed. ``values`` is not empty."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def rates(
    arrivals: Sequence[float], since: float, until: float, width: float
) -> tuple[list[float], list[int]]:
    """When each interval of ``width`` seconds begins, and how many arrivals it has."""
    count = math.ceil((until - since) / width)
    counts = [0] * count
    for when in arrivals:
        index = int((when - since) // width)
        if 0 <= index < count:
            counts[index] += 1
    return [since + index * width for index in range(count)], counts
