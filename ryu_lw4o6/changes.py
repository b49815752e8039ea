"""The one way bindings change: check, keep in the store, tell the switches.

A change is acknowledged when the store has committed it. From then on it is the switches' flows
that follow, through each session, and a restarted controller finds it in the store.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import eventlet.tpool
from ryu.lib import hub

from ryu_lw4o6.adoption import Adoption
from ryu_lw4o6.core.binding import (
    Binding,
    BindingConflict,
    BindingKey,
    BindingTable,
    all_changed,
    is_static,
)
from ryu_lw4o6.ledger import AGAIN_SECONDS, Ledger, Outage, in_store
from ryu_lw4o6.store import AlreadyStored, OutcomeUnknown, StoreError, StoreUnavailable

LOG = logging.getLogger(__name__)

FOLLOW_SECONDS = 1.0
SET_BACK_SECONDS = 2.0
"""By how much the clock goes back only if somebody sets it."""


class StaticBinding(ValueError):
    """The binding comes from the configuration file, which is the only place to change it."""

    def __init__(self, key: BindingKey) -> None:
        super().__init__(f"{key} is a static binding of the configuration file")
        self.key = key


class Changes:
    """Changes of bindings by everybody but the supporting system, of whose ``adoption`` the store
    may not know yet."""

    def __init__(self, ledger: Ledger, adoption: Adoption) -> None:
        self._ledger = ledger
        self._adoption = adoption
        self._table, self._store = ledger.table, ledger.store
        self._in_doubt: dict[BindingKey, None] = {}  # the store may have other bindings there
        self._clock = _clock()

    def load(self) -> None:
        """Start with what the store has, beside what the table has already. Raises StoreError."""
        loaded = self._store.load()
        for problem in loaded.problems:
            LOG.error("store: %s", problem)
        now, before = time.time(), len(self._table)
        for binding in loaded.bindings:
            if binding.expires_at is not None and binding.expires_at <= now:
                continue
            try:
                self._table.add(binding)
            except ValueError as error:
                LOG.error("store: binding %s is kept but not used: %s", binding.key, error)
        try:
            self._store.expire(now)
        except StoreError as error:  # it can be read, which is enough for traffic
            LOG.error("store: what has expired stays there for now: %s", error)
        LOG.info(
            "%d bindings: %d from the configuration, %d from the store",
            len(self._table), before, len(self._table) - before,
        )  # fmt: skip

    def change(
        self,
        create: Sequence[Binding] = (),
        replace: Sequence[Binding] = (),
        delete: Sequence[BindingKey] = (),
    ) -> None:
        """Add bindings, put bindings in the place of those with their keys, remove bindings: all
        of it or nothing. On return the store has committed.

        Raises BindingConflict, KeyError for a key that is not there, StaticBinding,
        UnknownPrefix and ValueError as BindingTable does, StoreUnavailable.
        """
        with self._ledger.changing:
            gone = dict.fromkeys(delete)
            for key in gone:
                self._changeable(key)
                if key not in self._table:
                    raise KeyError(key)
            put: dict[BindingKey, Binding] = {}
            for binding in (*create, *replace):
                self._table.check(binding)
                self._changeable(binding.key)
                if binding.key in put:
                    raise BindingConflict(put[binding.key])
                put[binding.key] = binding
            for binding in create:
                existing = self._table.get(binding.key)
                if existing is not None and binding.key not in gone:
                    raise BindingConflict(existing)
            created = {binding.key for binding in create}
            try:
                self._save(
                    [binding for key, binding in put.items() if key not in created],
                    [key for key in gone if key not in put or key in created],
                    create,
                )
            except AlreadyStored:
                self._ledger.touch(self._sync(list(put)))
                for binding in create:
                    existing = self._table.get(binding.key)
                    if existing is not None and binding.key not in gone:
                        raise BindingConflict(existing) from None
                raise StoreUnavailable(
                    "another controller has changed the same bindings; try again"
                ) from None
            removed = [b for key in gone if (b := self._table.remove(key)) is not None]
            for binding in put.values():
                self._table.replace(binding)
        self._ledger.touch({**gone, **put})
        self._ledger.deleted([b for b in removed if b.key not in put], "rest")
        self._ledger.created(put.values())

    def alter(
        self,
        choose: Callable[[BindingTable], tuple[Collection[Binding], Collection[BindingKey]]],
        reason: str,
    ) -> None:
        """Put bindings into the place of whatever has their keys, and remove others: ``choose``
        says which, given the table as it is while nobody else changes it. On return the store has
        committed.

        Raises UnknownPrefix and ValueError as BindingTable does, StoreUnavailable; then nothing
        was changed.
        """
        with self._ledger.changing:
            put, remove = choose(self._table)
            for binding in put:
                self._table.check(binding)
            found = {key: b for key in remove if (b := self._table.get(key)) is not None}
            self._save(list(put), list(found))
            new = [b for b in put if not b.same_softwire(self._table.get(b.key))]
            gone = self._remove(found)
            for binding in put:
                self._table.replace(binding)
        self._ledger.touch([*gone, *(binding.key for binding in new)])
        self._ledger.deleted([found[key] for key in gone if key not in self._table], reason)
        self._ledger.created(new)

    def _remove(self, found: Mapping[BindingKey, Binding]) -> list[BindingKey]:
        """Remove these bindings, but for those that the supporting system has replaced while the
        store made us wait; the keys of those removed."""
        gone = [key for key, binding in found.items() if self._table.get(key) is binding]
        for key in gone:
            self._table.remove(key)
        return gone

    # --- provisioning and lifetimes ---------------------------------------------------------------

    def provision(
        self,
        put: Sequence[Binding],
        delete: Sequence[Binding],
        commit: Callable[[Collection[BindingKey]], Collection[BindingKey]],
    ) -> set[BindingKey]:
        """Follow what lwB4s were given or have given back: put and remove bindings, but for those
        whose address and port set somebody else has, whose keys come back.

        ``commit`` writes to the store, in a thread, all but the keys it is told, and returns those
        that others have there. Raises StoreUnavailable, and then nothing was changed.
        """
        with self._ledger.changing:
            refused = {b.key for b in put if b.key in self._table and not self._has(b)}
            with self._doubting(binding.key for binding in (*put, *delete)):
                elsewhere = set(in_store(commit, refused))
            flows_differ: dict[BindingKey, None] = {}
            created = []
            for binding in put:
                if binding.key in refused or binding.key in elsewhere:
                    continue
                old = self._table.replace(binding)
                if not binding.same_softwire(old):
                    flows_differ[binding.key] = None
                if old is None:
                    created.append(binding)
            gone = [binding for binding in delete if self._has(binding)]
            for binding in gone:
                self._table.remove(binding.key)
            changed: Collection[BindingKey] = ()
            with contextlib.suppress(StoreUnavailable):  # if not now, they are followed later
                changed = self._sync(list(elsewhere))
        self._ledger.touch([*flows_differ, *(binding.key for binding in gone), *changed])
        self._ledger.created(created)
        self._ledger.deleted(gone, "lwB4")
        return refused | elsewhere

    def _has(self, binding: Binding) -> bool:
        """Whether an lwB4 has this address and port set, from who says so."""
        existing = self._table.get(binding.key)
        return existing is not None and (existing.lwb4, existing.origin) == (
            binding.lwb4, binding.origin,
        )  # fmt: skip

    def _changeable(self, key: BindingKey) -> None:
        if is_static(self._table.get(key)):
            raise StaticBinding(key)

    def expire(self, now: float) -> list[BindingKey]:
        """Remove the bindings whose lifetime is over. Raises StoreUnavailable."""
        with self._ledger.changing:
            keys = self._table.expired(now)
            found = {key: b for key in keys if (b := self._table.get(key)) is not None}
            gone: list[BindingKey] = []
            if found:
                in_store(self._store.expire, now)
                gone = self._remove(found)
        self._ledger.touch(gone)
        self._ledger.expired(found[key] for key in gone)
        return gone

    def _save(
        self,
        put: Sequence[Binding],
        delete: Sequence[BindingKey],
        create: Sequence[Binding] = (),
    ) -> None:
        with self._doubting([*delete, *(binding.key for binding in (*put, *create))]):
            in_store(self._store.save, put, delete, create)

    @contextlib.contextmanager
    def _doubting(self, keys: Iterable[BindingKey]) -> Iterator[None]:
        """Look what the store has of these keys later, if it does not say whether it was changed:
        nobody tells a controller of its own changes."""
        try:
            yield
        except OutcomeUnknown:
            self._in_doubt.update(dict.fromkeys(keys))
            raise

    # --- a store that other controllers write to as well ------------------------------------------

    def follow(self) -> None:
        """Take over what others change in the store. For ever."""
        watch, outage = self._store.watch(), Outage("other controllers' changes wait")
        told: list[BindingKey] | None = []  # and not followed yet: nobody tells of it twice
        while True:
            try:
                keys = eventlet.tpool.execute(watch.wait, FOLLOW_SECONDS)
                told = all_changed(all_changed(told, keys), self._in_doubt)
                self._in_doubt.clear()
                if self._set_back():
                    LOG.warning("the clock was set back: looking at all bindings")
                    told = None
                with self._ledger.changing:
                    changed = self._sync(told)
            except (StoreError, StoreUnavailable) as error:
                outage.goes_on(error)
                hub.sleep(AGAIN_SECONDS)
                continue
            told = []
            outage.is_over()
            self._ledger.touch(changed)
            self._ledger.created(b for key in changed if (b := self._table.get(key)) is not None)
            gone = [old for old in changed.values() if old and old.key not in self._table]
            self._ledger.deleted(gone, "store")

    def _set_back(self) -> bool:
        """Whether the clock was set back: what had ended by it has not, and may still be stored."""
        before, now = self._clock, _clock()
        set_back = now < before - SET_BACK_SECONDS
        if set_back or now > before:
            self._clock = now
        return set_back

    def _sync(self, keys: Sequence[BindingKey] | None) -> dict[BindingKey, Binding | None]:
        """Bring the table in line with the store, for these keys or for all; the keys of those
        that have changed, with what they had before. Changes must be locked."""
        if keys == []:
            return {}
        if keys is None:
            stored = in_store(self._store.load).bindings
            keys = [b.key for b in self._table] + [b.key for b in stored]
        else:
            stored = in_store(self._store.find, keys).bindings
        now = time.time()
        right = {b.key: b for b in stored if b.expires_at is None or b.expires_at > now}
        changed: dict[BindingKey, Binding | None] = {}
        for key in dict.fromkeys(keys):
            existing, binding = self._table.get(key), right.get(key)
            if existing == binding or is_static(existing) or self._adoption.awaits(key, binding):
                continue
            if binding is None:
                self._table.remove(key)
            else:
                try:
                    self._table.replace(binding)
                except ValueError:
                    continue  # it belongs to controllers with other prefixes
            changed[key] = existing
        return changed


def _clock() -> float:
    """How far the wall clock is ahead of one that nobody sets."""
    return time.time() - time.monotonic()
