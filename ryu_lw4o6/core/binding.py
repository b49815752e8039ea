"""Softwire bindings and the table that keeps them (RFC 7596 section 6.1).

A binding says: this lwB4 (an IPv6 address) owns this public IPv4 address, all of it or one port
set. A packet inside a softwire is right only when its outer source, inner source and port are
those of one binding; a packet from the Internet is tunnelled to the lwB4 of the binding that owns
its destination address and port.

The key of a binding is (IPv4 address, PSID). The port-set parameters belong to the IPv4 prefix and
prefixes do not overlap, so two bindings overlap exactly when their keys are equal: a table keyed
so cannot hold an overlap.
"""

from __future__ import annotations

import enum
from bisect import bisect_left, insort
from collections.abc import Callable, ItemsView, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from math import floor

from ryu_lw4o6.core.portset import PortParams


class Origin(enum.StrEnum):
    """Who made a binding, which is also who may change it."""

    STATIC = "static"  # the configuration file
    REST = "rest"  # an operator or a script, over REST
    VALIDATED = "validated"  # the supporting system, asked about a packet without a binding
    PCP = "pcp"  # the lwB4 itself, by PCP
    DHCP = "dhcp"  # a lease that the DHCP server has given through this controller's relay


class BindingKey(int):
    """What a binding is known by, its IPv4 address and PSID: no two bindings share it.

    A number of both, since hundreds of thousands of them are looked for, twenty times each when all
    come at once, and hashing an address takes longer than all the rest. Raises ValueError for what
    is no PSID.
    """

    __slots__ = ()

    def __new__(cls, ipv4: IPv4Address, psid: int) -> BindingKey:
        return cls.from_numbers(int(ipv4), psid)

    @classmethod
    def from_numbers(cls, ipv4: int, psid: int) -> BindingKey:
        if not 0 <= psid <= 0xFFFF:
            raise ValueError(f"{psid} is no PSID")
        return int.__new__(cls, ipv4 << 16 | psid)

    @property
    def ipv4(self) -> IPv4Address:
        return IPv4Address(self >> 16)

    @property
    def psid(self) -> int:
        return self & 0xFFFF

    def __str__(self) -> str:
        return f"{self.ipv4}/{self.psid}"

    def __repr__(self) -> str:
        return f"<{self}>"


def all_changed(
    first: Iterable[BindingKey] | None, then: Iterable[BindingKey] | None
) -> list[BindingKey] | None:
    """What has changed, if one was told of some keys first and of others then. None stands for
    "any of them": nobody knows which."""
    return None if first is None or then is None else [*first, *then]


@dataclass(frozen=True, slots=True)
class Binding:
    """One softwire (RFC 7596 section 6.1).

    ``br_address`` is the lwAFTR address of this softwire; None means the first AFTR address of
    whichever instance carries it (the anycast address). ``expires_at`` is Unix time in seconds,
    None for a binding that does not expire.
    """

    lwb4: IPv6Address
    ipv4: IPv4Address
    psid: int
    params: PortParams
    br_address: IPv6Address | None = None
    origin: Origin = Origin.REST
    expires_at: float | None = None

    @property
    def key(self) -> BindingKey:
        return BindingKey(self.ipv4, self.psid)

    def validated(self, expires_at: float) -> Binding:
        """The same, as an answer of the supporting system that is good until ``expires_at``."""
        # dataclasses.replace takes three times as long.
        return Binding(
            self.lwb4, self.ipv4, self.psid, self.params, self.br_address,
            Origin.VALIDATED, expires_at,
        )  # fmt: skip

    def same_softwire(self, before: Binding | None) -> bool:
        """Whether this makes the flows that the binding before it, with the same key, has made."""
        return before is not None and (self.lwb4, self.br_address) == (
            before.lwb4, before.br_address,
        )  # fmt: skip


def is_static(binding: Binding | None) -> bool:
    """Whether there is a binding that only the configuration file may change."""
    return binding is not None and binding.origin is Origin.STATIC


@dataclass(frozen=True, slots=True)
class Prefix:
    """An IPv4 prefix served by the lwAFTR and how its addresses are shared. ``leased_as`` are the
    addresses by which the DHCP server knows its port sets: see ``leases``."""

    network: IPv4Network
    params: PortParams
    leased_as: IPv4Network | None = None


class PrefixIndex:
    """Finds the prefix that holds an address, however many prefixes there are.

    Prefixes never overlap, so the order in which their lengths are tried does not matter.
    """

    def __init__(self, prefixes: Iterable[Prefix]) -> None:
        self._by_shift: dict[int, dict[int, Prefix]] = {}
        for prefix in prefixes:
            shift = 32 - prefix.network.prefixlen
            bits = int(prefix.network.network_address) >> shift
            self._by_shift.setdefault(shift, {})[bits] = prefix

    def find(self, ipv4: IPv4Address) -> Prefix | None:
        number = int(ipv4)
        for shift, by_bits in self._by_shift.items():
            prefix = by_bits.get(number >> shift)
            if prefix is not None:
                return prefix
        return None


class BindingConflict(ValueError):
    """The address and port set are bound already. ``existing`` is the binding that has them."""

    def __init__(self, existing: Binding) -> None:
        super().__init__(f"{existing.key} is already bound to lwB4 {existing.lwb4}")
        self.existing = existing


class UnknownPrefix(ValueError):
    """The IPv4 address lies in none of the configured prefixes."""


class _Ends:
    """Which bindings end when: their keys by the second in which they do. Every second somebody
    asks who is over, and a million others are not to be looked at for that."""

    def __init__(self) -> None:
        self._by_second: dict[int, dict[BindingKey, float]] = {}
        self._seconds: list[int] = []  # the same, sorted

    def add(self, key: BindingKey, end: float) -> None:
        second = floor(end)
        ending = self._by_second.get(second)
        if ending is None:
            ending = self._by_second[second] = {}
            insort(self._seconds, second)
        ending[key] = end

    def remove(self, key: BindingKey, end: float) -> None:
        second = floor(end)
        ending = self._by_second[second]
        del ending[key]
        if not ending:
            del self._by_second[second]
            del self._seconds[bisect_left(self._seconds, second)]

    def until(self, now: float) -> list[BindingKey]:
        found: list[BindingKey] = []
        for second in self._seconds:
            if second > now:
                break
            found += [key for key, end in self._by_second[second].items() if end <= now]
        return found


class BindingTable:
    """All bindings of a controller, found by key, by (IPv4 address, port) and by lwB4.

    Not for use from several threads: the controller's greenlets share it.
    """

    def __init__(self, prefixes: Iterable[Prefix]) -> None:
        self.version = 0
        """Grows with every change."""
        self._by_key: dict[BindingKey, Binding] = {}
        self._by_lwb4: dict[IPv6Address, dict[BindingKey, None]] = {}
        self._ends = _Ends()
        self._prefixes = PrefixIndex(prefixes)
        self._watchers: list[Callable[[Binding, bool], None]] = []

    def watch(self, watcher: Callable[[Binding, bool], None]) -> None:
        """Tell ``watcher`` each binding, and whether it is there: of what there is now, and
        whenever that changes."""
        self._watchers.append(watcher)
        for binding in self._by_key.values():
            watcher(binding, True)

    def prefix_of(self, ipv4: IPv4Address) -> Prefix:
        """The configured prefix that holds ``ipv4``. Raises UnknownPrefix."""
        prefix = self._prefixes.find(ipv4)
        if prefix is not None:
            return prefix
        raise UnknownPrefix(f"{ipv4} is in none of the configured IPv4 prefixes")

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Binding]:
        return iter(self._by_key.values())

    def items(self) -> ItemsView[BindingKey, Binding]:
        """Every binding with its key."""
        return self._by_key.items()

    def __contains__(self, key: BindingKey) -> bool:
        return key in self._by_key

    def get(self, key: BindingKey) -> Binding | None:
        return self._by_key.get(key)

    def by_port(self, ipv4: IPv4Address, port: int) -> Binding | None:
        """Who uses this address and port? Raises UnknownPrefix."""
        psid = self.prefix_of(ipv4).params.psid_of(port)
        return None if psid is None else self._by_key.get(BindingKey(ipv4, psid))

    def by_lwb4(self, lwb4: IPv6Address) -> list[Binding]:
        """The bindings of one lwB4, in the order they were made."""
        return [self._by_key[key] for key in self._by_lwb4.get(lwb4, ())]

    def add(self, binding: Binding) -> None:
        """Add a new binding.

        Raises BindingConflict if its address and port set are taken, UnknownPrefix if no
        configured prefix holds the address, ValueError if PSID or parameters do not fit the
        prefix.
        """
        self.check(binding)
        key = binding.key
        existing = self._by_key.get(key)
        if existing is not None:
            raise BindingConflict(existing)
        self._put(key, binding)

    def replace(self, binding: Binding) -> Binding | None:
        """Add a binding or take the place of the one with its key, which is returned.

        Raises UnknownPrefix and ValueError as ``add`` does.
        """
        self.check(binding)
        key = binding.key
        old = self.remove(key)
        self._put(key, binding)
        return old

    def expired(self, now: float) -> list[BindingKey]:
        """The keys of the bindings whose lifetime ended at or before ``now`` (Unix time)."""
        return self._ends.until(now)

    def remove(self, key: BindingKey) -> Binding | None:
        """Remove and return the binding with this key, None if there is none."""
        binding = self._by_key.pop(key, None)
        if binding is not None:
            self.version += 1
            keys = self._by_lwb4[binding.lwb4]
            del keys[key]
            if not keys:
                del self._by_lwb4[binding.lwb4]
            if binding.expires_at is not None:
                self._ends.remove(key, binding.expires_at)
            for watcher in self._watchers:
                watcher(binding, False)
        return binding

    def check(self, binding: Binding) -> None:
        """Raise UnknownPrefix or ValueError unless the binding fits a configured prefix."""
        prefix = self.prefix_of(binding.ipv4)
        if binding.params != prefix.params:
            raise ValueError(
                f"{binding.key}: PSID offset {binding.params.psid_offset} and length "
                f"{binding.params.psid_length} are not those of prefix {prefix.network} "
                f"({prefix.params.psid_offset} and {prefix.params.psid_length})"
            )
        binding.params.check_psid(binding.psid)

    def _put(self, key: BindingKey, binding: Binding) -> None:
        self.version += 1
        self._by_key[key] = binding
        self._by_lwb4.setdefault(binding.lwb4, {})[key] = None
        if binding.expires_at is not None:
            self._ends.add(key, binding.expires_at)
        for watcher in self._watchers:
            watcher(binding, True)
