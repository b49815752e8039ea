"""What has happened: one line in the log for each event, the last ones for REST, and a way to wait
for the next."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Any

import eventlet.event
import eventlet.timeout

from ryu_lw4o6.core.times import rfc3339

LOG = logging.getLogger(__name__)

KEPT = 10_000


class Events:
    """Numbered from 1. What is older than the last ``KEPT`` is forgotten."""

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._last = 0
        self._next = eventlet.event.Event()

    @property
    def last(self) -> int:
        """The number of the newest event, 0 if there is none."""
        return self._last

    def add(self, kind: str, **details: Any) -> None:
        """Something has happened. Details that are None are left out; the others are shown as
        text, numbers and booleans as they are."""
        shown = {
            name: value if isinstance(value, bool | int | float) else str(value)
            for name, value in details.items()
            if value is not None
        }
        self._last += 1
        self._events.append({"id": self._last, "at": rfc3339(time.time()), "type": kind, **shown})
        if LOG.isEnabledFor(logging.INFO):
            LOG.info("%s %s", kind, " ".join(f"{k}={_quoted(v)}" for k, v in shown.items()))
        done, self._next = self._next, eventlet.event.Event()
        done.send(None)

    def since(self, after: int, limit: int) -> list[dict[str, Any]]:
        """The oldest events, at most ``limit``, with a number above ``after``."""
        skip = max(0, len(self._events) - (self._last - after))
        return [self._events[i] for i in range(skip, min(skip + limit, len(self._events)))]

    def wait(self, after: int, seconds: float) -> bool:
        """Wait until there is an event with a number above ``after``, for up to ``seconds``."""
        if self._last > after:
            return True
        with eventlet.timeout.Timeout(seconds, False):
            self._next.wait()
            return True
        return False


def _quoted(value: Any) -> str:
    text = str(value)
    return f'"{text}"' if " " in text else text
