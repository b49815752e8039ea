"""What an lwB4 was given: a public IPv4 address and the ports of it that are its own."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from ryu_lw4o6.core.portset import FULL_ADDRESS, PortParams


@dataclass(frozen=True, slots=True)
class Lease:
    """``ports`` are contiguous ranges in ascending order; one of all
    65,536 for an address that is not shared."""

    ipv4: IPv4Address
    ports: tuple[range, ...]

    @classmethod
    def of(cls, ipv4: IPv4Address, params: PortParams = FULL_ADDRESS, psid: int = 0) -> Lease:
        """An address and a PSID. Raises ValueError for a PSID that does not fit ``params``."""
        return cls(ipv4, tuple(params.port_ranges(psid)))

    @property
    def shared(self) -> bool:
        """Whether others have ports of the same address."""
        return self.ports != (range(0x10000),)

    def owns(self, port: int) -> bool:
        return any(port in ports for ports in self.ports)

    def __str__(self) -> str:
        if not self.shared:
            return str(self.ipv4)
        shown = [f"{ports[0]}-{ports[-1]}" for ports in self.ports[:3]]
        return f"{self.ipv4}:{','.join(shown)}{',...' if len(self.ports) > 3 else ''}"
