"""What every change of bindings goes through: the table, the store, the switches, the events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import eventlet.tpool
from eventlet.semaphore import Semaphore

from ryu_lw4o6.core.binding import Binding, BindingKey, BindingTable
from ryu_lw4o6.core.times import rfc3339
from ryu_lw4o6.events import Events
from ryu_lw4o6.store import OutcomeUnknown, Store, StoreError, StoreUnavailable, Unconfirmed

LOG = logging.getLogger(__name__)

T = TypeVar("T")

AGAIN_SECONDS = 1.0
"""After which a store that was away is tried again."""


@dataclass(frozen=True)
class Ledger:
    """``touch`` is told the keys whose flows are to follow.

    Changes are checked against the table, stored, then put into the table; the store may make a
    greenlet wait, so they go one at a time: who has ``changing``. Only the supporting system's do
    not wait for it, and may have come between.
    """

    table: BindingTable
    store: Store
    events: Events
    touch: Callable[[Collection[BindingKey]], None]
    changing: Semaphore = field(default_factory=Semaphore)

    def created(self, bindings: Iterable[Binding]) -> None:
        """Tell of these bindings, which are new."""
        self.events.add_all("binding-created", (_details(binding) for binding in bindings))

    def deleted(self, bindings: Iterable[Binding], reason: str) -> None:
        """Tell of these bindings, which are gone."""
        self.events.add_all("binding-deleted", (_whose(b) | {"reason": reason} for b in bindings))

    def expired(self, bindings: Iterable[Binding]) -> None:
        """Tell of these bindings, whose lifetime is over."""
        self.events.add_all("binding-expired", map(_whose, bindings))


class Outage:
    """The store is away, which is logged once for each reason, and then that it is back. ``what``
    waits for it."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._reason: str | None = None

    def goes_on(self, error: Exception) -> None:
        if str(error) != self._reason:
            LOG.error("%s until the store is back: %s", self._what, error)
        self._reason = str(error)

    def is_over(self) -> None:
        if self._reason is not None:
            LOG.info("the store is back")
        self._reason = None


def in_store(work: Callable[..., T], *arguments: Any) -> T:
    """Let a thread work on the store. Raises StoreUnavailable, which is OutcomeUnknown if the store
    may have done it."""
    try:
        result: T = eventlet.tpool.execute(work, *arguments)
    except Unconfirmed as error:
        raise OutcomeUnknown(str(error)) from error
    except StoreError as error:
        raise StoreUnavailable(str(error)) from error
    return result


def _whose(binding: Binding) -> dict[str, Any]:
    return {"binding": binding.key, "lwb4": binding.lwb4}


def _details(binding: Binding) -> dict[str, Any]:
    end = binding.expires_at
    return _whose(binding) | {
        "br_address": binding.br_address, "origin": binding.origin,
        "expires_at": None if end is None else rfc3339(end, "seconds"),
    }  # fmt: skip
