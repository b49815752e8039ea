"""Pages of bindings in the order of address and PSID, without sorting for every request."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address

import eventlet

from rest.service import BindingService
from ryu_lw4o6.core.binding import Binding, BindingKey

_PER_TURN = 1000
"""How many bindings are looked at before other greenlets, the switches' among them, go on."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which bindings to list; None asks for nothing."""

    ipv4: IPv4Address | None = None
    lwb4: IPv6Address | None = None
    prefix: IPv4Network | None = None
    origin: str | None = None
    state: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """``total`` counts all that are wanted, on whichever page; ``more`` tells of a next one."""

    bindings: list[Binding]
    total: int
    more: bool


class Listing:
    def __init__(self, service: BindingService) -> None:
        self._service = service
        self._version = -1
        self._keys: list[BindingKey] = []
        self._bindings: list[Binding] = []

    def page(self, wanted: Wanted, after: BindingKey | None, limit: int) -> Page:
        keys, bindings = self._candidates(wanted)
        low, high = _span(keys, wanted)
        first = low if after is None else max(low, bisect_right(keys, after))
        if wanted.origin is None and wanted.state is None:
            page = bindings[first : min(first + limit, high)]
            return Page(page, max(0, high - low), first + limit < high)
        total, page, more = 0, [], False
        for index in self._matching(bindings, low, high, wanted):
            total += 1
            if index >= first:
                if len(page) < limit:
                    page.append(bindings[index])
                else:
                    more = True
        return Page(page, total, more)

    def _candidates(self, wanted: Wanted) -> tuple[list[BindingKey], list[Binding]]:
        table = self._service.table
        if wanted.lwb4 is not None:
            return _sorted(table.by_lwb4(wanted.lwb4))
        if self._version != table.version:
            # Lists are replaced, not changed: a request that is at work on the old ones goes on.
            self._keys, self._bindings = _sorted(list(table))
            self._version = table.version
        return self._keys, self._bindings

    def _matching(
        self, bindings: list[Binding], low: int, high: int, wanted: Wanted
    ) -> Iterator[int]:
        applied = self._service.applied
        for index in range(low, high):
            if (index - low) % _PER_TURN == _PER_TURN - 1:
                eventlet.sleep(0)
            binding = bindings[index]
            if wanted.origin is not None and binding.origin != wanted.origin:
                continue
            if wanted.state is None or any(
                one.state == wanted.state for one in applied(binding.key).values()
            ):
                yield index


def _sorted(bindings: list[Binding]) -> tuple[list[BindingKey], list[Binding]]:
    by_key = {binding.key: binding for binding in bindings}
    keys = sorted(by_key)
    return keys, [by_key[key] for key in keys]


def _span(keys: list[BindingKey], wanted: Wanted) -> tuple[int, int]:
    low, high = 0, len(keys)
    ranges = [wanted.prefix] if wanted.prefix is not None else []
    if wanted.ipv4 is not None:
        ranges.append(IPv4Network(wanted.ipv4))
    for network in ranges:
        low = max(low, bisect_left(keys, BindingKey(network.network_address, 0)))
        high = min(high, bisect_right(keys, BindingKey(network.broadcast_address, 0xFFFF)))
    return low, max(low, high)
