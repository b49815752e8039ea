"""Port sets that were given back a moment ago: what is still on its way to the old lwB4 must not
reach a new one (RFC 6887 section 15, RFC 6888 REQ-8)."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address
from typing import NamedTuple

from ryu_lw4o6.core.binding import Binding, BindingKey, Origin
from ryu_lw4o6.core.pool import AddressPool

SECONDS = 120.0
MOST = 0x10000
"""So many rest at once; of more, the oldest are given out again."""


class _Rest(NamedTuple):
    lwb4: IPv6Address
    until: float


class Resting:
    """Keeps what PCP gave out taken in ``pool`` for a while, but for the lwB4 that had it. Is told
    of bindings that come and go. ``clock`` tells seconds, and never goes back."""

    def __init__(self, pool: AddressPool, clock: Callable[[], float]) -> None:
        self._pool = pool
        self._clock = clock
        self._rests: dict[BindingKey, _Rest] = {}  # oldest first
        self._by_lwb4: dict[IPv6Address, BindingKey] = {}

    def __len__(self) -> int:
        return len(self._rests)

    def changed(self, binding: Binding, bound: bool) -> None:
        key = binding.key
        if key in self._rests:
            self._forget(key)
        if bound or binding.origin is not Origin.PCP or key not in self._pool:
            self._pool.mark(key, bound)
            return
        self._rests[key] = _Rest(binding.lwb4, self._clock() + SECONDS)
        self._by_lwb4[binding.lwb4] = key
        if len(self._rests) > MOST:
            self._give_out(next(iter(self._rests)))

    def make_room(self, lwb4: IPv6Address) -> None:
        """Give out what has rested long enough, what was this lwB4's own, and, if nothing else is
        left, what has rested longest."""
        now, own = self._clock(), self._by_lwb4.get(lwb4)
        if own is not None:
            self._give_out(own)
        while self._rests:
            oldest = next(iter(self._rests))
            if self._rests[oldest].until > now and self._pool.used < self._pool.size:
                break
            self._give_out(oldest)

    def _give_out(self, key: BindingKey) -> None:
        self._forget(key)
        self._pool.mark(key, False)

    def _forget(self, key: BindingKey) -> None:
        lwb4 = self._rests.pop(key).lwb4
        if self._by_lwb4.get(lwb4) == key:
            del self._by_lwb4[lwb4]
