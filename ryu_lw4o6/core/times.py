"""Times for people and programs."""

from __future__ import annotations

import functools
import math
from datetime import UTC, datetime

_END_OF_TIME = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


def rfc3339(seconds: float, timespec: str = "milliseconds") -> str:
    """Unix time as text in UTC (RFC 3339), such as 2026-11-24T05:00:00.123Z."""
    if timespec == "seconds":
        return _whole_seconds(int(seconds))
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec=timespec)
    return text.replace("+00:00", "Z")


@functools.lru_cache(maxsize=64)
def _whole_seconds(seconds: int) -> str:
    """What is made in bulk ends in the same few seconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def unix_time(text: str) -> float:
    """RFC 3339's date and time as Unix time. Raises ValueError, also for one without a zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return moment.timestamp()


def end_of(seconds: float) -> float | None:
    """The end of a lifetime by what others say, who may say anything: what is beyond every
    calendar, as PostgreSQL's infinity, is no end. Raises ValueError."""
    if math.isnan(seconds):
        raise ValueError("the end of a lifetime is not a number")
    return seconds if seconds < _END_OF_TIME else None
