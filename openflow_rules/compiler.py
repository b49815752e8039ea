"""From an instance's configuration to its flows. Pure: the same arguments give the same flows.

``pipeline`` gives what every packet passes, some dozens of flows; ``UPSTREAM_BINDING_FLOW`` and
``downstream_binding_flow`` the shape of the two flows that each binding adds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from openflow_rules.flow import (
    Action,
    DecTtl,
    Flow,
    Learn,
    Load,
    Match,
    Move,
    Output,
    Resubmit,
    SetField,
    ToController,
    Var,
)
from openflow_rules.tables import (
    SEEN_SECONDS,
    CookieClass,
    Count,
    Drop,
    Mark,
    Priority,
    Punt,
    Register,
    Seen,
    Table,
    binding_cookie,
    check,
    cookie,
)
from ryu_lw4o6.core.binding import Binding, Prefix
from ryu_lw4o6.core.settings import Failover, Instance, br_tag

ETH_IPV4 = 0x0800
ETH_ARP = 0x0806
ETH_IPV6 = 0x86DD
ICMP = 1
TCP = 6
UDP = 17
ICMPV6 = 58
ND_ADVERTISEMENT = 136
ARP_REQUEST = 1
ARP_REPLY = 2
FRAG_LATER = 3  # nw_frag: bit 0 a fragment, bit 1 not the first
LOCAL_PORT = 0xFFFFFFFE
IN_PORT = 0xFFFFFFF8
QUOTE_LENGTH = 576
"""How much of a packet the controller is shown: what an ICMPv4 error may quote (RFC 1812
section 4.3.2.3) fits into it."""

LINK_LOCAL = IPv6Network("fe80::/10")
MULTICAST = IPv6Network("ff00::/8")


@dataclass(frozen=True, slots=True)
class Ports:
    """The switch's numbers for an instance's ports, and the MAC addresses of two of them."""

    ipv6: int
    ipv4: int
    softwire: int
    ipv4_mac: str
    local_mac: str


def pipeline(instance: Instance, ports: Ports, next_hop_mac: str | None) -> list[Flow]:
    """All flows of ``instance`` but those of its bindings.

    ``next_hop_mac`` is None while the IPv4 next hop is not resolved: what would be sent to it is
    dropped and counted. Raises PipelineError if a flow breaks its table's declaration.
    """
    flows = [
        *_classify(instance, ports),
        *_port_set_stage(instance, upstream=True),
        *_upstream_binding(instance),
        *_upstream_route(instance, ports, next_hop_mac),
        *_port_set_stage(instance, upstream=False),
        *_downstream_binding(instance),
        *_downstream_output(instance, ports),
        *_arp(instance, ports),
    ]
    if instance.failover is not Failover.NONE:
        flows += _unknown(_UNKNOWN_LWB4, validates=instance.failover.validates)
    if instance.failover.validates:
        flows += _unknown(_UNKNOWN_IPV4, validates=True)
    return [check(flow) for flow in flows]


# Declared once and checked at import: these are the flows there are many of.

UPSTREAM_BINDING_FLOW = check(
    Flow(
        Table.UPSTREAM_BINDING,
        Priority.NORMAL,
        Var.COOKIE,
        (
            Match("eth_type", ETH_IPV4),
            Match("ipv4_src", Var.IPV4),
            Match("tun_ipv6_src", Var.LWB4),
            Match("tun_ipv6_dst", Var.BR_ADDRESS),
            Match(Register.PSID, Var.PSID),
        ),
        goto=Table.UPSTREAM_ROUTE,
        note="a packet of the lwB4 this address and port set is bound to",
    )
)

DOWNSTREAM_BINDING_FLOW = check(
    Flow(
        Table.DOWNSTREAM_BINDING,
        Priority.NORMAL,
        Var.COOKIE,
        (
            Match("eth_type", ETH_IPV4),
            Match("ipv4_dst", Var.IPV4),
            Match(Register.PSID, Var.PSID),
        ),
        (
            SetField("tun_ipv6_src", Var.BR_ADDRESS),
            SetField("tun_ipv6_dst", Var.LWB4),
            SetField("eth_dst", Var.BR_MAC),
        ),
        goto=Table.DOWNSTREAM_OUTPUT,
        note="to the lwB4 that owns this address and port set",
    )
)

BINDING_FLOWS = (UPSTREAM_BINDING_FLOW, DOWNSTREAM_BINDING_FLOW)


def br_mac(br_address: IPv6Address) -> int:
    """The eth_dst that tells the shim which outer source address to write."""
    return Mark.BR_PREFIX | br_tag(br_address)


def binding_flows(instance: Instance, binding: Binding) -> tuple[Flow, ...]:
    """The two flows of one binding, one for each direction."""
    br_address = instance.br_address_of(binding)
    mac = br_mac(br_address).to_bytes(6, "big").hex(":")
    values: dict[Var, int | str] = {
        Var.COOKIE: binding_cookie(binding.key),
        Var.IPV4: str(binding.ipv4),
        Var.PSID: binding.psid,
        Var.LWB4: str(binding.lwb4),
        Var.BR_ADDRESS: str(br_address),
        Var.BR_MAC: mac,
    }
    return tuple(flow.bind(values.__getitem__) for flow in BINDING_FLOWS)


def _flow(
    table: Table,
    priority: int,
    match: tuple[Match, ...],
    *actions: Action,
    goto: Table | None = None,
    note: str,
) -> Flow:
    own = cookie(CookieClass.PIPELINE, table)
    return Flow(table, priority, own, match, actions, goto, note=note)


def _counted(count: Count, flow: Flow) -> Flow:
    return replace(flow, cookie=cookie(CookieClass.COUNT, count))


def _drop(drop: Drop, table: Table, priority: int, *match: Match) -> Flow:
    note = f"drop: {drop.name.lower()}"
    return Flow(table, priority, cookie(CookieClass.DROP, drop), match, note=note)


def _ip(*more: Match) -> tuple[Match, ...]:
    return (Match("eth_type", ETH_IPV4), *more)


def _net(field: str, network: object) -> Match:
    """Match an address in a network, both in text."""
    address, mask = str(network.with_netmask).split("/")  # type: ignore[attr-defined]
    return Match(field, address, mask)


def _net6(network: IPv6Network) -> Match:
    return Match("ipv6_dst", str(network.network_address), str(network.netmask))


def _classify(instance: Instance, ports: Ports) -> Iterator[Flow]:
    ipv6 = Match("in_port", ports.ipv6), Match("eth_type", ETH_IPV6)
    own = {instance.ipv6.address.ip, *instance.aftr_addresses}
    for address in sorted(own):
        yield _flow(
            Table.CLASSIFY,
            Priority.NORMAL,
            (*ipv6, Match("ipv6_dst", str(address))),
            Output(LOCAL_PORT),
            note="to the lwAFTR: softwires end here, ND is answered here",
        )
    for network in (LINK_LOCAL, MULTICAST):
        yield _flow(
            Table.CLASSIFY,
            Priority.NORMAL,
            (*ipv6, _net6(network)),
            Output(LOCAL_PORT),
            note="neighbour discovery",
        )
    if instance.ipv6.next_hop is not None:
        target = Match("ipv6_nd_target", str(instance.ipv6.next_hop))
        advertisement = Match("ip_proto", ICMPV6), Match("icmpv6_type", ND_ADVERTISEMENT), target
        yield Flow(
            Table.CLASSIFY,
            Priority.EXCEPTION,
            cookie(CookieClass.PUNT, Punt.NEIGHBOUR),
            (*ipv6, *advertisement),
            (Output(LOCAL_PORT), ToController(QUOTE_LENGTH)),
            note="the IPv6 next hop says where it is, to Open vSwitch as well",
        )
    yield _drop(Drop.NOT_FOR_US, Table.CLASSIFY, Priority.PROTOCOL, *ipv6)
    yield _flow(
        Table.CLASSIFY,
        Priority.NORMAL,
        (Match("in_port", LOCAL_PORT), Match("eth_type", ETH_IPV6)),
        Output(ports.ipv6),
        note="from the lwAFTR: softwire packets, ND, routing protocols",
    )
    yield _counted(
        Count.FROM_SOFTWIRE,
        _flow(
            Table.CLASSIFY,
            Priority.NORMAL,
            (Match("in_port", ports.softwire), Match("eth_type", ETH_IPV4)),
            goto=Table.UPSTREAM_PORT_SET,
            note="out of a softwire",
        ),
    )
    yield _drop(
        Drop.SOFTWIRE_NOT_IPV4, Table.CLASSIFY, Priority.PROTOCOL, Match("in_port", ports.softwire)
    )
    ipv4 = Match("in_port", ports.ipv4)
    yield _counted(
        Count.FROM_INTERNET,
        _flow(
            Table.CLASSIFY,
            Priority.NORMAL,
            (ipv4, Match("eth_type", ETH_IPV4)),
            goto=Table.DOWNSTREAM_PORT_SET,
            note="from the Internet",
        ),
    )
    yield _flow(
        Table.CLASSIFY,
        Priority.NORMAL,
        (ipv4, Match("eth_type", ETH_ARP)),
        goto=Table.ARP_LEARN,
        note="ARP on the IPv4 side",
    )
    yield _drop(Drop.UNCLASSIFIED, Table.CLASSIFY, Priority.MISS)


@dataclass(frozen=True, slots=True)
class _Direction:
    """How the two port-set stages differ."""

    table: Table
    next: Table
    address: str
    tcp: str
    udp: str
    icmp_ports: tuple[tuple[int, int, int], ...]
    """Of ICMP packets: eth_src value and mask, and the bit where their port then begins."""
    not_served: Drop
    excluded: Drop
    protocol: Drop
    fragment: Drop
    icmp: Drop


_UPSTREAM = _Direction(
    Table.UPSTREAM_PORT_SET,
    Table.UPSTREAM_BINDING,
    "ipv4_src",
    "tcp_src",
    "udp_src",
    ((0, 0, Mark.SOURCE_PORT_BIT),),
    Drop.UPSTREAM_NOT_SERVED,
    Drop.UPSTREAM_EXCLUDED_PORT,
    Drop.UPSTREAM_PROTOCOL,
    Drop.UPSTREAM_FRAGMENT,
    Drop.UPSTREAM_ICMP,
)
_DOWNSTREAM = _Direction(
    Table.DOWNSTREAM_PORT_SET,
    Table.DOWNSTREAM_BINDING,
    "ipv4_dst",
    "tcp_dst",
    "udp_dst",
    (
        # An echo has one identifier.
        (Mark.ECHO, Mark.ECHO, Mark.SOURCE_PORT_BIT),
        (0, Mark.ECHO, Mark.DESTINATION_PORT_BIT),
    ),
    Drop.DOWNSTREAM_NOT_SERVED,
    Drop.DOWNSTREAM_EXCLUDED_PORT,
    Drop.DOWNSTREAM_PROTOCOL,
    Drop.DOWNSTREAM_FRAGMENT,
    Drop.DOWNSTREAM_ICMP,
)


def _port_set_stage(instance: Instance, *, upstream: bool) -> Iterator[Flow]:
    way = _UPSTREAM if upstream else _DOWNSTREAM
    icmp = Match("ip_proto", ICMP)
    if not upstream:
        own = Match(way.address, str(instance.ipv4.address.ip))
        yield _drop(Drop.TO_LWAFTR, way.table, Priority.OWN, *_ip(own))
        if not instance.icmp.inbound:
            yield _drop(Drop.INBOUND_ICMP_DISABLED, way.table, Priority.OWN, *_ip(icmp))
    for prefix in instance.prefixes:
        yield from (_shared if prefix.params.shared else _full)(way, prefix)
    not_served = _drop(way.not_served, way.table, Priority.MISS)
    if upstream and instance.failover.answers:
        # An lwAFTR that took over may serve other prefixes than the one that died.
        yield _missed(not_served, _UNKNOWN_LWB4, _ip(), validates=instance.failover.validates)
    else:
        yield not_served


def _full(way: _Direction, prefix: Prefix) -> Iterator[Flow]:
    """An address of one's own needs no port: every protocol and every fragment passes."""
    address = _net(way.address, prefix.network)
    icmp = Match("ip_proto", ICMP)
    later = Match("ip_frag", FRAG_LATER)
    yield _flow(
        way.table,
        Priority.FRAGMENT,
        _ip(address, icmp, later),
        goto=way.next,
        note=f"{prefix.network}: full addresses need no port, a fragment passes",
    )
    yield _drop(
        way.icmp,
        way.table,
        Priority.EXCEPTION,
        *_ip(address, icmp, _eth_src(Mark.NO_PORTS, Mark.NO_PORTS)),
    )
    yield _flow(
        way.table,
        Priority.NORMAL,
        _ip(address),
        goto=way.next,
        note=f"{prefix.network}: full addresses, PSID 0",
    )


def _shared(way: _Direction, prefix: Prefix) -> Iterator[Flow]:
    address = _net(way.address, prefix.network)
    params = prefix.params
    icmp = Match("ip_proto", ICMP)
    later = Match("ip_frag", FRAG_LATER)
    yield _drop(way.fragment, way.table, Priority.FRAGMENT, *_ip(address, later))
    yield _drop(
        way.icmp,
        way.table,
        Priority.EXCEPTION,
        *_ip(address, icmp, _eth_src(Mark.NO_PORTS, Mark.NO_PORTS)),
    )
    # Excluded ports are those whose A field is zero. As a prefix of the port that costs few
    # datapath flows: Open vSwitch looks only at as many leading bits as it takes to tell.
    a_field = 0xFFFF << (16 - params.psid_offset) & 0xFFFF
    ports: list[tuple[tuple[Match, ...], str, int, Match]] = [
        ((Match("ip_proto", TCP),), way.tcp, 0, Match(way.tcp, 0, a_field)),
        ((Match("ip_proto", UDP),), way.udp, 0, Match(way.udp, 0, a_field)),
    ]
    for value, mask, bit in way.icmp_ports:
        kind = (icmp, _eth_src(value, mask)) if mask else (icmp,)
        ports.append((kind, "eth_src", bit, _eth_src(value, mask | a_field << bit)))
    for match, field, bit, excluded in ports:
        if params.excluded_ports:
            yield _drop(
                way.excluded, way.table, Priority.EXCLUDED, *_ip(address, match[0], excluded)
            )
        yield _flow(
            way.table,
            Priority.NORMAL,
            _ip(address, *match),
            Move(field, bit + params.psid_shift, Register.PSID, 0, params.psid_length),
            goto=way.next,
            note=f"{prefix.network}: PSID out of {field}",
        )
    yield _drop(way.protocol, way.table, Priority.PROTOCOL, *_ip(address))


def _eth_src(value: int, mask: int) -> Match:
    return Match("eth_src", value.to_bytes(6, "big").hex(":"), mask.to_bytes(6, "big").hex(":"))


def _upstream_binding(instance: Instance) -> Iterator[Flow]:
    drop = _drop(Drop.UPSTREAM_NO_BINDING, Table.UPSTREAM_BINDING, Priority.MISS)
    if instance.failover is Failover.NONE:
        yield drop
    else:
        yield _missed(drop, _UNKNOWN_LWB4, validates=instance.failover.validates)


def _ttl_expired(drop: Drop, table: Table) -> Iterator[Flow]:
    """dec_ttl would drop these as well, but without a name."""
    for ttl in (0, 1):
        yield _drop(drop, table, Priority.EXCEPTION, *_ip(Match("nw_ttl", ttl)))


def _upstream_route(instance: Instance, ports: Ports, next_hop_mac: str | None) -> Iterator[Flow]:
    table = Table.UPSTREAM_ROUTE
    for prefix in instance.prefixes:
        to_us = _ip(_net("ipv4_dst", prefix.network))
        if instance.hairpinning:
            # Open vSwitch does not send a packet out of the port it came in by. Forgetting that
            # port, and the sender's PSID, lets the downstream flows serve hairpinned packets.
            yield _counted(
                Count.HAIRPINNED,
                _flow(
                    table,
                    Priority.FRAGMENT,
                    to_us,
                    Load("in_port", 16, 0),
                    Load(Register.PSID, 32, 0),
                    goto=Table.DOWNSTREAM_PORT_SET,
                    note=f"hairpin: lwB4 to lwB4 in {prefix.network}",
                ),
            )
        else:
            yield _drop(Drop.HAIRPIN_DISABLED, table, Priority.FRAGMENT, *to_us)
    yield from _ttl_expired(Drop.UPSTREAM_TTL_EXPIRED, table)
    if next_hop_mac is None:
        yield _drop(Drop.NEXT_HOP_UNRESOLVED, table, Priority.MISS)
    else:
        # eth_src still carries the shim's mark; the shim on the IPv4 NIC puts the NIC's address
        # there. Writing it here would make the ICMP identifier part of every datapath flow.
        yield to_next_hop(instance, ports, next_hop_mac)


def to_next_hop(instance: Instance, ports: Ports, mac: str) -> Flow:
    """The flow that sends packets to the Internet, which is where the next hop's MAC is kept."""
    return _counted(
        Count.TO_INTERNET,
        _flow(
            Table.UPSTREAM_ROUTE,
            Priority.MISS,
            _ip(),
            DecTtl(),
            SetField("eth_dst", mac),
            Output(ports.ipv4),
            note=f"to the Internet by {instance.ipv4.next_hop}",
        ),
    )


def _downstream_binding(instance: Instance) -> Iterator[Flow]:
    drop = _drop(Drop.DOWNSTREAM_NO_BINDING, Table.DOWNSTREAM_BINDING, Priority.MISS)
    if instance.failover.validates:
        yield _missed(drop, _UNKNOWN_IPV4, validates=True)
    else:
        yield _shown(drop, Punt.UNKNOWN_IPV4) if instance.icmp.unknown_ipv4 else drop


def _downstream_output(instance: Instance, ports: Ports) -> Iterator[Flow]:
    table = Table.DOWNSTREAM_OUTPUT
    yield from _ttl_expired(Drop.DOWNSTREAM_TTL_EXPIRED, table)
    too_big = _eth_src(Mark.TOO_BIG, Mark.TOO_BIG)
    drop = _drop(Drop.DOWNSTREAM_TOO_BIG, table, Priority.NORMAL, *_ip(too_big))
    yield _shown(drop, Punt.TOO_BIG) if instance.icmp.too_big else drop
    yield _counted(
        Count.TO_SOFTWIRE,
        _flow(
            table,
            Priority.MISS,
            _ip(),
            DecTtl(),
            Output(ports.softwire),
            note=f"into the softwire: at most {instance.softwire_mtu} bytes",
        ),
    )


def _shown(drop: Flow, punt: Punt) -> Flow:
    """The same drop, with a metered copy for the controller to answer by ICMP."""
    return Flow(
        drop.table,
        drop.priority,
        drop.cookie,
        drop.match,
        (ToController(QUOTE_LENGTH),),
        meter=punt,
        note=drop.note + ", and show it to the controller",
    )


def _arp(instance: Instance, ports: Ports) -> Iterator[Flow]:
    arp = Match("eth_type", ETH_ARP)
    next_hop = Match("arp_spa", str(instance.ipv4.next_hop))
    yield Flow(
        Table.ARP_LEARN,
        Priority.NORMAL,
        cookie(CookieClass.PUNT, Punt.ARP),
        (arp, next_hop),
        (ToController(64),),
        Table.ARP_ANSWER,
        meter=Punt.ARP,
        note="the next hop says where it is",
    )
    yield _flow(Table.ARP_LEARN, Priority.MISS, (), goto=Table.ARP_ANSWER, note="other ARP")
    request = arp, Match("arp_op", ARP_REQUEST)
    own = Match("arp_tpa", str(instance.ipv4.address.ip))
    for target in (own, *(_net("arp_tpa", prefix.network) for prefix in instance.prefixes)):
        yield _flow(
            Table.ARP_ANSWER,
            Priority.NORMAL,
            (*request, target),
            Move("eth_src", 0, "eth_dst", 0, 48),
            SetField("eth_src", ports.ipv4_mac),
            SetField("arp_op", ARP_REPLY),
            Move("arp_sha", 0, "arp_tha", 0, 48),
            SetField("arp_sha", ports.ipv4_mac),
            Move("arp_tpa", 0, Register.SCRATCH, 0, 32),
            Move("arp_spa", 0, "arp_tpa", 0, 32),
            Move(Register.SCRATCH, 0, "arp_spa", 0, 32),
            Output(IN_PORT),
            note="who has this address? We have (RFC 826)",
        )
    yield _drop(Drop.ARP_IGNORED, Table.ARP_ANSWER, Priority.MISS)


@dataclass(frozen=True, slots=True)
class _Unknown:
    """How packets without a binding from lwB4s differ from those from the Internet. ``fields``
    are what the switch remembers of a packet that it has shown to the controller."""

    table: Table
    seen: Table
    punt: Table
    fields: tuple[tuple[str, int], ...]
    first: Punt
    following: Punt
    count: Count
    refused: Drop
    what: str


_UNKNOWN_LWB4 = _Unknown(
    Table.UNKNOWN_LWB4,
    Table.UNKNOWN_LWB4_SEEN,
    Table.UNKNOWN_LWB4_PUNT,
    # Not the inner address and port: one lwB4 could then show the controller as many packets as
    # it can make up addresses and ports.
    (("tun_ipv6_src", 128),),
    Punt.UNKNOWN_LWB4,
    Punt.HELD_LWB4,
    Count.UNKNOWN_LWB4,
    Drop.UPSTREAM_NO_BINDING,
    "lwB4",
)
_UNKNOWN_IPV4 = _Unknown(
    Table.UNKNOWN_IPV4,
    Table.UNKNOWN_IPV4_SEEN,
    Table.UNKNOWN_IPV4_PUNT,
    (("ipv4_dst", 32), (Register.PSID, 32)),
    Punt.UNKNOWN_IPV4,
    Punt.HELD_IPV4,
    Count.UNKNOWN_IPV4,
    Drop.DOWNSTREAM_NO_BINDING,
    "address and port set",
)


def _missed(
    drop: Flow, unknown: _Unknown, match: tuple[Match, ...] = (), *, validates: bool
) -> Flow:
    """``drop`` made into the way to the controller. If the supporting system is asked, it is too
    early to call it a drop."""
    note = drop.note + ", and let the controller tell the lwB4"
    flow = replace(drop, match=match, goto=unknown.table, note=note)
    if validates:
        return _counted(unknown.count, replace(flow, note="no binding: ask about it"))
    return flow


def _unknown(unknown: _Unknown, *, validates: bool) -> Iterator[Flow]:
    ip = _ip()
    first = cookie(CookieClass.PUNT, unknown.first)
    yield _flow(
        unknown.table,
        Priority.MISS,
        ip,
        Resubmit(unknown.seen),
        goto=unknown.punt,
        note=f"look the {unknown.what} up among those just seen, then decide",
    )
    shown = Match(Register.SEEN, Seen.SHOWN)
    if validates:
        refused = Match(Register.SEEN, Seen.REFUSED)
        yield _drop(unknown.refused, unknown.punt, Priority.NORMAL, *ip, refused)
        yield Flow(
            unknown.punt,
            Priority.NORMAL,
            cookie(CookieClass.PUNT, unknown.following),
            (*ip, shown),
            (ToController(0xFFFF),),
            meter=unknown.following,
            note="the supporting system is being asked: the controller holds this packet",
        )
    else:
        yield _flow(
            unknown.punt,
            Priority.NORMAL,
            (*ip, shown),
            note=f"the controller has seen this {unknown.what} a moment ago",
        )
    # Only here is it remembered: each packet that is remembered starts the interval anew, and a
    # source that does not stop sending would never be shown again.
    yield Flow(
        unknown.punt,
        Priority.MISS,
        first,
        ip,
        (
            Learn(unknown.seen, unknown.fields, Register.SEEN, SEEN_SECONDS, first),
            ToController(0xFFFF),
        ),
        meter=unknown.first,
        note=f"remember the {unknown.what}, and show the controller the packet, whole",
    )


def refusal(ipv4: IPv4Address, psid: int, lwb4: IPv6Address | None, seconds: int) -> Flow:
    """Keeps an address and port set that the supporting system refused off the controller for a
    while: as the inner source of ``lwb4``, or as a destination if that is None."""
    unknown, field = (_UNKNOWN_IPV4, "ipv4_dst") if lwb4 is None else (_UNKNOWN_LWB4, "ipv4_src")
    outer = () if lwb4 is None else (Match("tun_ipv6_src", str(lwb4)),)
    return check(
        Flow(
            unknown.seen,
            Priority.REFUSED,
            cookie(CookieClass.PUNT, unknown.first),
            _ip(Match(field, str(ipv4)), *outer, Match(Register.PSID, psid)),
            (Load(Register.SEEN, 32, Seen.REFUSED),),
            hard_timeout=seconds,
            note="the supporting system said no a moment ago",
        )
    )
