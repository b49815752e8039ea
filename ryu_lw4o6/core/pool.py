"""Addresses and port sets that are given out: which of them are free, and which one is next.

Of each address the pool keeps the PSIDs that are taken as the bits of an integer, and of each
range the addresses that have none left, so that a free one is found in the same time whether the
pool is empty or almost full.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import accumulate

from ryu_lw4o6.core.binding import BindingKey, Prefix, PrefixIndex
from ryu_lw4o6.core.portset import PortParams

SYSTEM_PORTS = 1024  # RFC 6335 section 6
_MOST_TRIED = 256


@dataclass(frozen=True, slots=True)
class AddressRange:
    """The addresses ``first`` to ``last``, both included, all of them in ``prefix``."""

    first: IPv4Address
    last: IPv4Address
    prefix: Prefix

    def __len__(self) -> int:
        return int(self.last) - int(self.first) + 1

    def __contains__(self, ipv4: IPv4Address) -> bool:
        return self.first <= ipv4 <= self.last


@dataclass(slots=True)
class _Part:
    """A range and what is taken of it. ``reserved`` are the PSIDs that are never given out."""

    range: AddressRange
    reserved: int
    taken: dict[int, int] = field(default_factory=dict)
    full: int = 0

    @property
    def params(self) -> PortParams:
        return self.range.prefix.params

    def taken_of(self, index: int) -> int:
        return self.taken.get(index, 0) | self.reserved

    def mark(self, index: int, psid: int, *, taken: bool) -> int:
        """By how much the number of sets given out grows."""
        before = self.taken.get(index, 0)
        after = before | 1 << psid if taken else before & ~(1 << psid)
        if after:
            self.taken[index] = after
        else:
            self.taken.pop(index, None)
        everything = (1 << self.params.psid_count) - 1
        if after | self.reserved == everything:
            self.full |= 1 << index
        else:
            self.full &= ~(1 << index)
        return (after & ~self.reserved).bit_count() - (before & ~self.reserved).bit_count()


class AddressPool:
    """The ranges of one instance. Port sets that hold a system port of a shared address are not
    given out unless ``system_ports``. What is taken is told to ``mark``, by whoever changes
    bindings."""

    def __init__(self, ranges: Sequence[AddressRange], *, system_ports: bool = False) -> None:
        self._parts = [
            _Part(each, 0 if system_ports else _system_sets(each.prefix.params)) for each in ranges
        ]
        self._by_prefix: dict[Prefix, list[_Part]] = {}
        for part in self._parts:
            self._by_prefix.setdefault(part.range.prefix, []).append(part)
        self._prefixes = PrefixIndex(self._by_prefix)
        *self._starts, self._addresses = accumulate(map(len, ranges), initial=0)
        self.size = sum(
            len(part.range) * (part.params.psid_count - part.reserved.bit_count())
            for part in self._parts
        )
        """How many port sets, full addresses among them, there are to be given out."""
        self.used = 0
        """How many of them are taken."""

    def __contains__(self, key: BindingKey) -> bool:
        return self._locate(key.ipv4) is not None

    def mark(self, key: BindingKey, taken: bool) -> None:
        """An address and port set, of the pool or not, is taken, or free again."""
        found = self._locate(key.ipv4)
        if found is not None:
            part, index = found
            self.used += part.mark(index, key.psid, taken=taken)

    def find(
        self, seed: int, ipv4: IPv4Address | None = None, port: int = 0, *, strict: bool = False
    ) -> tuple[BindingKey, PortParams] | None:
        """A free address and port set: with ``ipv4``, and with ``port`` unless that is 0, if it
        can be, and if not, another one unless ``strict``; None if there is none.

        Where the search begins is a function of ``seed``, so the same seed finds the same set as
        long as it is free, and different ones seldom meet.
        """
        if not self._parts:
            return None
        wanted: Iterable[IPv4Address] = ()
        if ipv4 is not None:
            wanted = (ipv4,)
        elif port:
            wanted = self._some_addresses(seed)
        for address in wanted:
            found = self._on_address(address, seed, port)
            if found is not None:
                return found
        return None if strict and wanted else self._anywhere(seed)

    def _anywhere(self, seed: int) -> tuple[BindingKey, PortParams] | None:
        number, start = self._begin(seed)
        # The first part is looked at twice: from where the search begins, and up to there.
        for step in range(len(self._parts) + 1):
            part = self._parts[(number + step) % len(self._parts)]
            index = _first_clear(part.full, 0 if step else start, len(part.range))
            if index is not None:
                return self._pick(part, index, seed)
        return None

    def _some_addresses(self, seed: int) -> Iterator[IPv4Address]:
        """Where to look for a port when any address will do: not on all of a large pool."""
        for step in range(min(self._addresses, _MOST_TRIED)):
            number, index = self._begin(seed + step)
            yield IPv4Address(int(self._parts[number].range.first) + index)

    def _begin(self, seed: int) -> tuple[int, int]:
        """The part and the address in it where the search for a seed begins."""
        where = seed % self._addresses
        number = bisect_right(self._starts, where) - 1
        return number, where - self._starts[number]

    def _on_address(
        self, ipv4: IPv4Address, seed: int, port: int
    ) -> tuple[BindingKey, PortParams] | None:
        located = self._locate(ipv4)
        if located is None:
            return None
        part, index = located
        if port:
            psid = part.params.psid_of(port)
            if psid is None or part.taken_of(index) >> psid & 1:
                return None
            return BindingKey(ipv4, psid), part.params
        if part.full >> index & 1:
            return None
        return self._pick(part, index, seed)

    def _locate(self, ipv4: IPv4Address) -> tuple[_Part, int] | None:
        prefix = self._prefixes.find(ipv4)
        for part in self._by_prefix[prefix] if prefix is not None else ():
            if ipv4 in part.range:
                return part, int(ipv4) - int(part.range.first)
        return None

    def _pick(self, part: _Part, index: int, seed: int) -> tuple[BindingKey, PortParams]:
        """A free set of an address that has one."""
        count = part.params.psid_count
        taken = part.taken_of(index)
        psid = _first_clear(taken, seed // self._addresses % count, count)
        if psid is None:
            psid = _first_clear(taken, 0, count)
        assert psid is not None
        ipv4 = IPv4Address(int(part.range.first) + index)
        return BindingKey(ipv4, psid), part.params


def _system_sets(params: PortParams) -> int:
    """The PSIDs of a shared address whose port sets hold a system port, as bits."""
    if not params.shared or params.psid_offset > 0:
        return 0
    size = 1 << params.psid_shift
    return (1 << -(-SYSTEM_PORTS // size)) - 1


def _first_clear(bits: int, start: int, end: int) -> int | None:
    """The first number from ``start`` up to ``end``, not included, whose bit is not set."""
    above = bits >> start
    found = start + (~above & above + 1).bit_length() - 1
    return found if found < end else None
