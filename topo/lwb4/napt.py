"""NAPT44 into a port set, as nftables rulesets."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import NamedTuple

from topo.lwb4.lease import Lease

TABLE = "napt44"
SOFTWIRE = "softwire"
"""The interface of the lwB4's translator that leads to its tunnel."""


class Forward(NamedTuple):
    """A host of the LAN and its TCP port that is reached on the lease's last port."""

    host: IPv4Address
    port: int


def ruleset(lease: Lease | None, forward: Forward | None = None) -> str:
    """All that leaves by the softwire has the lease's address and one of its ports, in the case of
    ICMP its identifiers (RFC 7596 section 5.1). Without a lease nothing leaves, and hosts are told.

    The ruleset replaces the one before in one transaction; what is translated already goes on.
    """
    chains = _closed() if lease is None else _open(lease, forward)
    return f"table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n{chains}}}\n"


def _closed() -> str:
    return (
        " chain closed {\n  type filter hook forward priority filter;\n"
        f'  oifname "{SOFTWIRE}" reject with icmp net-unreachable\n }}\n'
    )


def _open(lease: Lease, forward: Forward | None) -> str:
    chains = (
        " chain translate {\n  type nat hook postrouting priority srcnat;\n"
        f'  oifname "{SOFTWIRE}" {_translation(lease)}\n }}\n'
        # What has no port (and is not the address's only user's), and what conntrack calls
        # invalid, would leave untranslated.
        " chain strict {\n  type filter hook postrouting priority srcnat + 1;\n"
        f'  oifname "{SOFTWIRE}" ip saddr != {lease.ipv4} drop\n }}\n'
    )
    if forward is not None:
        chains += (
            " chain forward {\n  type nat hook prerouting priority dstnat;\n"
            f'  iifname "{SOFTWIRE}" ip daddr {lease.ipv4} tcp dport {lease.ports[-1][-1]} '
            f"dnat to {forward.host}:{forward.port}\n }}\n"
        )
    return chains


def _translation(lease: Lease) -> str:
    if not lease.shared:
        return f"snat to {lease.ipv4}"
    # A map with a range of ports as its value would use the first port of each range only; with
    # address and range it uses them all.
    ranges = ", ".join(
        f"{number} : {lease.ipv4} . {ports[0]}-{ports[-1]}"
        for number, ports in enumerate(lease.ports)
    )
    return (
        "meta l4proto { tcp, udp, icmp } snat ip to "
        f"numgen inc mod {len(lease.ports)} map {{ {ranges} }}"
    )
