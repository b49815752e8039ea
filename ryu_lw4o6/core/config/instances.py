"""The ``prefixes`` and ``instances`` of a configuration."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Address
from typing import Any

from ryu_lw4o6.core.binding import Prefix
from ryu_lw4o6.core.config import values
from ryu_lw4o6.core.config.dhcp import (
    check_leased_as,
    read_dhcp,
    report_given_twice,
    report_leased_twice,
)
from ryu_lw4o6.core.config.document import Entry, value_of
from ryu_lw4o6.core.config.filters import read_filters
from ryu_lw4o6.core.config.pcp import read_pcp
from ryu_lw4o6.core.config.problems import Bad
from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.core.settings import (
    DEFAULT_ASKED_RATE,
    DEFAULT_BRIDGE,
    DEFAULT_MTU,
    DEFAULT_SOFTWIRE_PORT,
    DEFAULT_UNKNOWN_RATE,
    Announce,
    Datapath,
    Dscp,
    Failover,
    FlowLabel,
    IcmpPolicy,
    Instance,
    Ipv4Side,
    Ipv6Side,
    Peer,
    br_tag,
)

_MIN_IPV6_MTU = 1280  # RFC 8200 section 5
_MIN_IPV4_MTU = 576  # what every IPv4 host takes (RFC 791)
_MAX_MTU = 65535
_MAX_RATE = 1_000_000


@dataclass(slots=True)
class Prefixes:
    """``complete`` is whether all of them are right: if not, nobody can say what lies outside."""

    prefixes: list[Prefix] = field(default_factory=list)
    complete: bool = False


def read_prefixes(entry: Entry | None) -> Prefixes:
    if entry is None:
        return Prefixes()
    before = len(entry.problems)
    read: list[tuple[Prefix, Entry]] = []
    for item in entry.items():
        found = item.fields(("prefix", "psid_offset", "psid_length", "leased_as"), ("prefix",))
        if found is None:
            continue
        network = value_of(found, "prefix", values.ipv4_network)
        offset = value_of(found, "psid_offset", values.integer(0, 15), 0)
        length = value_of(found, "psid_length", values.integer(0, 16), 0)
        if offset is None or length is None:
            continue
        try:
            params = PortParams(offset, length)
        except ValueError as error:
            item.problem(str(error), "Lower one of them")
            continue
        leased = value_of(found, "leased_as", values.ipv4_network)
        if network is not None:
            prefix = Prefix(network, params, leased)
            if check_leased_as(prefix, found.get("leased_as", item)):
                read.append((prefix, found["prefix"]))
    overlapping = _report_overlaps(read)
    overlapping |= report_leased_twice([(p, e) for p, e in read if e.path not in overlapping])
    prefixes = [prefix for prefix, at in read if at.path not in overlapping]
    return Prefixes(prefixes, len(entry.problems) == before)


def _report_overlaps(read: list[tuple[Prefix, Entry]]) -> set[str]:
    """The paths of the prefixes that overlap one that stands before them in the file."""
    overlapping = set()
    outer: tuple[IPv4Network, Entry] | None = None
    # Of two prefixes that overlap, one holds the other: in this order, it comes just before.
    for network, entry in sorted(
        ((prefix.network, entry) for prefix, entry in read), key=lambda pair: pair[0]
    ):
        if outer is None or not network.overlaps(outer[0]):
            outer = (network, entry)
            continue
        first, second = sorted((outer, (network, entry)), key=lambda pair: pair[1].line)
        second[1].problem(
            f"{second[0]} overlaps {first[0]} (line {first[1].line})",
            "Cut one of them smaller, or remove it",
        )
        overlapping.add(second[1].path)
    return overlapping


@dataclass(slots=True)
class Instances:
    """``complete`` is whether all of them are right; ``aftr_known`` whether at least all AFTR
    addresses are. ``own`` are the addresses that lwAFTRs have, AFTR addresses among them."""

    instances: list[Instance] = field(default_factory=list)
    complete: bool = False
    aftr: set[IPv6Address] = field(default_factory=set)
    aftr_known: bool = False
    own: set[IPv6Address] = field(default_factory=set)


def read_instances(entry: Entry | None, prefixes: Prefixes) -> Instances:
    result = Instances()
    if entry is None:
        return result
    before = len(entry.problems)
    items = entry.items()
    result.aftr_known = bool(items)
    names: dict[Hashable, Entry] = {}
    datapath_ids: dict[Hashable, Entry] = {}
    for item in items:
        found = item.fields(
            [f.name for f in fields(Instance) if f.init],
            ("name", "datapath_id", "aftr_addresses", "ipv6", "ipv4"),
        )
        if found is None:
            result.aftr_known = False
            continue
        start = len(entry.problems)
        instance = _read_instance(item, found, prefixes, result)
        for key, taken in (("name", names), ("datapath_id", datapath_ids)):
            if key in found:
                found[key].claim(taken, instance[key], "Give each instance its own")
        if len(entry.problems) == start:
            result.instances.append(Instance(**instance))
    result.complete = len(entry.problems) == before
    return result


def _read_instance(
    entry: Entry, found: Mapping[str, Entry], prefixes: Prefixes, result: Instances
) -> dict[str, Any]:
    """The fields of an instance, right if no problem was reported; adds its addresses to
    ``result``."""
    ports: dict[Hashable, Entry] = {}
    aftr = _read_aftr_addresses(found.get("aftr_addresses"), result)
    ipv6 = _read_ipv6(found.get("ipv6"), ports)
    if ipv6 is not None:
        result.own.add(ipv6.address.ip)
    nic = next((str(name) for name in ports), None)  # the IPv6 side's, even if that has mistakes
    ipv4 = _read_ipv4(found.get("ipv4"), ports, nic, prefixes.prefixes)
    served = _read_served(found.get("prefixes"), prefixes)
    pcp = read_pcp(found.get("pcp"), served, complete=prefixes.complete)
    dhcp = read_dhcp(found.get("dhcp"), ipv6, aftr)
    report_given_twice(found.get("pcp"), dhcp, pcp)
    failover = value_of(found, "failover", values.failover, Failover.ICMPV6)
    validates = isinstance(failover, Failover) and failover.validates
    return {
        "name": value_of(found, "name", values.name),
        "datapath_id": value_of(found, "datapath_id", values.datapath_id),
        "ipv6": ipv6,
        "ipv4": ipv4,
        "aftr_addresses": aftr,
        "prefixes": served,
        "bridge": _read_port(entry, found, "bridge", DEFAULT_BRIDGE, ports),
        "softwire_port": _read_port(entry, found, "softwire_port", DEFAULT_SOFTWIRE_PORT, ports),
        "datapath": value_of(found, "datapath", values.datapath, Datapath.USERSPACE),
        "hairpinning": value_of(found, "hairpinning", values.boolean, True),
        "failover": failover,
        "unknown_rate": value_of(
            found,
            "unknown_rate",
            values.integer(1, _MAX_RATE),
            DEFAULT_ASKED_RATE if validates else DEFAULT_UNKNOWN_RATE,
        ),
        "icmp": _read_icmp(found.get("icmp")),
        "announce": _read_announce(found.get("announce"), ipv4),
        "pcp": pcp,
        "dhcp": dhcp,
    }


def _read_aftr_addresses(entry: Entry | None, result: Instances) -> tuple[IPv6Address, ...]:
    if entry is None:
        result.aftr_known = False
        return ()
    before = len(entry.problems)
    addresses: dict[Hashable, Entry] = {}
    tags: dict[int, IPv6Address] = {}
    for item in entry.items():
        address = item.value(values.ipv6_host)
        if address is None:
            continue
        other = tags.setdefault(br_tag(address), address)
        if other != address:
            item.problem(
                f"{address} has the same CRC-32 as {other}: the softwire port could not tell "
                "them apart",
                "Use another address",
            )
        item.claim(addresses, address, "Remove one of them")
        result.aftr.add(address)
        result.own.add(address)
    if len(entry.problems) > before:
        result.aftr_known = False
    return tuple(tags.values())


def _read_port(
    entry: Entry,
    found: Mapping[str, Entry],
    key: str,
    default: str | None,
    ports: dict[Hashable, Entry],
    *,
    shared: str | None = None,
) -> str | None:
    """The name of a port, which no other port of the bridge has but ``shared``."""
    name: str | None = value_of(found, key, values.interface_name, default)
    at = found.get(key) or entry.at(key)
    if name is None or name != shared:
        at.claim(ports, name, "NICs, the softwire port and the bridge have names of their own")
    return name


def _read_ipv6(entry: Entry | None, ports: dict[Hashable, Entry]) -> Ipv6Side | None:
    if entry is None:
        return None
    found = entry.fields([f.name for f in fields(Ipv6Side)], ("port", "address"))
    if found is None:
        return None
    port = _read_port(entry, found, "port", None, ports)
    address = value_of(found, "address", values.ipv6_interface)
    next_hop = value_of(found, "next_hop", values.ipv6_next_hop)
    mtu = value_of(found, "mtu", values.integer(_MIN_IPV6_MTU, _MAX_MTU), DEFAULT_MTU)
    if next_hop and address:
        if not (next_hop.is_link_local or next_hop in address.network):
            found["next_hop"].problem(
                f"{next_hop} is not in {address.network}",
                "Use a link-local address or one of that subnet",
            )
        elif next_hop == address.ip:
            found["next_hop"].problem(
                f"{next_hop} is the lwAFTR itself", "Use the router's address"
            )
    vlan = value_of(found, "vlan", values.integer(1, 4094))
    hop_limit = value_of(found, "hop_limit", values.integer(1, 255), 255)
    label = value_of(found, "flow_label", values.choice(*FlowLabel), FlowLabel.ZERO)
    dscp = value_of(found, "dscp", values.choice(*Dscp), Dscp.INNER)
    filters = read_filters(found.get("filters"), softwires=True)
    if not (port and address and mtu and hop_limit and label and dscp):
        return None
    return Ipv6Side(
        port, address, next_hop, mtu, vlan, hop_limit, FlowLabel(label), Dscp(dscp), filters
    )  # fmt: skip


def _read_ipv4(
    entry: Entry | None,
    ports: dict[Hashable, Entry],
    ipv6: str | None,
    prefixes: Sequence[Prefix],
) -> Ipv4Side | None:
    """``ipv6`` is the IPv6 side's NIC, which may serve this side, too."""
    if entry is None:
        return None
    found = entry.fields([f.name for f in fields(Ipv4Side)], ("port", "address", "next_hop"))
    if found is None:
        return None
    port = _read_port(entry, found, "port", None, ports, shared=ipv6)
    address = value_of(found, "address", values.ipv4_interface)
    next_hop = value_of(found, "next_hop", values.ipv4_host)
    mtu = value_of(found, "mtu", values.integer(_MIN_IPV4_MTU, _MAX_MTU), DEFAULT_MTU)
    if address and next_hop:
        try:
            values.check_in_subnet(next_hop, address)
        except Bad as bad:
            found["next_hop"].problem(bad.reason, bad.suggestion)
        if next_hop == address.ip:
            found["next_hop"].problem(
                f"{next_hop} is the lwAFTR itself", "Use the router's address"
            )
    for key, value in (("address", address and address.ip), ("next_hop", next_hop)):
        for prefix in prefixes:
            if value and value in prefix.network:
                found[key].problem(
                    f"{value} lies in {prefix.network}, whose addresses belong to lwB4s",
                    "Take another address, or shrink the prefix",
                )
    vlan = value_of(found, "vlan", values.integer(1, 4094))
    filters = read_filters(found.get("filters"), softwires=False)
    if not (port and address and next_hop and mtu):
        return None
    return Ipv4Side(port, address, next_hop, mtu, vlan, filters)


def _read_icmp(entry: Entry | None) -> IcmpPolicy:
    default = IcmpPolicy()
    found = entry.fields([f.name for f in fields(IcmpPolicy)]) if entry else None
    if not found:
        return default
    rate = value_of(found, "rate", values.integer(1, _MAX_RATE), default.rate)
    switches = {
        f.name: value_of(found, f.name, values.boolean, getattr(default, f.name))
        for f in fields(IcmpPolicy)
        if f.name != "rate"
    }
    return IcmpPolicy(rate=rate, **switches)


def _read_announce(entry: Entry | None, ipv4: Ipv4Side | None) -> Announce | None:
    if entry is None:
        return None
    known = ("local_as", "router_id", "peers", "local_preference", "med", "without_controller")
    found = entry.fields(known, ("local_as", "peers"))
    if found is None:
        return None
    asn = values.integer(1, 0xFFFFFFFF - 1)
    local_as = value_of(found, "local_as", asn)
    router_id = value_of(found, "router_id", values.ipv4_host, ipv4 and ipv4.address.ip)
    peers: list[Peer] = []
    taken: dict[Hashable, Entry] = {}
    for item in found["peers"].items() if "peers" in found else ():
        peer = item.fields(("address", "local_address", "as"), ("address", "local_address", "as"))
        if peer is None:
            continue
        address = value_of(peer, "address", values.host)
        local_address = value_of(peer, "local_address", values.host)
        peer_as = value_of(peer, "as", asn)
        if not (address and local_address and peer_as):
            continue
        if address.version != local_address.version:
            item.problem(
                f"{address} and {local_address} are of different families", "Use two of one"
            )
        peer["address"].claim(taken, address, "List each neighbour once")
        peers.append(Peer(address, local_address, peer_as))
    whole = values.integer(0, 0xFFFFFFFF)
    preference = value_of(found, "local_preference", whole, 100)
    med = value_of(found, "med", whole, 0)
    keep = value_of(found, "without_controller", values.choice("withdraw", "keep"), "withdraw")
    if not (local_as and router_id and peers):
        return None
    return Announce(local_as, router_id, tuple(peers), preference, med, keep == "keep")


def _read_served(entry: Entry | None, prefixes: Prefixes) -> tuple[Prefix, ...]:
    if entry is None:
        return tuple(prefixes.prefixes)
    by_network = {prefix.network: prefix for prefix in prefixes.prefixes}
    served: dict[Hashable, Entry] = {}
    for item in entry.items():
        network = item.value(values.ipv4_network)
        if network is None:
            continue
        if network in by_network:
            item.claim(served, by_network[network], "Remove one of them")
        elif prefixes.complete:
            item.problem(
                f"{network} is not among the top-level prefixes",
                "List it under prefixes, with its PSID parameters",
            )
    return tuple(prefix for prefix in prefixes.prefixes if prefix in served)
