"""What a configuration says of DHCP: how prefixes are leased, and an instance's relay."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields
from ipaddress import IPv4Network, IPv6Address

from ryu_lw4o6.core.binding import Prefix
from ryu_lw4o6.core.config import values
from ryu_lw4o6.core.config.document import Entry, value_of
from ryu_lw4o6.core.leases import leased_as, leased_length
from ryu_lw4o6.core.settings import DhcpRelay, Ipv6Side, Pcp


def check_leased_as(prefix: Prefix, entry: Entry) -> bool:
    """Whether a prefix can be leased as it says."""
    leased = prefix.leased_as
    length = leased_length(prefix)
    if leased is None or leased.prefixlen == length:
        return True
    many = prefix.params.psid_count * prefix.network.num_addresses
    if length < 1:
        entry.problem(
            f"{prefix.network} has {many} port sets, more than IPv4 networks have addresses",
            "Cut the prefix smaller",
        )
    else:
        entry.problem(
            f"{leased} has {leased.num_addresses} addresses, {prefix.network} has {many} port sets",
            f"Use a /{length}",
        )
    return False


def report_leased_twice(read: Sequence[tuple[Prefix, Entry]]) -> set[str]:
    """The paths of the prefixes whose leased addresses stand for those of an earlier one, too."""
    overlapping: set[str] = set()
    earlier: list[tuple[IPv4Network, Entry]] = []
    for prefix, entry in read:
        network = leased_as(prefix)
        if network is None:
            continue
        other = next((e for e in earlier if e[0].overlaps(network)), None)
        if other is None:
            earlier.append((network, entry))
            continue
        entry.problem(
            f"leased as {network}, which overlaps {other[0]} of line {other[1].line}",
            "Lease each prefix as a network of its own",
        )
        overlapping.add(entry.path)
    return overlapping


def read_dhcp(
    entry: Entry | None, ipv6: Ipv6Side | None, aftr: Collection[IPv6Address]
) -> DhcpRelay | None:
    """``aftr`` are the instance's AFTR addresses."""
    if entry is None:
        return None
    found = entry.fields([f.name for f in fields(DhcpRelay)], ("server",))
    if found is None:
        return None
    own = ipv6 and ipv6.address.ip
    server = value_of(found, "server", values.ipv6_host)
    address = value_of(found, "address", values.ipv6_host, own)
    length = value_of(found, "softwire_prefix_length", values.integer(0, 128), 64)
    relays = [i.value(values.ipv6_network) for i in _items(found.get("access_relays"))]
    if server is not None and server in (own, address, *aftr):
        found["server"].problem(f"{server} is the lwAFTR itself", "Use the server's address")
    if address is not None and address != own and address in aftr:
        found["address"].problem(
            f"{address} is an AFTR address, where another lwAFTR may get the server's answers",
            "Leave it out, to use the instance's own address",
        )
    if server is None or address is None or length is None:
        return None
    return DhcpRelay(server, address, length, tuple(r for r in relays if r is not None))


def _items(entry: Entry | None) -> list[Entry]:
    return [] if entry is None else entry.items()


def report_given_twice(entry: Entry | None, dhcp: DhcpRelay | None, pcp: Pcp | None) -> None:
    """What DHCP leases, PCP must not give out; ``entry`` is that of PCP."""
    if entry is None or dhcp is None or pcp is None:
        return
    leased = dict.fromkeys(r.prefix for r in pcp.pool if r.prefix.leased_as is not None)
    for prefix in leased:
        entry.problem(
            f"{prefix.network} is leased by DHCP, too (leased_as)",
            "Name a pool that leaves it out, or lease it by one of the two",
        )
