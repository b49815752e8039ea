"""Where the IPv4 next hop is: resolved by ARP, refreshed, followed when it moves.

Pure: time is an argument, what to send is a return value.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from ipaddress import IPv4Address

from ryu_lw4o6.core import arp

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
    """A stale MAC address is still used: the next hop may forward though it does not answer."""

    own: IPv4Address
    address: IPv4Address
    mac: str | None = None
    unanswered: int = 0
    next_probe: float = 0.0

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
        """The connection or the port is new: ask again at once."""
        self.next_probe = 0.0

    def probe(self, now: float, own_mac: bytes) -> bytes | None:
        """The ARP request that is due, if one is."""
        if now < self.next_probe:
            return None
        # Ask the known MAC address first (RFC 1122 section 2.3.2.1): it disturbs nobody else.
        unicast = self.mac is not None and self.unanswered < PROBES
        to = bytes.fromhex(str(self.mac).replace(":", "")) if unicast else arp.BROADCAST
        self.unanswered += 1
        settled = self.mac is not None and self.unanswered == 1
        self.next_probe = now + (REFRESH_SECONDS if settled else RETRY_SECONDS)
        return arp.request(own_mac, self.own, self.address, to)

    def learn(self, now: float, frame: bytes) -> bool:
        """Read an ARP frame from the next hop; True if its MAC address is new."""
        packet = arp.parse(frame)
        if packet is None or packet.sender != self.address:
            return False
        mac = packet.sender_mac
        if mac[0] & 1 or not any(mac):  # group addresses and zero are nobody's
            return False
        self.unanswered = 0
        self.next_probe = now + REFRESH_SECONDS
        text = mac.hex(":")
        changed, self.mac = text != self.mac, text
        return changed
