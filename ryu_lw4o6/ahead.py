"""Makes the bindings of a whole prefix, once many of its subscribers are asked about at a time.

A lwAFTR has died then, and all of its subscribers are on their way. Asked about one by one, as
they come, each costs the controller twice as much; and the switch shows his packet and is handed
it back, which leaves little of it to those who are known.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

import eventlet.tpool
from ryu.lib import hub

from ryu_lw4o6.core.binding import Binding, BindingKey, BindingTable, Prefix, all_changed
from ryu_lw4o6.core.failover import foreseen
from ryu_lw4o6.core.settings import Instance
from ryu_lw4o6.supporting import SupportingSystem, SystemUnavailable

LOG = logging.getLogger(__name__)

SECONDS = 1.0
"""In which so many have to be asked about."""
AGAIN_SECONDS = 30.0
"""A prefix is not read more often."""
MOST_BEHIND = 4000
"""Bindings that the switches have yet to confirm: those who are waiting for theirs come behind."""
STALLED_SECONDS = 1.0
"""Without a part for so long, as many as usual get in: it may hang."""
WHILE_READING, ONCE_READ = 0.02, 5.0
"""How many new lwB4s get in, of ``unknown_rate``. Nobody has to come to be read of, and who comes
then costs the switch nothing but a datapath flow."""


class ReadAhead:
    """``many`` questions make it read, none if it is 0. ``follow`` makes bindings of the supporting
    system's without waiting; ``backlog`` is how many the switches have yet to confirm."""

    def __init__(
        self,
        system: SupportingSystem,
        many: int,
        table: BindingTable,
        instances: Sequence[Instance],
        follow: Callable[[Sequence[Binding], float], object],
        backlog: Callable[[], int],
    ) -> None:
        self._system = system
        self._many = many
        self._table = table
        self._instances = instances
        self._follow = follow
        self._backlog = backlog
        self._asked: Counter[Prefix] = Counter()
        self._asked_since = 0.0
        self._wanted: dict[Prefix, None] = {}
        self._wake = hub.Event()
        self._reading: dict[Prefix, None] = {}
        self._progress_at = 0.0
        self._read_at: dict[Prefix, float] = {}
        self._told: list[BindingKey] | None = []

    def accepted(self, keys: Iterable[BindingKey]) -> None:
        """These were asked about, and their bindings are made."""
        if not self._many:
            return
        now = time.monotonic()
        if now - self._asked_since > SECONDS:
            self._asked_since = now
            self._asked.clear()
        self._asked.update(self._table.prefix_of(key.ipv4) for key in keys)
        for prefix, count in self._asked.items():
            if count >= self._many and not (prefix in self._reading or self._lately(prefix, now)):
                self._wanted[prefix] = None
                self._wake.set()

    def changed(self, keys: Collection[BindingKey] | None) -> None:
        """The supporting system has told that these are no longer what they were; None stands for
        any of them."""
        self._told = all_changed(self._told, keys)

    @property
    def reading(self) -> list[str]:
        """The prefixes that are being read."""
        return [str(prefix.network) for prefix in self._reading]

    def crowd(self) -> float:
        """How many new lwB4s may come in, of ``unknown_rate``."""
        now = time.monotonic()
        if self._reading:
            return WHILE_READING if now - self._progress_at < STALLED_SECONDS else 1.0
        return ONCE_READ if any(self._lately(prefix, now) for prefix in self._read_at) else 1.0

    def run(self) -> None:
        """Read when many are asked about. For ever."""
        while True:
            self._wake.wait()
            self._wake.clear()
            self._reading, self._wanted = self._wanted, {}
            LOG.info("supporting system: many are asked about, so all is read of %s",
                     ", ".join(self.reading))  # fmt: skip
            try:
                for prefix in self._reading:
                    self.read(prefix)
            except SystemUnavailable as error:
                LOG.warning("supporting system: it cannot be read to its end: %s", error)
            self._read_at.update(dict.fromkeys(self._reading, time.monotonic()))
            self._reading = {}

    def read(self, prefix: Prefix | None = None) -> None:
        """Make the bindings that are known of a prefix, or of all. Raises SystemUnavailable."""
        started, made = time.monotonic(), 0
        pages = self._system.pages(None if prefix is None else prefix.network)
        while True:
            self._told = []
            self._progress_at = time.monotonic()
            page = eventlet.tpool.execute(next, pages, None)
            if page is None:
                break
            if self._told is not None:  # else any of these may be old already
                old = set(self._told)
                made += self.make(
                    binding
                    for binding in page
                    if (prefix is None or binding.ipv4 in prefix.network)
                    and (not old or binding.key not in old)
                )
            hub.sleep(0)
            while self._backlog() > MOST_BEHIND:
                self._progress_at = time.monotonic()
                hub.sleep(0.01)
        if made:
            LOG.info("supporting system: %d bindings made before they are needed, in %.1f s",
                     made, time.monotonic() - started)  # fmt: skip

    def make(self, known: Iterable[Binding]) -> int:
        """Make those of the supporting system's bindings that nobody has made yet; how many."""
        now = time.time()
        new = foreseen(known, self._table, self._instances, now)
        if new:
            self._follow(new, now)
        return len(new)

    def _lately(self, prefix: Prefix, now: float) -> bool:
        return now - self._read_at.get(prefix, -AGAIN_SECONDS) < AGAIN_SECONDS
