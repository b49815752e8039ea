"""Packets that a switch shows faster than they can be looked at.

The receive loop puts them here and reads on, so that what the switch answers, a barrier for
instance, does not wait behind a storm of packets. What does not fit is dropped and counted: its
sender will send another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from ryu.lib import hub

from ryu_lw4o6.fatal import fatal

PER_TURN = 100
"""After so many everybody else has a turn."""


class Backlog:
    """Calls ``look`` with the arguments of every ``add``, in order, at most ``most`` behind."""

    def __init__(self, look: Callable[..., None], most: int) -> None:
        self.dropped = 0
        self._look = look
        self._most = most
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._working = False

    def add(self, *what: Any) -> None:
        """Does not wait."""
        if len(self._waiting) >= self._most:
            self.dropped += 1
            return
        self._waiting.append(what)
        if not self._working:
            self._working = True
            hub.spawn(fatal(self._work))

    def _work(self) -> None:
        while self._waiting:
            for _ in range(min(PER_TURN, len(self._waiting))):
                self._look(*self._waiting.popleft())
            hub.sleep(0)
        self._working = False
