"""Filter rules as values: which packets a side lets in or out."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network


class Direction(enum.StrEnum):
    IN = "in"
    OUT = "out"


@dataclass(frozen=True, slots=True)
class PortRange:
    """``first`` to ``last``, both included."""

    first: int
    last: int

    def masks(self) -> list[tuple[int, int]]:
        """The fewest (value, mask) pairs that cover exactly these ports."""
        made = []
        at = self.first
        while at <= self.last:
            size = at & -at or 1 << 16
            while at + size - 1 > self.last:
                size >>= 1
            made.append((at, 0x10000 - size))
            at += size
        return made


@dataclass(frozen=True, slots=True)
class Rule:
    """Of a side's rules, the first that matches a packet decides. Addresses and ports are those of
    the IPv4 packet, ``lwb4`` is the other end of its softwire. None matches anything."""

    direction: Direction
    allow: bool
    source: IPv4Network | None = None
    destination: IPv4Network | None = None
    protocol: int | None = None
    source_port: PortRange | None = None
    destination_port: PortRange | None = None
    lwb4: IPv6Network | None = None
