"""Bindings that the supporting system has told of: followed at once, and stored behind.

It would say the same again, so nobody has to wait until the store has it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from ryu.lib import hub

from ryu_lw4o6.core.binding import Binding, BindingKey, Origin, is_static
from ryu_lw4o6.ledger import AGAIN_SECONDS, Ledger, Outage, in_store
from ryu_lw4o6.store import StoreError, StoreUnavailable
from ryu_lw4o6.threads import threading

LOG = logging.getLogger(__name__)

KEPT_AT_ONCE = 1000
WAY_SECONDS = 1.0
"""How long so many wait at most while the switches have something to do."""


@dataclass(eq=False, slots=True)
class _Unsaved:
    """What the supporting system has said of a key and is not stored yet: a binding, or none.
    ``before`` is what the table had before."""

    binding: Binding | None
    before: Binding | None


class Adoption:
    """With ``own_answers``, what the supporting system says comes out of our store itself.
    ``busy`` is whether the switches have something to do."""

    def __init__(self, ledger: Ledger, busy: Callable[[], object], *, own_answers: bool) -> None:
        self._ledger = ledger
        self._busy = busy
        self._own_answers = own_answers
        self._to_keep: dict[BindingKey, _Unsaved] = {}
        self._wake_keeper = hub.Event()

    def adopt(self, bindings: Iterable[Binding]) -> set[BindingKey]:
        """Put these bindings into the place of whatever has their keys, static bindings excepted,
        and store them later. Does not wait.

        Returns the keys of those that do not fit the configuration.
        """
        table = self._ledger.table
        misfits: set[BindingKey] = set()
        new: dict[BindingKey, Binding] = {}
        for binding in bindings:
            key = binding.key
            old = table.get(key)
            if old == binding or is_static(old):
                continue
            try:
                table.replace(binding)
            except ValueError as error:
                LOG.error("a binding of the supporting system cannot be made: %s", error)
                misfits.add(key)
                continue
            self._keep_later(key, binding, old)
            if not binding.same_softwire(old):
                new[key] = binding
        self._ledger.touch(new)
        self._ledger.created(new.values())
        return misfits

    def withdraw(self, keys: Iterable[BindingKey]) -> None:
        """Remove these bindings, which the supporting system no longer has, and delete them from
        the store later. Does not wait."""
        table = self._ledger.table
        gone = []
        for key in keys:
            old = table.get(key)
            if old is not None and old.origin is Origin.VALIDATED:
                table.remove(key)
                self._keep_later(key, None, old)
                gone.append(old)
        self._ledger.touch([binding.key for binding in gone])
        self._ledger.deleted(gone, "supporting system")

    def awaits(self, key: BindingKey, stored: Binding | None) -> bool:
        """Whether the store, which has ``stored`` for a key, has yet to be told what the table
        says. Not if somebody else has stored a binding since, which is newer."""
        unsaved = self._to_keep.get(key)
        return (
            unsaved is not None
            and unsaved.binding == self._ledger.table.get(key)
            and (stored in (None, unsaved.before) or stored.origin is Origin.VALIDATED)
        )

    def _keep_later(self, key: BindingKey, binding: Binding | None, before: Binding | None) -> None:
        if self._own_answers:
            return
        waiting = self._to_keep.get(key)
        if waiting is not None and waiting.binding == before:
            before = waiting.before
        if not self._to_keep:
            self._wake_keeper.set()
        self._to_keep[key] = _Unsaved(binding, before)

    def keep(self) -> None:
        """Store what was adopted or withdrawn. For ever."""
        outage = Outage("validated bindings wait")
        while True:
            self._wake_keeper.wait()
            self._wake_keeper.clear()
            while self._to_keep:
                self._give_way()
                try:
                    with self._ledger.changing:
                        self._keep_some()
                except StoreUnavailable as error:
                    outage.goes_on(error)
                    hub.sleep(AGAIN_SECONDS)
                else:
                    outage.is_over()

    def _give_way(self) -> None:
        """Flows are more urgent than rows: as long as some are under way, rows wait for a while."""
        until = time.monotonic() + WAY_SECONDS
        while self._busy() and time.monotonic() < until:
            hub.sleep(0.05)

    def _keep_some(self) -> None:
        """Store the first of them. Changes must be locked."""
        some = dict(islice(self._to_keep.items(), KEPT_AT_ONCE))
        in_store(self._saving(some))
        for key, unsaved in some.items():
            if self._to_keep[key] is unsaved:
                del self._to_keep[key]

    def _saving(self, some: Mapping[BindingKey, _Unsaved]) -> Callable[[], None]:
        """What stores them, but for those that have changed since."""
        current = {
            key: unsaved
            for key, unsaved in some.items()
            if self._ledger.table.get(key) == unsaved.binding
        }
        return functools.partial(
            self._ledger.store.follow,
            [unsaved.binding for unsaved in current.values() if unsaved.binding is not None],
            [key for key, unsaved in current.items() if unsaved.binding is None],
            # Somebody else's binding that it was asked about: there it decides.
            overruled=[
                key
                for key, unsaved in current.items()
                if unsaved.before is not None and unsaved.before.origin is not Origin.VALIDATED
            ],
        )

    def flush(self, seconds: float) -> None:
        """The controller ends: store what waits for it, if that can be done in ``seconds``. For a
        signal, which may find the controller wherever it is."""
        if not self._to_keep:
            return
        save = self._saving(dict(self._to_keep))

        def work() -> None:
            with contextlib.suppress(StoreError):
                save()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(seconds)
