"""The one way bindings change: check, keep in the store, tell the switches.

A change is acknowledged when the store has committed it. From then on it is the switches' flows
that follow, through each session, and a restarted controller finds it in the store.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import eventlet.semaphore
import eventlet.tpool
from ryu.lib import hub

from ryu_lw4o6 import counters
from ryu_lw4o6.announce.announcer import Announcer
from ryu_lw4o6.announce.exabgp import ExaBgp
from ryu_lw4o6.core.binding import Binding, BindingConflict, BindingKey, BindingTable, Origin
from ryu_lw4o6.core.recent import Recent
from ryu_lw4o6.core.settings import Settings
from ryu_lw4o6.core.times import rfc3339
from ryu_lw4o6.events import Events
from ryu_lw4o6.provisioning.dhcp_relay import DhcpRelay
from ryu_lw4o6.provisioning.pcp_service import PcpService
from ryu_lw4o6.store import AlreadyStored, Store, StoreError, StoreUnavailable
from ryu_lw4o6.supporting import open_system
from ryu_lw4o6.switchboard import Switch
from ryu_lw4o6.validation import CannotAdopt, Validator

LOG = logging.getLogger(__name__)

T = TypeVar("T")

FOLLOW_SECONDS = 1.0
RENEW_AHEAD = 5.0
"""Seconds before a binding expires that the supporting system is asked for its new lifetime."""
_MOST_RENEWING = 1_000_000
SUPPORTING_SYSTEM = "supporting system"


class SwitchState(enum.StrEnum):
    """How far a binding has come on one switch."""

    PENDING = "pending"
    APPLIED = "applied"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Applied:
    """A binding on one instance. ``error`` is the switch's own words when it failed."""

    state: SwitchState
    error: str | None = None


class StaticBinding(ValueError):
    """The binding comes from the configuration file, which is the only place to change it."""

    def __init__(self, key: BindingKey) -> None:
        super().__init__(f"{key} is a static binding of the configuration file")
        self.key = key


class Service:
    """What the controller knows and does, for the Ryu app and for REST."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.table = BindingTable(settings.prefixes)
        self._store = store
        self.events = Events()
        self.validator: Validator | None = None
        if any(instance.failover.validates for instance in settings.instances):
            self.validator = Validator(
                open_system(settings, store),
                settings.supporting_system,
                self.table,
                settings.instances,
                self.adopt,
                self.withdraw,
            )
        ask = self.validator.ask if self.validator is not None else None
        remember_no = settings.supporting_system.remember_no
        self.by_name = {
            i.name: Switch(i, self.table, ask, remember_no, self.events) for i in settings.instances
        }
        drained = self._store.drained()
        for name, switch in self.by_name.items():
            switch.drained = name in drained
            if switch.instance.announce is not None:
                switch.announcer = self._announcer(switch)
        self.pcp = PcpService(settings.instances, self.table, store, self.provision)
        for name, server in self.pcp.servers.items():
            self.by_name[name].pcp = server
        self.dhcp_relays = {
            name: DhcpRelay(switch.instance, self.alter, switch.current_session)
            for name, switch in self.by_name.items()
            if switch.instance.dhcp is not None
        }
        self._renewing = Recent(RENEW_AHEAD / 2, _MOST_RENEWING)
        # Changes are checked against the table, stored, then put into the table; the store may
        # make a greenlet wait, so they go one at a time.
        self._changing = eventlet.semaphore.Semaphore()
        for binding in settings.bindings:
            self.table.add(binding)
        self._load()

    def _load(self) -> None:
        loaded = self._store.load()
        for problem in loaded.problems:
            LOG.error("store: %s", problem)
        now = time.time()
        for binding in loaded.bindings:
            if binding.expires_at is not None and binding.expires_at <= now:
                continue
            try:
                self.table.add(binding)
            except ValueError as error:
                LOG.error("store: binding %s is kept but not used: %s", binding.key, error)
        self._store.expire(now)
        LOG.info(
            "%d bindings: %d from the configuration, %d from the store",
            len(self.table), len(self.settings.bindings),
            len(self.table) - len(self.settings.bindings),
        )  # fmt: skip

    def greenlets(self) -> list[Callable[[], None]]:
        """What is to run beside the sessions for as long as the controller lives."""
        found: list[Callable[[], None]] = []
        if self._store.shared:
            found.append(self._follow)
        if self.validator is not None:
            found.append(self.validator.run)
            if self.settings.supporting_system.source is not None:
                found.append(self.validator.watch)
            found += [s.unknown.run for s in self.by_name.values() if s.unknown is not None]
        found += self.pcp.greenlets()
        for switch in self.by_name.values():
            if switch.announcer is not None:
                found.append(switch.announcer.run)
        found += [relay.run for relay in self.dhcp_relays.values()]
        return found

    def stop(self) -> None:
        """The controller ends: tell the routers."""
        for switch in self.by_name.values():
            if switch.announcer is not None:
                switch.announcer.stop()

    def _announcer(self, switch: Switch) -> Announcer:
        instance = switch.instance
        assert instance.announce is not None
        directory = Path(self.settings.run_directory)
        speaker = ExaBgp(instance.name, instance.announce, directory, switch.changed)

        def tell(what: str, why: str | None) -> None:
            self.events.add(f"routes-{what}", instance=instance.name, reason=why)

        return Announcer(instance, speaker, switch.obstacle, tell)

    def drain(self, name: str, *, drained: bool) -> None:
        """Withdraw an instance's routes until this is undone, or announce them again; kept across
        restarts. Raises KeyError, StoreUnavailable."""
        switch = self.by_name[name]
        with self._changing:
            self._in_store(self._store.set_drained, name, drained)
            changed, switch.drained = switch.drained != drained, drained
        if changed:
            self.events.add("drained" if drained else "undrained", instance=name)
        switch.changed()

    def failover(self) -> dict[str, Any]:
        """The state of failover, ready for JSON."""
        return {
            "supporting_system": None if self.validator is None else self.validator.status(),
            "instances": [switch.failover_status() for switch in self.by_name.values()],
        }

    def provisioning(self) -> list[dict[str, Any]]:
        """How lwB4s come to bindings on each instance, ready for JSON."""
        return [
            {
                "name": name,
                "pcp": None if switch.pcp is None else switch.pcp.status(),
                "dhcp": None if name not in self.dhcp_relays else self.dhcp_relays[name].status(),
            }
            for name, switch in self.by_name.items()
        ]

    def switch(self, datapath_id: int) -> Switch | None:
        """The switch of the instance with this datapath id."""
        instance = self.settings.instance(datapath_id)
        return None if instance is None else self.by_name[instance.name]

    # --- bindings -------------------------------------------------------------------------------

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
                if key not in self.table:
                    raise KeyError(key)
            put: dict[BindingKey, Binding] = {}
            for binding in (*create, *replace):
                self.table.check(binding)
                self._changeable(binding.key)
                if binding.key in put:
                    raise BindingConflict(put[binding.key])
                put[binding.key] = binding
            for binding in create:
                existing = self.table.get(binding.key)
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
                    existing = self.table.get(binding.key)
                    if existing is not None and binding.key not in gone:
                        raise BindingConflict(existing) from None
                raise StoreUnavailable(
                    "another controller has changed the same bindings; try again"
                ) from None
            for key in gone:
                self.table.remove(key)
            for binding in put.values():
                self.table.replace(binding)
        self._touch({**gone, **put})
        for key in gone:
            if key not in put:
                self.events.add("binding-deleted", binding=key, reason="rest")
        self._created(put.values())

    def _created(self, bindings: Iterable[Binding]) -> None:
        self.events.add_all("binding-created", (_details(binding) for binding in bindings))

    def alter(
        self,
        choose: Callable[[BindingTable], tuple[Collection[Binding], Collection[BindingKey]]],
        reason: str,
        *,
        keep: bool = True,
        on_disk: bool = True,
    ) -> None:
        """Put bindings into the place of whatever has their keys, and remove others: ``choose``
        says which, given the table as it is while nobody else changes it. On return the store has
        committed, unless it is not to ``keep`` them; ``on_disk`` is the store's.

        Raises UnknownPrefix and ValueError as BindingTable does, StoreUnavailable; then nothing
        was changed.
        """
        with self._changing:
            put, remove = choose(self.table)
            for binding in put:
                self.table.check(binding)
            gone = [key for key in remove if key in self.table]
            if keep:
                self._save(list(put), gone, on_disk=on_disk)
            new = [b for b in put if not _same_flows(self.table.get(b.key), b)]
            for key in gone:
                self.table.remove(key)
            for binding in put:
                self.table.replace(binding)
        self._touch([*gone, *(binding.key for binding in new)])
        for key in gone:
            if key not in self.table:
                self.events.add("binding-deleted", binding=key, reason=reason)
        self._created(new)

    def adopt(self, bindings: Collection[Binding]) -> None:
        """Follow the supporting system: put these bindings into the place of whatever has their
        keys, static bindings excepted. Raises CannotAdopt, and then nothing was changed."""

        def choose(table: BindingTable) -> tuple[list[Binding], tuple[()]]:
            existing = ((binding, table.get(binding.key)) for binding in bindings)
            return [new for new, old in existing if new != old and not _is_static(old)], ()

        source = self.settings.supporting_system.source
        try:
            # What the supporting system has said it will say again: no need for the packets that
            # wait to wait for the disk as well.
            self.alter(choose, SUPPORTING_SYSTEM, keep=source is not None, on_disk=False)
        except (StoreUnavailable, ValueError) as error:
            raise CannotAdopt(str(error)) from error

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
            refused = {b.key for b in put if b.key in self.table and not self._has(b)}
            in_store = set(self._in_store(commit, refused))
            flows_differ: dict[BindingKey, None] = {}
            created = []
            for binding in put:
                if binding.key in refused or binding.key in in_store:
                    continue
                old = self.table.replace(binding)
                if old is None or old.br_address != binding.br_address:
                    flows_differ[binding.key] = None
                if old is None:
                    created.append(binding)
            gone = [binding.key for binding in delete if self._has(binding)]
            for key in gone:
                self.table.remove(key)
            changed: list[BindingKey] = []
            with contextlib.suppress(StoreUnavailable):  # if not now, they are followed later
                changed = self._sync(list(in_store))
        self._touch([*flows_differ, *gone, *changed])
        self._created(created)
        for key in gone:
            self.events.add("binding-deleted", binding=key, reason="lwB4")
        return refused | in_store

    def _has(self, binding: Binding) -> bool:
        """Whether an lwB4 has this address and port set, from who says so."""
        existing = self.table.get(binding.key)
        return existing is not None and (existing.lwb4, existing.origin) == (
            binding.lwb4, binding.origin,
        )  # fmt: skip

    def withdraw(self, keys: Collection[BindingKey]) -> None:
        """The supporting system no longer has these bindings."""

        def choose(table: BindingTable) -> tuple[tuple[()], list[BindingKey]]:
            existing = ((key, table.get(key)) for key in keys)
            return (), [key for key, old in existing if old and old.origin is Origin.VALIDATED]

        try:
            self.alter(choose, SUPPORTING_SYSTEM)
        except StoreUnavailable as error:
            LOG.error("withdrawn bindings stay until the store is back: %s", error)

    def renew(self, now: float) -> None:
        """Ask the supporting system about its bindings that are about to expire."""
        if self.validator is None:
            return
        self.validator.recheck(
            binding.key
            for key in self.table.expired(now + RENEW_AHEAD)
            if (binding := self.table.get(key)) is not None
            and binding.origin is Origin.VALIDATED
            and self._renewing.add(key, now)
        )

    def _changeable(self, key: BindingKey) -> None:
        if _is_static(self.table.get(key)):
            raise StaticBinding(key)

    def expire(self, now: float) -> list[BindingKey]:
        """Remove the bindings whose lifetime is over. Raises StoreUnavailable."""
        with self._changing:
            keys = self.table.expired(now)
            if keys:
                self._in_store(self._store.expire, now)
                for key in keys:
                    self.table.remove(key)
        self._touch(keys)
        for key in keys:
            self.events.add("binding-expired", binding=key)
        return keys

    def _save(
        self,
        put: Sequence[Binding],
        delete: Sequence[BindingKey],
        create: Sequence[Binding] = (),
        *,
        on_disk: bool = True,
    ) -> None:
        save = functools.partial(self._store.save, on_disk=on_disk)
        self._in_store(save, put, delete, create)

    def _in_store(self, work: Callable[..., T], *arguments: Any) -> T:
        try:
            result: T = eventlet.tpool.execute(work, *arguments)
        except StoreError as error:
            raise StoreUnavailable(str(error)) from error
        return result

    # --- a store that other controllers write to as well ------------------------------------------

    def _follow(self) -> None:
        """Take over what others change in the store. For ever."""
        watch, down = self._store.watch(), False
        while True:
            try:
                keys = eventlet.tpool.execute(watch.wait, FOLLOW_SECONDS)
                with self._changing:
                    changed = self._sync(keys)
            except (StoreError, StoreUnavailable) as error:
                if not down:
                    LOG.error("other controllers' changes wait until the store is back: %s", error)
                down = True
                hub.sleep(FOLLOW_SECONDS)
                continue
            if down:
                LOG.info("the store is back")
            down = False
            self._touch(changed)
            self._created(b for key in changed if (b := self.table.get(key)) is not None)
            for key in changed:
                if key not in self.table:
                    self.events.add("binding-deleted", binding=key, reason="store")

    def _sync(self, keys: Sequence[BindingKey] | None) -> list[BindingKey]:
        """Bring the table in line with the store, for these keys or for all; the keys of those
        that have changed. Changes must be locked."""
        if keys == []:
            return []
        if keys is None:
            stored = self._in_store(self._store.load).bindings
            keys = [b.key for b in self.table] + [b.key for b in stored]
        else:
            stored = self._in_store(self._store.find, keys).bindings
        now = time.time()
        right = {b.key: b for b in stored if b.expires_at is None or b.expires_at > now}
        changed = []
        for key in dict.fromkeys(keys):
            existing, binding = self.table.get(key), right.get(key)
            if existing == binding or (existing and existing.origin is Origin.STATIC):
                continue
            if binding is None:
                self.table.remove(key)
            else:
                try:
                    self.table.replace(binding)
                except ValueError:
                    continue  # it belongs to controllers with other prefixes
            changed.append(key)
        return changed

    def _touch(self, keys: Iterable[BindingKey]) -> None:
        keys = list(keys)
        for switch in self.by_name.values():
            switch.touch(keys)

    # --- how far the switches are -----------------------------------------------------------------

    def applied(self, key: BindingKey) -> dict[str, Applied]:
        """The state of a binding on every instance that carries it, by instance name."""
        binding = self.table.get(key)
        states = {}
        for name, switch in self.by_name.items():
            if binding is not None and switch.instance.carries(binding):
                states[name] = _applied(switch, key)
        return states

    def wait_applied(self, keys: Sequence[BindingKey], timeout: float) -> bool:
        """Wait until every connected switch has confirmed what the table says of ``keys``.

        False when ``timeout`` seconds pass first, a switch refuses one of them, or no switch is
        connected.
        """
        deadline = time.monotonic() + timeout
        connected = [switch for switch in self.by_name.values() if switch.session is not None]
        if not connected:
            return False
        for switch in connected:
            while True:
                session = switch.session
                if session is None:
                    return False
                if any(session.failure(key) for key in keys):
                    return False
                if not any(session.pending(key) for key in keys):
                    break
                left = deadline - time.monotonic()
                if left <= 0 or not session.wait_progress(left):
                    return False
        return True

    def switches(self) -> list[dict[str, Any]]:
        """The state of every switch, ready for JSON."""
        return [switch.status() for switch in self.by_name.values()]

    def counters(self) -> list[dict[str, Any]]:
        """Every counter of every connected switch, read from the switch now.

        Raises TimeoutError when a switch does not answer.
        """
        return [
            counters.instance_json(
                switch.instance,
                switch.session,
                switch.icmp_sent,
                counters.Fragments(
                    counters.Total(*switch.slow_path.fragments_dropped),
                    counters.Total(*switch.slow_path.fragments_reassembled),
                ),
            )
            for switch in self.by_name.values()
        ]

    def binding_counters(self, key: BindingKey) -> dict[str, Any]:
        """What has passed a binding on each instance whose switch has it, by instance name.

        Raises TimeoutError when a switch does not answer.
        """
        return {
            name: counters.binding_json(switch.instance, switch.session, key)
            for name, switch in self.by_name.items()
            if switch.session is not None
            and self.applied(key).get(name) == Applied(SwitchState.APPLIED)
        }

    def close(self) -> None:
        self._store.close()


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


def _applied(switch: Switch, key: BindingKey) -> Applied:
    session = switch.session
    if session is None or session.pending(key):
        return Applied(SwitchState.PENDING)
    error = session.failure(key)
    return Applied(SwitchState.APPLIED if error is None else SwitchState.FAILED, error)
