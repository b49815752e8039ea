"""Where a next hop is: resolved by ARP or neighbour discovery, refreshed, followed when it moves.

Pure: time is an argument, what to send is a return value.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ryu_lw4o6.core.ethernet import mac_bytes

RETRY_SECONDS = 1.0
REFRESH_SECONDS = 30.0
PROBES = 3
"""How many unanswered probes make a known MAC address stale."""


class NextHopState(enum.StrEnum):
    UNRESOLVED = "unresolved"
    REACHABLE = "reachable"
    STALE = "stale"


@dataclass(slots=True)
class NextHop:
    """``protocol`` is the module ``arp`` or ``nd``. A stale MAC address is still used: the next
    hop may forward though it does not answer. ``refresh`` is how often it is asked while it
    answers, in seconds."""

    protocol: ModuleType
    own: Any
    address: Any
    mac: str | None = None
    unanswered: int = 0
    answered: bool = False
    """Whether it has answered since the last reset."""
    next_probe: float = 0.0
    refresh: float = REFRESH_SECONDS

    @property
    def state(self) -> NextHopState:
        if self.mac is None:
            return NextHopState.UNRESOLVED
        return NextHopState.STALE if self.unanswered > PROBES else NextHopState.REACHABLE

    def adopt(self, mac: str) -> None:
        """Take over what the switch's own flows say, if nothing better is known."""
        if self.mac is None:
            self.mac = mac

    def reset(self) -> None:
        """The connection or the link is new: ask again at once, until there is an answer."""
        self.next_probe = 0.0
        self.answered = False

    def probe(self, now: float, own_mac: bytes) -> bytes | None:
        """The request that is due, if one is."""
        if now < self.next_probe:
            return None
        # Ask the known MAC address first (RFC 1122 section 2.3.2.1): it disturbs nobody else. A
        # new link may lead to another one.
        asked_alone = self.mac and self.answered and self.unanswered < PROBES
        known = mac_bytes(self.mac) if asked_alone else None
        self.unanswered += 1
        settled = self.answered and self.unanswered == 1
        self.next_probe = now + (self.refresh if settled else RETRY_SECONDS)
        request: bytes = self.protocol.solicit(own_mac, self.own, self.address, known)
        return request

    def learn(self, now: float, frame: bytes) -> bool:
        """Read a frame from the next hop; True if its MAC address is new."""
        found: tuple[Any, bytes] | None = self.protocol.sender(frame)
        if found is None or found[0] != self.address:
            return False
        self.unanswered = 0
        self.answered = True
        self.next_probe = now + self.refresh
        mac = found[1].hex(":")
        changed, self.mac = mac != self.mac, mac
        return changed

    def status(self) -> dict[str, Any]:
        """For JSON."""
        return {"address": str(self.address), "mac": self.mac, "state": str(self.state)}
