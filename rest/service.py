"""What REST needs of the controller: the service, seen from here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ryu_lw4o6.core.binding import Binding, BindingKey, BindingTable
from ryu_lw4o6.core.settings import Settings
from ryu_lw4o6.events import Events
from ryu_lw4o6.service import Applied


class BindingChanges(Protocol):
    """See ``ryu_lw4o6.changes.Changes``."""

    def change(
        self,
        create: Sequence[Binding] = (),
        replace: Sequence[Binding] = (),
        delete: Sequence[BindingKey] = (),
    ) -> None:
        """All or nothing; on return the store has committed. Raises BindingConflict, KeyError
        for a key that is not there, StaticBinding, UnknownPrefix, ValueError, StoreUnavailable.
        """


class BindingService(Protocol):
    """See ``ryu_lw4o6.service.Service``, which is one. The table is only read here."""

    settings: Settings
    table: BindingTable

    @property
    def changes(self) -> BindingChanges: ...

    events: Events

    def drain(self, name: str, *, drained: bool) -> None:
        """Raises KeyError if there is no instance with this name, StoreUnavailable."""

    def failover(self) -> Mapping[str, Any]:
        """The state of failover, ready for JSON."""

    def provisioning(self) -> list[dict[str, Any]]:
        """Ready for JSON; ``name`` names the instance."""

    def applied(self, key: BindingKey) -> Mapping[str, Applied]:
        """The state of a binding by the name of each instance that carries it."""

    def wait_applied(self, keys: Sequence[BindingKey], timeout: float) -> bool:
        """True when every connected switch has confirmed; False after ``timeout`` seconds, when
        one refused, or when none is connected."""

    def switches(self) -> list[dict[str, Any]]:
        """Ready for JSON; ``name`` names the instance."""

    def counters(self) -> list[dict[str, Any]]:
        """Ready for JSON; ``instance`` names the instance. Raises TimeoutError."""

    def binding_counters(self, key: BindingKey) -> dict[str, Any]:
        """What has passed a binding, by the name of each instance whose switch has it; ready for
        JSON. Raises TimeoutError."""
