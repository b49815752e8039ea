"""What has happened: one line in the log for each event, the last ones for REST, and a way to wait
for the next."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import Any, NamedTuple

import eventlet.event
import eventlet.timeout

from ryu_lw4o6.core.addresses import text_of
from ryu_lw4o6.core.times import rfc3339

LOG = logging.getLogger(__name__)

_AS_THEY_ARE = (bool, int, float)
"""Kinds of details that are shown so. The key of a binding is a number, too, but shown as text."""
KEPT = 10_000
KINDS = (
    "binding-created", "binding-deleted", "binding-expired", "binding-refused",
    "switch-connected", "switch-disconnected",
    "routes-announced", "routes-withdrawn", "drained", "undrained",
)  # fmt: skip


class Events:
    """Numbered from 1. What is older than the last ``KEPT`` is forgotten."""

    def __init__(self) -> None:
        self._events: deque[_Event] = deque(maxlen=KEPT)
        self._last = 0
        self._next = eventlet.event.Event()

    @property
    def last(self) -> int:
        """The number of the newest event, 0 if there is none."""
        return self._last

    def add(self, kind: str, **details: Any) -> None:
        """Something has happened. Details that are None are left out; the others are shown as
        text, numbers and booleans as they are. They must not change afterwards."""
        self.add_all(kind, [details])

    def add_all(self, kind: str, happened: Iterable[dict[str, Any]]) -> None:
        """The same has happened many times, with the details of each: after a failover that is
        tens of thousands in a second, so the log is written to once, and what REST shows of them
        is made when somebody asks."""
        now = time.time()
        lines = []
        logged = LOG.isEnabledFor(logging.INFO)
        for details in happened:
            self._last += 1
            self._events.append(_Event(self._last, now, kind, details))
            if logged:
                lines.append(_line(kind, details))
        if lines:
            LOG.info("\n".join(lines))
        done, self._next = self._next, eventlet.event.Event()
        done.send(None)

    def since(self, after: int, limit: int) -> list[dict[str, Any]]:
        """The oldest events, at most ``limit``, with a number above ``after``."""
        skip = max(0, len(self._events) - (self._last - after))
        end = min(skip + limit, len(self._events))
        return [self._events[i].shown() for i in range(skip, end)]

    def wait(self, after: int, seconds: float) -> bool:
        """Wait until there is an event with a number above ``after``, for up to ``seconds``."""
        if self._last > after:
            return True
        with eventlet.timeout.Timeout(seconds, False):
            self._next.wait()
            return True
        return False


class _Event(NamedTuple):
    number: int
    at: float
    kind: str
    details: dict[str, Any]

    def shown(self) -> dict[str, Any]:
        details = {
            name: value if type(value) in _AS_THEY_ARE else str(value)
            for name, value in self.details.items()
            if value is not None
        }
        return {"id": self.number, "at": rfc3339(self.at), "type": self.kind, **details}


def _line(kind: str, details: dict[str, Any]) -> str:
    words = [kind]
    for name, value in details.items():
        if value is not None:
            text = text_of(value) if isinstance(value, IPv6Address) else str(value)
            words.append(f'{name}="{text}"' if " " in text else f"{name}={text}")
    return " ".join(words)
