"""The service with a store in memory and switches that say what a test wants them to say."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface
from typing import Any, cast

from ryu_lw4o6 import counters
from ryu_lw4o6.core.binding import Binding, BindingKey, Origin, Prefix
from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.core.settings import Instance, Ipv4Side, Ipv6Side, RestSettings, Settings
from ryu_lw4o6.service import Applied, Service, SwitchState
from ryu_lw4o6.store import Loaded, Store, StoreError

SHARED = Prefix(IPv4Network("192.0.2.0/28"), PortParams(6, 6))
FULL = Prefix(IPv4Network("203.0.113.0/29"), PortParams(0, 0))
UNSERVED = Prefix(IPv4Network("198.51.100.128/25"), PortParams(6, 8))
ANYCAST = IPv6Address("2001:db8:ffff::1")
STATIC = Binding(
    IPv6Address("2001:db8:b4::1"), IPv4Address("192.0.2.1"), 3, SHARED.params, origin=Origin.STATIC
)


def instance(number: int, aftr: tuple[str, ...], prefixes: tuple[Prefix, ...]) -> Instance:
    return Instance(
        name=f"lwaftr{number}",
        datapath_id=number,
        ipv6=Ipv6Side("eth6", IPv6Interface(f"2001:db8:{number}::1/64"), None, 1540),
        ipv4=Ipv4Side("eth4", IPv4Interface("198.51.100.1/24"), IPv4Address("198.51.100.254")),
        aftr_addresses=tuple(map(IPv6Address, aftr)),
        prefixes=prefixes,
    )


def settings(**rest: Any) -> Settings:
    """lwaftr1 serves both prefixes, lwaftr2 the full addresses only; each has an address that the
    other has not. Nobody serves the last prefix."""
    return Settings(
        instances=(
            instance(1, ("2001:db8:ffff::1", "2001:db8:ffff::11"), (SHARED, FULL)),
            instance(2, ("2001:db8:ffff::1", "2001:db8:ffff::22"), (FULL,)),
        ),
        prefixes=(SHARED, FULL, UNSERVED),
        bindings=(STATIC,),
        rest=RestSettings(**rest),
    )


class MemoryStore:
    def __init__(self) -> None:
        self.down = False
        self.moves = threading.Event()
        self.moves.set()
        self.saves = 0
        self.shared = False

    def load(self) -> Loaded:
        return Loaded([], [])

    def find(self, keys: Collection[BindingKey]) -> Loaded:
        if self.down:
            raise StoreError("the disk is full", "Make room")
        return Loaded([], [])

    def save(
        self,
        put: Iterable[Binding],
        delete: Iterable[BindingKey],
        create: Iterable[Binding] = (),
    ) -> None:
        assert self.moves.wait(30), "it has stood still for too long"
        if self.down:
            raise StoreError("the disk is full", "Make room")
        self.saves += 1

    def drained(self) -> set[str]:
        return set()

    def set_drained(self, name: str, drained: bool) -> None:
        self.save([], [])

    def expire(self, now: float) -> None:
        self.save([], [])


class MemoryService(Service):
    """Switches confirm at once, but for ``refused`` and ``slow`` keys."""

    def __init__(self, settings: Settings) -> None:
        self.store = MemoryStore()
        super().__init__(settings, cast(Store, self.store))
        self.refused: dict[BindingKey, str] = {}
        self.slow: set[BindingKey] = set()
        self.waits: list[tuple[list[BindingKey], float]] = []
        self.switch_answers = True

    def applied(self, key: BindingKey) -> dict[str, Applied]:
        applied = Applied(SwitchState.APPLIED)
        if key in self.refused:
            applied = Applied(SwitchState.FAILED, self.refused[key])
        elif key in self.slow:
            applied = Applied(SwitchState.PENDING)
        return dict.fromkeys(super().applied(key), applied)

    def wait_applied(self, keys: Sequence[BindingKey], timeout: float) -> bool:
        self.waits.append((list(keys), timeout))
        return not any(key in self.refused or key in self.slow for key in keys)

    def counters(self) -> list[dict[str, Any]]:
        if not self.switch_answers:
            raise TimeoutError("lwaftr1: no answer to the flow dump within 10 s")
        return [
            counters.instance_json(
                switch.instance,
                switch.session,
                switch.icmp_sent,
                counters.Fragments(),
                lambda: None,
            )
            | {"counters": {"from_internet": {"packets": 7, "bytes": 700}}}
            for switch in self.by_name.values()
        ]

    def binding_counters(self, key: BindingKey) -> dict[str, Any]:
        if not self.switch_answers:
            raise TimeoutError("lwaftr1: no answer to the flow dump within 10 s")
        total = {"packets": 7, "bytes": 700}
        return {name: {"upstream": total, "downstream": total} for name in self.applied(key)}
