"""The stages that read the PSID out of a packet, one for each direction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from openflow_rules.compiler.parts import (
    FRAG_FIRST,
    FRAG_LATER,
    ICMP,
    TCP,
    UDP,
    Ports,
    counted,
    drop_flow,
    eth_src_match,
    ip_match,
    net_match,
    punted,
    shown,
    step,
)
from openflow_rules.compiler.unknown import LWB4, missed
from openflow_rules.flow import Flow, Load, Match, Move, Resubmit, SetField
from openflow_rules.tables import Count, Drop, Mark, Priority, Punt, Register, Table
from ryu_lw4o6.core.binding import Prefix
from ryu_lw4o6.core.settings import Instance

ECHO_REQUEST, ECHO_REPLY = 8, 0
TTL = 64


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
    port_bit: int
    """Where the port of a later fragment begins in eth_src."""
    held: Count
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
    Mark.SOURCE_PORT_BIT,
    Count.HELD_FROM_SOFTWIRE,
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
    Mark.DESTINATION_PORT_BIT,
    Count.HELD_FROM_INTERNET,
    Drop.DOWNSTREAM_ICMP,
)


def port_set_flows(instance: Instance, ports: Ports, *, upstream: bool) -> Iterator[Flow]:
    way = _UPSTREAM if upstream else _DOWNSTREAM
    icmp = Match("ip_proto", ICMP)
    if not upstream:
        yield from _own_address(instance)
        if not instance.icmp.inbound:
            inbound = Match("in_port", ports.ipv4), *ip_match(icmp)
            yield drop_flow(Drop.INBOUND_ICMP_DISABLED, way.table, Priority.OWN, *inbound)
    for prefix in instance.prefixes:
        yield from (_shared if prefix.params.shared else _full)(way, prefix)
    not_served = drop_flow(way.not_served, way.table, Priority.MISS)
    if upstream and instance.failover.answers:
        # An lwAFTR that took over may serve other prefixes than the one that died.
        yield missed(not_served, LWB4, ip_match(), validates=instance.failover.validates)
    else:
        yield not_served


def _own_address(instance: Instance) -> Iterator[Flow]:
    """What is for the lwAFTR itself: an echo, fragments that may be one, and what there is nobody
    to take."""
    table, own = Table.DOWNSTREAM_PORT_SET, Match("ipv4_dst", str(instance.ipv4.address.ip))
    yield _echo_answer(own)
    for part in (FRAG_FIRST, FRAG_LATER):
        fragment = step(
            table,
            Priority.OWN_ECHO,
            ip_match(own, Match("ip_frag", part)),
            note="a fragment to the lwAFTR itself: the controller reassembles its packet",
        )
        yield punted(Count.FRAGMENTS_TO_LWAFTR, Punt.FRAGMENT_TO_LWAFTR, fragment)
    icmp = Match("ip_proto", ICMP)
    yield drop_flow(Drop.TO_LWAFTR, table, Priority.OWN_ICMP, *ip_match(own, icmp))
    drop = drop_flow(Drop.TO_LWAFTR, table, Priority.OWN, *ip_match(own))
    yield shown(drop, Punt.TO_LWAFTR) if instance.icmp.to_lwaftr else drop


def _echo_answer(own: Match) -> Flow:
    """The switch turns an echo request to the lwAFTR itself around (RFC 1812 section 4.3.3.6)."""
    whole = Match("ip_frag", 0)
    answer = step(
        Table.DOWNSTREAM_PORT_SET,
        Priority.OWN_ECHO,
        ip_match(own, Match("ip_proto", ICMP), Match("icmpv4_type", ECHO_REQUEST), whole),
        Move("ipv4_dst", 0, Register.SCRATCH, 0, 32),
        Move("ipv4_src", 0, "ipv4_dst", 0, 32),
        Move(Register.SCRATCH, 0, "ipv4_src", 0, 32),
        SetField("icmpv4_type", ECHO_REPLY),
        Load("nw_ttl", 8, TTL + 1),  # the way out takes one off
        Load("in_port", 16, 0),
        Resubmit(Table.UPSTREAM_ROUTE),
        note="an echo to the lwAFTR itself",
    )
    return replace(counted(Count.ECHO_ANSWERED, answer), meter=Punt.ECHO)


def _full(way: _Direction, prefix: Prefix) -> Iterator[Flow]:
    """An address of one's own needs no port: every protocol but 0, which IPv4 has not, errors
    about all of them, and every fragment pass."""
    address = net_match(way.address, prefix.network)
    icmp = Match("ip_proto", ICMP)
    later = Match("ip_frag", FRAG_LATER)
    yield step(
        way.table,
        Priority.FRAGMENT,
        ip_match(address, icmp, later),
        goto=way.next,
        note=f"{prefix.network}: full addresses need no port, a fragment passes",
    )
    yield _no_port_flow(way, address)
    # Open vSwitch takes a packet of protocol 0 for one without a header, and leaves its TTL alone.
    yield drop_flow(
        way.protocol, way.table, Priority.EXCEPTION, *ip_match(address, Match("ip_proto", 0))
    )
    yield step(
        way.table,
        Priority.NORMAL,
        ip_match(address),
        goto=way.next,
        note=f"{prefix.network}: full addresses, PSID 0",
    )


def _shared(way: _Direction, prefix: Prefix) -> Iterator[Flow]:
    address = net_match(way.address, prefix.network)
    params = prefix.params
    icmp = Match("ip_proto", ICMP)
    yield _no_port_flow(way, address)
    # Of a first fragment, the same two bits say that others have come before it.
    about_no_port = eth_src_match(Mark.NO_PORTS | Mark.ECHO, Mark.NO_PORTS | Mark.ECHO)
    yield drop_flow(
        way.icmp, way.table, Priority.EXCEPTION,
        *ip_match(address, icmp, Match("ip_frag", 0), about_no_port),
    )  # fmt: skip
    # Excluded ports are those whose A field is zero. As a prefix of the port that costs few
    # datapath flows: Open vSwitch looks only at as many leading bits as it takes to tell.
    a_field = 0xFFFF << (16 - params.psid_offset) & 0xFFFF
    ports: list[tuple[tuple[Match, ...], str, int, Match]] = [
        ((Match("ip_proto", TCP),), way.tcp, 0, Match(way.tcp, 0, a_field)),
        ((Match("ip_proto", UDP),), way.udp, 0, Match(way.udp, 0, a_field)),
    ]
    for value, mask, bit in way.icmp_ports:
        kind = (icmp, eth_src_match(value, mask)) if mask else (icmp,)
        ports.append((kind, "eth_src", bit, eth_src_match(value, mask | a_field << bit)))
    for match, field, bit, excluded in ports:
        if params.excluded_ports:
            yield drop_flow(
                way.excluded, way.table, Priority.EXCLUDED, *ip_match(address, match[0], excluded)
            )
        yield step(
            way.table,
            Priority.NORMAL,
            ip_match(address, *match),
            Move(field, bit + params.psid_shift, Register.PSID, 0, params.psid_length),
            goto=way.next,
            note=f"{prefix.network}: PSID out of {field}",
        )
    yield drop_flow(way.protocol, way.table, Priority.PROTOCOL, *ip_match(address))
    yield from _later_fragments(way, prefix, a_field)


def _no_port_flow(way: _Direction, address: Match) -> Flow:
    """ICMP that names no port; with ECHO the bit means something else."""
    no_ports = eth_src_match(Mark.NO_PORTS, Mark.NO_PORTS | Mark.ECHO)
    match = ip_match(address, Match("ip_proto", ICMP), no_ports)
    return drop_flow(way.icmp, way.table, Priority.EXCEPTION, *match)


def _later_fragments(way: _Direction, prefix: Prefix, a_field: int) -> Iterator[Flow]:
    """Fragments that are not the first: the shim has written both ports where it knows them."""
    later = ip_match(net_match(way.address, prefix.network), Match("ip_frag", FRAG_LATER))
    params, unknown = prefix.params, Mark.NO_PORTS | Mark.ECHO
    yield drop_flow(
        way.protocol,
        way.table,
        Priority.FRAGMENT_EXCEPTION,
        *later,
        eth_src_match(Mark.NO_PORTS | Mark.ECHO, unknown),
    )
    yield punted(
        way.held,
        Punt.FRAGMENT,
        step(
            way.table,
            Priority.FRAGMENT_EXCEPTION,
            (*later, eth_src_match(Mark.NO_PORTS, unknown)),
            note="the first fragment of its packet has not come: the controller holds this one",
        ),
    )
    if params.excluded_ports:
        excluded = eth_src_match(0, Mark.NO_PORTS | a_field << way.port_bit)
        match = *later, excluded
        yield drop_flow(way.excluded, way.table, Priority.FRAGMENT_EXCEPTION, *match)
    yield step(
        way.table,
        Priority.FRAGMENT,
        later,
        Move("eth_src", way.port_bit + params.psid_shift, Register.PSID, 0, params.psid_length),
        goto=way.next,
        note=f"{prefix.network}: PSID of the fragment's packet",
    )
