"""What the controller consists of, put together: switches, changes of bindings, and what makes
them."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import eventlet.semaphore

from ryu_lw4o6 import counters
from ryu_lw4o6.adoption import Adoption
from ryu_lw4o6.announce.announcer import Announcer
from ryu_lw4o6.announce.exabgp import ExaBgp
from ryu_lw4o6.changes import Changes
from ryu_lw4o6.core.binding import BindingKey, BindingTable, Origin
from ryu_lw4o6.core.recent import Recent
from ryu_lw4o6.core.settings import Settings
from ryu_lw4o6.events import Events
from ryu_lw4o6.ledger import Ledger, in_store
from ryu_lw4o6.provisioning.dhcp_relay import DhcpRelay
from ryu_lw4o6.provisioning.pcp_service import PcpService
from ryu_lw4o6.session import State
from ryu_lw4o6.store import Store
from ryu_lw4o6.supporting import open_system
from ryu_lw4o6.switchboard import Switch
from ryu_lw4o6.validation import Validator

RENEW_AHEAD = 5.0
"""Seconds before a binding expires that the supporting system is asked for its new lifetime."""
_MOST_RENEWING = 1_000_000
FLUSH_SECONDS = 1.0
"""How long a store that is full or away may keep the controller from ending."""


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


class Service:
    """What the controller knows and does, for the Ryu app and for REST."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.table = BindingTable(settings.prefixes)
        self._store = store
        self.events = Events()
        ledger = Ledger(self.table, store, self.events, self._touch)
        own_answers = settings.supporting_system.source is None
        self._adoption = Adoption(ledger, self._backlog, own_answers=own_answers)
        self.changes = Changes(ledger, self._adoption)
        self.validator: Validator | None = None
        if any(instance.failover.validates for instance in settings.instances):
            self.validator = Validator(
                open_system(settings, store),
                settings.supporting_system,
                self.table,
                settings.instances,
                self._adoption.adopt,
                self._adoption.withdraw,
                self._backlog,
            )
        remember_no = settings.supporting_system.remember_no
        self.by_name = {
            i.name: Switch(i, self.table, self.validator, remember_no, self.events)
            for i in settings.instances
        }
        drained = self._store.drained()
        for name, switch in self.by_name.items():
            switch.drained = name in drained
            if switch.instance.announce is not None:
                switch.announcer = self._announcer(switch)
        self.pcp = PcpService(settings.instances, self.table, store, self.changes.provision)
        for name, server in self.pcp.servers.items():
            self.by_name[name].pcp = server
        self.dhcp_relays = {
            name: DhcpRelay(switch.instance, self.changes.alter, switch.current_session)
            for name, switch in self.by_name.items()
            if switch.instance.dhcp is not None
        }
        self._renewing = Recent(RENEW_AHEAD / 2, _MOST_RENEWING)
        self._draining = eventlet.semaphore.Semaphore()
        for binding in settings.bindings:
            self.table.add(binding)
        self.changes.load()

    def greenlets(self) -> list[Callable[[], None]]:
        """What is to run beside the sessions for as long as the controller lives."""
        found: list[Callable[[], None]] = []
        if self._store.shared:
            found.append(self.changes.follow)
        if self.validator is not None:
            found.append(self.validator.run)
            if self.settings.supporting_system.source is not None:
                found += [self.validator.watch, self.validator.ahead.run, self._adoption.keep]
            found += [s.unknown.run for s in self.by_name.values() if s.unknown is not None]
        found += self.pcp.greenlets()
        for switch in self.by_name.values():
            if switch.announcer is not None:
                found.append(switch.announcer.run)
        found += [relay.run for relay in self.dhcp_relays.values()]
        found += [switch.crowd_watch.run for switch in self.by_name.values()]
        found += [switch.setup_watch.run for switch in self.by_name.values()]
        return found

    def stop(self) -> None:
        """The controller ends: tell the routers, and store what is not stored yet."""
        for switch in self.by_name.values():
            if switch.announcer is not None:
                switch.announcer.stop()
        self._adoption.flush(FLUSH_SECONDS)

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
        with self._draining:
            in_store(self._store.set_drained, name, drained)
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

    def renew(self, now: float) -> None:
        """Ask the supporting system about its bindings that are about to expire at ``now``, Unix
        time in seconds."""
        if self.validator is None:
            return
        self.validator.recheck(
            binding.key
            for key in self.table.expired(now + RENEW_AHEAD)
            if (binding := self.table.get(key)) is not None
            and binding.origin is Origin.VALIDATED
            and self._renewing.add(key, time.monotonic())
        )

    def _touch(self, keys: Collection[BindingKey]) -> None:
        for switch in self.by_name.values():
            switch.touch(keys)

    def _backlog(self) -> int:
        """How many bindings the slowest switch has yet to confirm. One that is being read has time:
        what the table has by then need not be sent."""
        sessions = [switch.session for switch in self.by_name.values()]
        return max((s.backlog for s in sessions if s and s.state is State.READY), default=0)

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
                    counters.Total(*switch.slow_path.fragments_dropped)
                    + counters.Total(*switch.own_fragments.dropped),
                    counters.Total(*switch.slow_path.fragments_reassembled),
                    counters.Total(*switch.paths.fragmented),
                ),
                switch.shim.read,
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


def _applied(switch: Switch, key: BindingKey) -> Applied:
    session = switch.session
    if session is None or session.pending(key):
        return Applied(SwitchState.PENDING)
    error = session.failure(key)
    return Applied(SwitchState.APPLIED if error is None else SwitchState.FAILED, error)
