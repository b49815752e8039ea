"""The way out: to the Internet, back into a softwire, or into one."""

from __future__ import annotations

from collections.abc import Iterator

from openflow_rules.compiler.parts import (
    Ports,
    counted,
    drop_flow,
    eth_src_match,
    ip_match,
    net_match,
    shown,
    step,
)
from openflow_rules.flow import DecTtl, Flow, Load, Match, Output, SetField
from openflow_rules.tables import Count, Drop, Mark, Priority, Punt, Register, Table
from ryu_lw4o6.core.settings import Instance


def upstream_route_flows(
    instance: Instance, ports: Ports, next_hop_mac: str | None
) -> Iterator[Flow]:
    table = Table.UPSTREAM_ROUTE
    for prefix in instance.prefixes:
        to_us = ip_match(net_match("ipv4_dst", prefix.network))
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
    if next_hop_mac is None:
        yield drop_flow(Drop.NEXT_HOP_UNRESOLVED, table, Priority.MISS)
    else:
        # eth_src still carries the shim's mark; the shim on the IPv4 NIC puts the NIC's address
        # there. Writing it here would make the ICMP identifier part of every datapath flow.
        yield to_next_hop(instance, ports, next_hop_mac)


def to_next_hop(instance: Instance, ports: Ports, mac: str) -> Flow:
    """The flow that sends packets to the Internet, which is where the next hop's MAC is kept."""
    return counted(
        Count.TO_INTERNET,
        step(
            Table.UPSTREAM_ROUTE,
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
    yield counted(
        Count.TO_SOFTWIRE,
        step(
            table,
            Priority.MISS,
            ip_match(),
            DecTtl(),
            Output(ports.softwire),
            note=f"into the softwire: at most {instance.softwire_mtu} bytes",
        ),
    )


def _ttl_expired(instance: Instance, why: Drop, table: Table) -> Iterator[Flow]:
    """dec_ttl would drop these as well, but without a name."""
    for ttl in (0, 1):
        drop = drop_flow(why, table, Priority.EXCEPTION, *ip_match(Match("nw_ttl", ttl)))
        yield shown(drop, Punt.TTL_EXPIRED) if instance.icmp.ttl_expired else drop
