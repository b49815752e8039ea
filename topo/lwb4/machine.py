"""What the clients of provisioning protocols have in common: each is a state machine without
sockets or clock, ``step(state, event, now, random) -> (state, actions)``.

``now`` is in seconds of a clock that never goes back; ``random`` gives numbers from 0 up to 1, for
the jitter the RFCs ask for. A state says when it wants to be woken, by a ``Timer`` event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any, TypeAlias

from topo.lwb4.lease import Lease

Random: TypeAlias = Callable[[], float]

# --- events ---


@dataclass(frozen=True, slots=True)
class Start:
    """Provisioning begins, or begins anew because the lwAFTR has no binding for the lwB4."""


@dataclass(frozen=True, slots=True)
class Timer:
    """The time a state wanted to be woken at has come. Harmless when it has not."""


@dataclass(frozen=True, slots=True)
class Received:
    """A datagram from the server; that it is from its address and port has been checked."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Stop:
    """A clean end: what was leased is given back."""


Event: TypeAlias = Start | Timer | Received | Stop

# --- actions ---


@dataclass(frozen=True, slots=True)
class Send:
    """A datagram to the server; to ``server``, where the protocol learns of several."""

    payload: bytes
    server: IPv6Address | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """The lease is granted, anew or again, for so many seconds from now."""

    lease: Lease
    seconds: float


@dataclass(frozen=True, slots=True)
class Lost:
    """There is no lease any more."""

    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something for the log: the name of what happened, and details."""

    event: str
    details: dict[str, Any] = field(default_factory=dict)


Action: TypeAlias = Send | Bound | Lost | Note
