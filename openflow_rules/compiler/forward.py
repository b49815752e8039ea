"""The way out: to the Internet, back into a softwire, or into one."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address

from openflow_rules.compiler.filters import through
from openflow_rules.compiler.parts import (
    WHOLE,
    Ports,
    counted,
    drop_flow,
    eth_src_match,
    ip_match,
    net_match,
    shown,
    step,
)
from openflow_rules.flow import (
    CheckLarger,
    DecTtl,
    Flow,
    Load,
    Match,
    Output,
    SetField,
    ToController,
)
from openflow_rules.tables import (
    CookieClass,
    Count,
    Drop,
    Mark,
    Priority,
    Punt,
    Register,
    Table,
    check,
    cookie,
)
from ryu_lw4o6.core.settings import IPV6_HEADER, Instance

ETHERNET_HEADER = 14


def upstream_route_flows(
    instance: Instance, ports: Ports, next_hop_mac: str | None
) -> Iterator[Flow]:
    table = Table.UPSTREAM_ROUTE
    yield step(
        table,
        Priority.FRAGMENT,
        ip_match(Match("ipv4_dst", str(instance.ipv4.address.ip))),
        Load("in_port", 16, 0),
        goto=Table.DOWNSTREAM_PORT_SET,
        note="from an lwB4 to the lwAFTR itself",
    )
    from_us = Match("ipv4_src", str(instance.ipv4.address.ip))
    for prefix in instance.prefixes:
        to_us = ip_match(net_match("ipv4_dst", prefix.network))
        yield counted(
            Count.FROM_LWAFTR,
            step(
                table,
                Priority.FRAGMENT_EXCEPTION,
                (*to_us, from_us),
                Load("in_port", 16, 0),
                Load(Register.PSID, 32, 0),
                goto=Table.DOWNSTREAM_PORT_SET,
                note=f"an echo reply of our own to an lwB4 in {prefix.network}",
            ),
        )
        if instance.hairpinning:
            # Open vSwitch does not send a packet out of the port it came in by. Forgetting that
            # port, and the sender's PSID, lets the downstream flows serve hairpinned packets.
            yield counted(
                Count.HAIRPINNED,
                step(
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
            yield drop_flow(Drop.HAIRPIN_DISABLED, table, Priority.FRAGMENT, *to_us)
    yield from _ttl_expired(instance, Drop.UPSTREAM_TTL_EXPIRED, table)
    yield step(
        table,
        Priority.MISS,
        ip_match(),
        goto=through(instance, Table.FILTER_TO_INTERNET, Table.INTERNET_OUTPUT),
        note="to the Internet",
    )
    if next_hop_mac is None:
        yield drop_flow(Drop.NEXT_HOP_UNRESOLVED, Table.INTERNET_OUTPUT, Priority.MISS)
    else:
        # eth_src still carries the shim's mark; the shim on the IPv4 NIC puts the NIC's address
        # there. Writing it here would make the ICMP identifier part of every datapath flow.
        yield to_next_hop(instance, ports, next_hop_mac)


def to_next_hop(instance: Instance, ports: Ports, mac: str) -> Flow:
    """The flow that sends packets to the Internet, which is where the next hop's MAC is kept."""
    return counted(
        Count.TO_INTERNET,
        step(
            Table.INTERNET_OUTPUT,
            Priority.MISS,
            ip_match(),
            DecTtl(),
            SetField("eth_dst", mac),
            Output(ports.ipv4),
            note=f"to the Internet by {instance.ipv4.next_hop}",
        ),
    )


def downstream_output_flows(instance: Instance, ports: Ports) -> Iterator[Flow]:
    table = Table.DOWNSTREAM_OUTPUT
    yield from _ttl_expired(instance, Drop.DOWNSTREAM_TTL_EXPIRED, table)
    too_big = eth_src_match(Mark.TOO_BIG, Mark.TOO_BIG)
    drop = drop_flow(Drop.DOWNSTREAM_TOO_BIG, table, Priority.NORMAL, *ip_match(too_big))
    yield shown(drop, Punt.TOO_BIG) if instance.icmp.too_big else drop
    yield step(
        table,
        Priority.MISS,
        ip_match(),
        goto=through(instance, Table.FILTER_TO_SOFTWIRE, Table.TO_SOFTWIRE),
        note=f"into the softwire: at most {instance.softwire_mtu} bytes",
    )
    yield counted(
        Count.TO_SOFTWIRE,
        step(
            Table.TO_SOFTWIRE,
            Priority.MISS,
            ip_match(),
            goto=Table.PATH_MTU,
            note="whatever it takes on the way",
        ),
    )
    yield step(
        Table.PATH_MTU,
        Priority.MISS,
        ip_match(),
        goto=Table.SOFTWIRE_OUTPUT,
        note="nobody has said anything of a smaller path MTU",
    )
    # Open vSwitch credits both outcomes of its check: what is counted is counted before.
    yield Flow(
        Table.SOFTWIRE_OUTPUT,
        Priority.NORMAL,
        cookie(CookieClass.PUNT, Punt.PATH_MTU),
        ip_match(Match(Register.LARGER, 1)),
        (ToController(WHOLE),),
        meter=Punt.PATH_MTU,
        note="larger than the way to the lwB4 takes: answered, or sent in fragments",
    )
    yield step(
        Table.SOFTWIRE_OUTPUT,
        Priority.MISS,
        ip_match(),
        DecTtl(),
        Output(ports.softwire),
        note="to the lwB4",
    )


def path_mtu_flow(lwb4: IPv6Address, mtu: int, seconds: int) -> Flow:
    """For so long, the way to an lwB4 takes softwire packets of no more than ``mtu`` bytes."""
    largest = mtu - IPV6_HEADER
    return check(
        Flow(
            Table.PATH_MTU,
            Priority.NORMAL,
            cookie(CookieClass.TEMPORARY),
            ip_match(Match("tun_ipv6_dst", str(lwb4))),
            (
                CheckLarger(largest + ETHERNET_HEADER, Register.LARGER),
                Load(Register.MTU, 32, largest),
            ),
            goto=Table.SOFTWIRE_OUTPUT,
            hard_timeout=seconds,
            note="a router on the way to the lwB4 has said so",
        )
    )


def _ttl_expired(instance: Instance, why: Drop, table: Table) -> Iterator[Flow]:
    """dec_ttl would drop these as well, but without a name."""
    for ttl in (0, 1):
        drop = drop_flow(why, table, Priority.EXCEPTION, *ip_match(Match("nw_ttl", ttl)))
        yield shown(drop, Punt.TTL_EXPIRED) if instance.icmp.ttl_expired else drop
