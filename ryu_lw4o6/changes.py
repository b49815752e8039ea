"""The one way bindings change: check, keep in the store, tell the switches.

A change is acknowledged when the store has committed it. From then on it is the switches' flows
that follow, through each session, and a restarted controller finds it in the store.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import eventlet.semaphore
import eventlet.tpool
from ryu.lib import hub

from ryu_lw4o6.core.binding import Binding, BindingConflict, BindingKey, BindingTable, Origin
from ryu_lw4o6.core.times import rfc3339
from ryu_lw4o6.events import Events
from ryu_lw4o6.store import AlreadyStored, Store, StoreError, StoreUnavailable
from ryu_lw4o6.threads import threading

LOG = logging.getLogger(__name__)

T = TypeVar("T")

FOLLOW_SECONDS = 1.0
KEPT_AT_ONCE = 1000


class StaticBinding(ValueError):
    """The binding comes from the configuration file, which is the only place to change it."""

    def __init__(self, key: BindingKey) -> None:
        super().__init__(f"{key} is a static binding of the configuration file")
        self.key = key


@dataclass(eq=False, slots=True)
class _Unsaved:
    """What the supporting system has said of a key and is not stored yet: a binding, or none."""

    binding: Binding | None


class _Outage:
    """The store is away, which is logged once, and then that it is back. ``what`` waits for it."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._down = False

    def goes_on(self, error: Exception) -> None:
        if not self._down:
            LOG.error("%s until the store is back: %s", self._what, error)
        self._down = True

    def is_over(self) -> None:
        if self._down:
            LOG.info("the store is back")
        self._down = False


class Changes:
    """Changes of bindings, by whomever. ``touch`` is told the keys whose flows are to follow;
    ``own_answers`` says that what the supporting system answers comes out of ``store`` itself."""

    def __init__(
        self,
        table: BindingTable,
        store: Store,
        events: Events,
        touch: Callable[[Collection[BindingKey]], None],
        *,
        own_answers: bool,
    ) -> None:
        self._table = table
        self._store = store
        self._events = events
        self._touch = touch
        self._own_answers = own_answers
        # Changes are checked against the table, stored, then put into the table; the store may
        # make a greenlet wait, so they go one at a time. Only the supporting system's do not wait
        # for it, and may have come between.
        self._changing = eventlet.semaphore.Semaphore()
        self._to_keep: dict[BindingKey, _Unsaved] = {}
        self._wake_keeper = hub.Event()

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
        self._store.expire(now)
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
        with self._changing:
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
                self._touch(self._sync(list(put)))
                for binding in create:
                    existing = self._table.get(binding.key)
                    if existing is not None and binding.key not in gone:
                        raise BindingConflict(existing) from None
                raise StoreUnavailable(
                    "another controller has changed the same bindings; try again"
                ) from None
            for key in gone:
                self._table.remove(key)
            for binding in put.values():
                self._table.replace(binding)
        self._touch({**gone, **put})
        for key in gone:
            if key not in put:
                self._events.add("binding-deleted", binding=key, reason="rest")
        self._created(put.values())

    def _created(self, bindings: Iterable[Binding]) -> None:
        self._events.add_all("binding-created", (_details(binding) for binding in bindings))

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
        with self._changing:
            put, remove = choose(self._table)
            for binding in put:
                self._table.check(binding)
            found = {key: b for key in remove if (b := self._table.get(key)) is not None}
            self._save(list(put), list(found))
            new = [b for b in put if not _same_flows(self._table.get(b.key), b)]
            gone = self._remove(found)
            for binding in put:
                self._table.replace(binding)
        self._touch([*gone, *(binding.key for binding in new)])
        for key in gone:
            if key not in self._table:
                self._events.add("binding-deleted", binding=key, reason=reason)
        self._created(new)

    def _remove(self, found: Mapping[BindingKey, Binding]) -> list[BindingKey]:
        """Remove these bindings, but for those that the supporting system has replaced while the
        store made us wait; the keys of those removed."""
        gone = [key for key, binding in found.items() if self._table.get(key) is binding]
        for key in gone:
            self._table.remove(key)
        return gone

    # --- what the supporting system says, which it would say again --------------------------------

    def adopt(self, bindings: Iterable[Binding]) -> set[BindingKey]:
        """Put these bindings into the place of whatever has their keys, static bindings excepted,
        and store them later. Does not wait.

        Returns the keys of those that do not fit the configuration.
        """
        misfits: set[BindingKey] = set()
        new: dict[BindingKey, Binding] = {}
        for binding in bindings:
            key = binding.key
            old = self._table.get(key)
            if old == binding or _is_static(old):
                continue
            try:
                self._table.replace(binding)
            except ValueError as error:
                LOG.error("a binding of the supporting system cannot be made: %s", error)
                misfits.add(key)
                continue
            self._keep_later(key, binding)
            if not _same_flows(old, binding):
                new[key] = binding
        self._touch(new)
        self._created(new.values())
        return misfits

    def withdraw(self, keys: Iterable[BindingKey]) -> None:
        """Remove these bindings, which the supporting system no longer has, and delete them from
        the store later. Does not wait."""
        found = ((key, self._table.get(key)) for key in keys)
        gone = [key for key, old in found if old is not None and old.origin is Origin.VALIDATED]
        for key in gone:
            self._table.remove(key)
            self._keep_later(key, None)
        self._touch(gone)
        for key in gone:
            self._events.add("binding-deleted", binding=key, reason="supporting system")

    def _keep_later(self, key: BindingKey, binding: Binding | None) -> None:
        if not self._own_answers:
            self._to_keep[key] = _Unsaved(binding)
            self._wake_keeper.set()

    def keep(self) -> None:
        """Store what was adopted or withdrawn. For ever."""
        outage = _Outage("validated bindings wait")
        while True:
            self._wake_keeper.wait()
            self._wake_keeper.clear()
            while self._to_keep:
                try:
                    with self._changing:
                        self._keep_some()
                except StoreUnavailable as error:
                    outage.goes_on(error)
                    hub.sleep(FOLLOW_SECONDS)
                else:
                    outage.is_over()

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
            key: unsaved.binding
            for key, unsaved in some.items()
            if self._table.get(key) == unsaved.binding
        }
        return functools.partial(
            self._store.save,
            [binding for binding in current.values() if binding is not None],
            (),
            withdrawn=[key for key, binding in current.items() if binding is None],
            on_disk=False,
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
        with self._changing:
            refused = {b.key for b in put if b.key in self._table and not self._has(b)}
            elsewhere = set(in_store(commit, refused))
            flows_differ: dict[BindingKey, None] = {}
            created = []
            for binding in put:
                if binding.key in refused or binding.key in elsewhere:
                    continue
                old = self._table.replace(binding)
                if not _same_flows(old, binding):
                    flows_differ[binding.key] = None
                if old is None:
                    created.append(binding)
            gone = [binding.key for binding in delete if self._has(binding)]
            for key in gone:
                self._table.remove(key)
            changed: list[BindingKey] = []
            with contextlib.suppress(StoreUnavailable):  # if not now, they are followed later
                changed = self._sync(list(elsewhere))
        self._touch([*flows_differ, *gone, *changed])
        self._created(created)
        for key in gone:
            self._events.add("binding-deleted", binding=key, reason="lwB4")
        return refused | elsewhere

    def _has(self, binding: Binding) -> bool:
        """Whether an lwB4 has this address and port set, from who says so."""
        existing = self._table.get(binding.key)
        return existing is not None and (existing.lwb4, existing.origin) == (
            binding.lwb4, binding.origin,
        )  # fmt: skip

    def _changeable(self, key: BindingKey) -> None:
        if _is_static(self._table.get(key)):
            raise StaticBinding(key)

    def expire(self, now: float) -> list[BindingKey]:
        """Remove the bindings whose lifetime is over. Raises StoreUnavailable."""
        with self._changing:
            keys = self._table.expired(now)
            found = {key: b for key in keys if (b := self._table.get(key)) is not None}
            gone: list[BindingKey] = []
            if found:
                in_store(self._store.expire, now)
                gone = self._remove(found)
        self._touch(gone)
        for key in gone:
            self._events.add("binding-expired", binding=key)
        return gone

    def _save(
        self,
        put: Sequence[Binding],
        delete: Sequence[BindingKey],
        create: Sequence[Binding] = (),
    ) -> None:
        in_store(self._store.save, put, delete, create)

    # --- a store that other controllers write to as well ------------------------------------------

    def follow(self) -> None:
        """Take over what others change in the store. For ever."""
        watch, outage = self._store.watch(), _Outage("other controllers' changes wait")
        while True:
            try:
                keys = eventlet.tpool.execute(watch.wait, FOLLOW_SECONDS)
                with self._changing:
                    changed = self._sync(keys)
            except (StoreError, StoreUnavailable) as error:
                outage.goes_on(error)
                hub.sleep(FOLLOW_SECONDS)
                continue
            outage.is_over()
            self._touch(changed)
            self._created(b for key in changed if (b := self._table.get(key)) is not None)
            for key in changed:
                if key not in self._table:
                    self._events.add("binding-deleted", binding=key, reason="store")

    def _sync(self, keys: Sequence[BindingKey] | None) -> list[BindingKey]:
        """Bring the table in line with the store, for these keys or for all; the keys of those
        that have changed. Changes must be locked."""
        if keys == []:
            return []
        if keys is None:
            stored = in_store(self._store.load).bindings
            keys = [b.key for b in self._table] + [b.key for b in stored]
        else:
            stored = in_store(self._store.find, keys).bindings
        now = time.time()
        right = {b.key: b for b in stored if b.expires_at is None or b.expires_at > now}
        changed = []
        for key in dict.fromkeys(keys):
            existing, binding = self._table.get(key), right.get(key)
            if existing == binding or (existing and existing.origin is Origin.STATIC):
                continue
            if key in self._to_keep and self._to_keep[key].binding == existing:
                continue  # the store has yet to be told
            if binding is None:
                self._table.remove(key)
            else:
                try:
                    self._table.replace(binding)
                except ValueError:
                    continue  # it belongs to controllers with other prefixes
            changed.append(key)
        return changed


def in_store(work: Callable[..., T], *arguments: Any) -> T:
    """Let a thread work on the store. Raises StoreUnavailable."""
    try:
        result: T = eventlet.tpool.execute(work, *arguments)
    except StoreError as error:
        raise StoreUnavailable(str(error)) from error
    return result


def _is_static(binding: Binding | None) -> bool:
    return binding is not None and binding.origin is Origin.STATIC


def _same_flows(old: Binding | None, new: Binding) -> bool:
    """Whether a binding makes the flows that the one before it has made."""
    return old is not None and (old.lwb4, old.br_address) == (new.lwb4, new.br_address)


def _details(binding: Binding) -> dict[str, Any]:
    end = binding.expires_at
    return {
        "binding": binding.key, "lwb4": binding.lwb4,
        "br_address": binding.br_address, "origin": binding.origin,
        "expires_at": None if end is None else rfc3339(end, "seconds"),
    }  # fmt: skip
