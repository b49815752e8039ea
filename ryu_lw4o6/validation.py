"""Asks the supporting system, for everybody at once.

Questions about the same address and port set are one question to the supporting system, and what
is asked while it is busy goes there in one batch. It may be slow, hang or be gone: every question
is answered within the deadline, and the next one tries again.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice, takewhile
from typing import Any, NamedTuple

import eventlet.event
import eventlet.semaphore
import eventlet.timeout
import eventlet.tpool
from ryu.lib import hub

from ryu_lw4o6.ahead import ReadAhead
from ryu_lw4o6.core.binding import Binding, BindingKey, BindingTable, Origin, all_changed
from ryu_lw4o6.core.failover import Outcome, Question, decide
from ryu_lw4o6.core.settings import Instance
from ryu_lw4o6.core.settings import SupportingSystem as Settings
from ryu_lw4o6.core.times import rfc3339
from ryu_lw4o6.fatal import fatal
from ryu_lw4o6.supporting import SupportingSystem, SystemUnavailable

LOG = logging.getLogger(__name__)

BATCH = 1000
FIRST_BATCH = 100
"""Twice as many each time, as long as that is quick. Kea, which is asked key by key, would not
answer a whole batch within the deadline, and all of it would be asked again, for ever."""
AT_ONCE = 4
"""Calls under way; one that hangs keeps its place, and its thread, until it comes back."""
OVERTAKING_SECONDS = 0.25
"""How long a batch may keep the next one waiting, which grows meanwhile: the fewer there are, the
less each question costs. At most a quarter of the deadline."""
ANSWERS_PER_TURN = 200
"""After so many answers everybody else has a turn."""
MOST_QUESTIONS = 50_000
WATCH_SECONDS = 1.0
_EARLIEST = 0.75
"""Of ``recheck``."""

Answered = Callable[[Question, Outcome], None]
"""Is told what came of a question. Must not wait."""


class _Asker(NamedTuple):
    question: Question
    instance: Instance
    answered: Answered


class Validator:
    """``adopt`` puts bindings into the table and the switches, and returns the keys of those that
    do not fit; ``withdraw`` takes bindings out again. Neither waits. ``backlog`` is how many the
    switches have yet to confirm."""

    def __init__(
        self,
        system: SupportingSystem,
        settings: Settings,
        table: BindingTable,
        instances: Sequence[Instance],
        adopt: Callable[[Iterable[Binding]], Collection[BindingKey]],
        withdraw: Callable[[Iterable[BindingKey]], None],
        backlog: Callable[[], int],
    ) -> None:
        self._system = system
        self._settings = settings
        self._table = table
        self._adopt = adopt
        self._withdraw = withdraw
        self._own_store = settings.source is None
        self.ahead = ReadAhead(
            system, 0 if self._own_store or settings.warm else settings.read_ahead,
            table, instances, self._follow, backlog,
        )  # fmt: skip
        self._asked: dict[BindingKey, list[_Asker]] = {}
        self._queue: dict[BindingKey, float] = {}  # when each was asked, oldest first
        self._to_recheck: dict[BindingKey, None] = {}
        self._slots = eventlet.semaphore.Semaphore(AT_ONCE)
        self._wake = hub.Event()
        self._under_way = 0
        self._finished = hub.Event()
        self._overtaking = min(OVERTAKING_SECONDS, settings.deadline / 4)
        self._batch = min(FIRST_BATCH, BATCH)
        self._down_since: float | None = None
        self._last_error: str | None = None
        self._answered = False

    def ask(self, question: Question, instance: Instance, answered: Answered) -> None:
        """Have ``answered`` called with what comes of a question on ``instance``."""
        asker = _Asker(question, instance, answered)
        others = self._asked.get(question.key)
        if others is not None:
            others.append(asker)
        elif len(self._asked) >= MOST_QUESTIONS:
            answered(question, Outcome.OVERLOADED)
        else:
            self._asked[question.key] = [asker]
            if not self._queue:
                self._wake.set()
            self._queue[question.key] = time.monotonic()

    def recheck(self, keys: Iterable[BindingKey]) -> None:
        """Ask again about bindings that were made of an answer, and follow the new one."""
        self._to_recheck.update(dict.fromkeys(keys))
        if self._to_recheck:
            self._wake.set()

    def confirm(self, keys: Sequence[BindingKey]) -> None:
        """Make the bindings that the supporting system has for these keys, which a switch has flows
        of. Waits, for the deadline at most where there is no answer."""
        if self._own_store:
            return
        left = dict.fromkeys(keys)
        while left and self._slots.acquire(timeout=self._settings.deadline):
            found = self._call(_take(left, self._batch))
            if found is None:
                break
            self.ahead.make(found.values())
        LOG.info("supporting system: it knows %d of %d bindings that only a switch had",
                 sum(key in self._table for key in keys), len(keys))  # fmt: skip

    def run(self) -> None:
        """Work for ever."""
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._queue or self._to_recheck:
                if self._under_way:
                    self._finished.wait(self._overtaking)
                free = self._slots.acquire(timeout=self._patience())
                self._give_up_late()
                if not free:  # every thread hangs
                    self._recheck_later(list(self._to_recheck))
                    self._to_recheck.clear()
                elif self._queue:
                    self._start(self._find, _take(self._queue, self._batch))
                elif self._to_recheck:
                    self._start(self._check_again, _take(self._to_recheck, self._batch))
                else:
                    self._slots.release()

    def watch(self) -> None:
        """Ask again about what the supporting system says has changed, and make bindings of what
        is new there, if it is to be so. For ever."""
        told: list[BindingKey] | None = []  # and not followed yet: nobody tells of it twice
        while True:
            try:
                keys = eventlet.tpool.execute(self._system.wait_for_changes, WATCH_SECONDS)
                told = all_changed(told, keys)
                self.ahead.changed(keys)
                if self._settings.warm and told != []:
                    self._foresee(told)
            except SystemUnavailable as error:
                self._is_down(error)
                hub.sleep(WATCH_SECONDS)
                continue
            self._is_up()
            keys, told = told, []
            if keys is None:
                keys = [binding.key for binding in self._table]
            self.recheck([key for key in keys if self._is_validated(key)])

    def _foresee(self, told: Collection[BindingKey] | None) -> None:
        """Make bindings of what has changed. Raises SystemUnavailable."""
        if told is None:
            self.ahead.read()
            return
        known = list(eventlet.tpool.execute(self._system.changed, told))
        for at in range(0, len(known), BATCH):
            self.ahead.make(known[at : at + BATCH])
            hub.sleep(0)

    def status(self) -> dict[str, Any]:
        """The supporting system's state, ready for JSON."""
        state = "available" if self._answered else "unknown"
        return {
            "state": state if self._down_since is None else "unavailable",
            "since": None if self._down_since is None else rfc3339(self._down_since),
            "last_error": self._last_error,
            "waiting": len(self._asked),
            "reading": self.ahead.reading,
        }

    def _patience(self) -> float:
        """Seconds until somebody has waited for long enough."""
        if not self._queue:
            return self._settings.deadline
        waited = time.monotonic() - next(iter(self._queue.values()))
        return max(0.0, self._settings.deadline - waited)

    def _give_up_late(self) -> None:
        """Answer those who have waited for the deadline: the supporting system is not as quick as
        questions come, or hangs."""
        late = time.monotonic() - self._settings.deadline
        keys = list(takewhile(lambda key: self._queue[key] <= late, self._queue))
        for key in keys:
            del self._queue[key]
        _answer_all([self._asked.pop(key) for key in keys], Outcome.UNAVAILABLE)

    def _recheck_later(self, keys: Sequence[BindingKey]) -> None:
        """There was no answer, and what has changed is not told of twice."""

        def again() -> None:
            self.recheck(key for key in keys if self._is_validated(key))

        if keys:
            hub.spawn_after(WATCH_SECONDS, again)

    def _start(self, work: Callable[..., None], keys: Sequence[BindingKey]) -> None:
        def run() -> None:
            work(keys)
            self._under_way -= 1
            self._finished.set()

        self._under_way += 1
        self._finished.clear()
        hub.spawn(fatal(run))

    def _find(self, keys: Sequence[BindingKey]) -> None:
        found = self._call(keys)
        # Who asks from here on asks anew: the answer is about to be acted upon.
        asked = {key: self._asked.pop(key) for key in keys}
        if found is None:
            _answer_all(asked.values(), Outcome.UNAVAILABLE)
            return
        now = time.time()
        outcomes = {
            key: [decide(a.question, found.get(key), a.instance, now) for a in askers]
            for key, askers in asked.items()
        }
        adopted = [found[key] for key in keys if Outcome.ACCEPTED in outcomes[key]]
        misfits = self._follow(adopted, now)
        self.ahead.accepted(b.key for b in adopted if b.key not in misfits)
        for number, (key, askers) in enumerate(asked.items(), 1):
            for asker, outcome in zip(askers, outcomes[key], strict=True):
                if outcome is Outcome.ACCEPTED and key in misfits:
                    outcome = Outcome.NOT_SERVED
                asker.answered(asker.question, outcome)
            if number % ANSWERS_PER_TURN == 0:
                hub.sleep(0)

    def _check_again(self, keys: Sequence[BindingKey]) -> None:
        found = self._call(keys)
        if found is None:
            self._recheck_later(keys)  # they stay meanwhile, until they expire
            return
        now = time.time()
        good = {
            key: binding
            for key, binding in found.items()
            if binding.expires_at is None or binding.expires_at > now
        }
        self._follow([b for key, b in good.items() if key in self._table], now)
        gone = [key for key in keys if key not in good and self._is_validated(key)]
        if gone:
            self._withdraw(gone)

    def _follow(self, bindings: Iterable[Binding], now: float) -> Collection[BindingKey]:
        """Make bindings of the supporting system's; the keys of those that do not fit.

        One that names no end is asked about again after a while, and those that come in one storm
        not all at the same time.
        """
        if self._own_store:
            return self._adopt(bindings)
        end = now + self._settings.recheck * random.uniform(_EARLIEST, 1.0)
        return self._adopt(
            b.validated(end if b.expires_at is None else b.expires_at) for b in bindings
        )

    def _is_validated(self, key: BindingKey) -> bool:
        binding = self._table.get(key)
        return binding is not None and binding.origin is Origin.VALIDATED

    def _call(self, keys: Sequence[BindingKey]) -> dict[BindingKey, Binding] | None:
        """The supporting system's answer, None if there is none within the deadline.

        Gives the slot that the caller holds back when the call ends, however late that is.
        """
        done = eventlet.event.Event()

        def work() -> None:
            try:
                done.send(eventlet.tpool.execute(self._system.find, keys))
            except SystemUnavailable as error:
                done.send(error)
            finally:
                self._slots.release()

        hub.spawn(fatal(work))
        started, deadline = time.monotonic(), self._settings.deadline
        result: Any = SystemUnavailable(
            f"no answer within {deadline:g} s", "See what keeps it, or raise deadline"
        )
        with eventlet.timeout.Timeout(deadline, False):
            result = done.wait()
        self._learn(len(keys), time.monotonic() - started)
        if isinstance(result, SystemUnavailable):
            self._is_down(result)
            return None
        self._is_up()
        found: dict[BindingKey, Binding] = result
        return found

    def _learn(self, keys: int, seconds: float) -> None:
        """So many keys took so long. One that is only far away takes as long for fewer."""
        if seconds >= self._settings.deadline:
            self._batch = max(1, keys // 4)
        elif seconds <= self._overtaking and keys == self._batch:
            self._batch = min(2 * keys, BATCH)

    def _is_down(self, error: SystemUnavailable) -> None:
        self._last_error = str(error)
        if self._down_since is None:
            self._down_since = time.time()
            LOG.error("supporting system: %s", error)

    def _is_up(self) -> None:
        self._answered = True
        if self._down_since is not None:
            LOG.info("supporting system: answers again")
            self._down_since = None


def _answer_all(asked: Iterable[Iterable[_Asker]], outcome: Outcome) -> None:
    for number, askers in enumerate(asked, 1):
        for asker in askers:
            asker.answered(asker.question, outcome)
        if number % ANSWERS_PER_TURN == 0:
            hub.sleep(0)


def _take(queue: dict[BindingKey, Any], most: int) -> list[BindingKey]:
    """Remove and return the first batch of a queue."""
    keys = list(islice(queue, most))
    for key in keys:
        del queue[key]
    return keys
