"""How the lab's lwB4s come to their addresses, in the words of lwAFTRs' configuration files."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface

from ryu_lw4o6.core.portset import PortParams

KEA = "kea"
"""The node of the DHCP server."""
KEA_ADDRESS = IPv6Interface("2001:db8:e::67/64")
KEA_ROUTER = IPv6Interface("2001:db8:e::fe/64")
KEA_IDENTIFIER = IPv4Interface("198.51.101.67/32")
"""Any IPv4 address: what the server goes by in DHCPv4 messages."""
LEASE_SECONDS = 600
_LEASED = IPv4Network("10.64.0.0/16")
"""What Kea leases in the place of port sets; nobody ever sees it."""


class Provisioning(enum.StrEnum):
    """Who tells a lwB4 its address and port set."""

    STATIC = "static"  # nobody: both ends are configured
    PCP = "pcp"  # the lwAFTR
    DHCP = "dhcp"  # Kea, by DHCPv4 over DHCPv6

    def params(self, static: PortParams) -> PortParams:
        """How shared addresses are cut. PCP has contiguous port sets only (RFC 7753)."""
        return PortParams(0, static.psid_length) if self is Provisioning.PCP else static

    def prefixes(self, pools: Iterable[tuple[IPv4Network, PortParams]]) -> str:
        """The public addresses."""
        lines = "prefixes:\n"
        for network, params in pools:
            cut = self.params(params) if params.shared else params
            lines += (
                f"  - {{prefix: {network}, psid_offset: {cut.psid_offset}, "
                f"psid_length: {cut.psid_length}{self._leased_as(network, params)}}}\n"
            )
        return lines

    def _leased_as(self, network: IPv4Network, params: PortParams) -> str:
        if self is not Provisioning.DHCP or not params.shared:
            return ""
        # Pools differ in their last octet: so do the networks they are leased as.
        first = int(_LEASED[0]) + (int(network[0]) % 256 << params.psid_length)
        leased = IPv4Network((first, network.prefixlen - params.psid_length))
        return f", leased_as: {leased}"

    def instance(self, pool: IPv4Network) -> str:
        """What an lwAFTR has for it; ``pool`` is its prefix of shared addresses."""
        match self:
            case Provisioning.PCP:
                return f"    pcp: {{pool: [{pool}]}}\n"
            case Provisioning.DHCP:
                return f"    dhcp: {{server: '{KEA_ADDRESS.ip}'}}\n"
            case _:
                return ""


def kea_socket(directory: str) -> str:
    """Where kea-dhcp4 of the lab in ``directory`` takes commands; the same file in every node."""
    return f"{directory}/{KEA}/kea4-ctrl-socket"
