"""Port sets: which ports of a shared IPv4 address belong to one lwB4 (RFC 7597 section 5.1).

A 16-bit port is read as three fields::

     0                   1
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5
    +-----------+-----------+-------+
    |     A     |   PSID    |   j   |
    |  a bits   |  k bits   | m bits|      a + k + m = 16
    +-----------+-----------+-------+

``a`` is the PSID offset, ``k`` the PSID length. Every address in a prefix is cut by the same ``a``
and ``k``; the PSID names one of the 2^k port sets. With a > 0 the ports whose A field is zero
(0 .. 2^(16-a)-1, the system ports among them) belong to nobody. k = 0 is a full address: one
lwB4 owns every port.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PortParams:
    """How the addresses of one IPv4 prefix are cut into port sets (RFC 7597 section 5.1).

    ``psid_offset`` is a and ``psid_length`` is k, both in bits. Raises ValueError when they do
    not fit into 16 bits.
    """

    psid_offset: int = 0
    psid_length: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.psid_offset <= 15:
            raise ValueError(f"PSID offset {self.psid_offset} is not in 0..15")
        if not 0 <= self.psid_length <= 16:
            raise ValueError(f"PSID length {self.psid_length} is not in 0..16")
        if self.psid_offset + self.psid_length > 16:
            raise ValueError(
                f"PSID offset {self.psid_offset} + PSID length {self.psid_length} exceeds 16 bits"
            )

    @property
    def shared(self) -> bool:
        """Whether an address is shared by several lwB4s (k > 0)."""
        return self.psid_length > 0

    @property
    def psid_shift(self) -> int:
        """m: how many low bits of a port lie below its PSID."""
        return 16 - self.psid_offset - self.psid_length

    @property
    def psid_count(self) -> int:
        """How many port sets an address has."""
        return 1 << self.psid_length

    @property
    def excluded_ports(self) -> range:
        """The ports that belong to nobody: A = 0 when a > 0, none for a full address."""
        if not self.shared or self.psid_offset == 0:
            return range(0)
        return range(1 << (16 - self.psid_offset))

    def psid_of(self, port: int) -> int | None:
        """The PSID whose port set holds ``port``, or None for an excluded port."""
        if port in self.excluded_ports:
            return None
        return (port >> self.psid_shift) & (self.psid_count - 1)

    def check_psid(self, psid: int) -> None:
        """Raise ValueError unless ``psid`` is one of this address's port sets."""
        if not 0 <= psid < self.psid_count:
            what = (
                f"a PSID of length {self.psid_length} is in 0..{self.psid_count - 1}"
                if self.shared
                else "a full address (PSID length 0) has PSID 0 only"
            )
            raise ValueError(f"PSID {psid} is out of range: {what}")

    def port_ranges(self, psid: int) -> Iterator[range]:
        """The contiguous port ranges of one port set, in ascending order."""
        self.check_psid(psid)
        if not self.shared:
            yield range(0x10000)
            return
        size = 1 << self.psid_shift
        for a_field in range(1 if self.psid_offset else 0, 1 << self.psid_offset):
            first = (a_field << (16 - self.psid_offset)) | (psid << self.psid_shift)
            yield range(first, first + size)

    def port_count(self) -> int:
        """How many ports each port set has."""
        if not self.shared:
            return 0x10000
        a_fields = (1 << self.psid_offset) - (1 if self.psid_offset else 0)
        return a_fields << self.psid_shift


FULL_ADDRESS = PortParams(0, 0)
