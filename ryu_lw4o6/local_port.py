"""The bridge's own port, LOCAL, which owns the lwAFTR's IPv6 addresses: the kernel answers
neighbour discovery for them, and Open vSwitch ends tunnels there."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Interface

from ryu_lw4o6.core.settings import Instance
from ryu_lw4o6.softwire.commands import read


def addresses(instance: Instance) -> list[IPv6Interface]:
    """What LOCAL is to have."""
    own = instance.ipv6.address
    return [own, *(IPv6Interface(a) for a in instance.aftr_addresses if a != own.ip)]


def missing(instance: Instance) -> list[str]:
    """What LOCAL is to have and has not; all of it, if it is not there itself. Raises ShimError."""
    bridge = instance.bridge
    there = {
        IPv6Address(found["local"])
        for link in read("ip", "-j", "-6", "addr")
        if link.get("ifname") == bridge
        for found in link["addr_info"]
    }
    lost = [str(address.ip) for address in addresses(instance) if address.ip not in there]
    routes = read("ip", "-j", "-6", "route", "show", "default")
    if instance.ipv6.next_hop is not None and bridge not in {r.get("dev") for r in routes}:
        lost.append("the default route")
    return lost
