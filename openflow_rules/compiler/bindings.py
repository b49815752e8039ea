"""The two flows of each binding, and what becomes of packets that none of them takes."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address

from openflow_rules.compiler.parts import ETH_IPV4, drop_flow, shown
from openflow_rules.compiler.unknown import IPV4, LWB4, missed
from openflow_rules.flow import Flow, Match, SetField, Var
from openflow_rules.tables import Drop, Mark, Priority, Punt, Register, Table, binding_cookie, check
from ryu_lw4o6.core.binding import Binding
from ryu_lw4o6.core.settings import Failover, Instance, br_tag

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


def upstream_miss_flows(instance: Instance) -> Iterator[Flow]:
    drop = drop_flow(Drop.UPSTREAM_NO_BINDING, Table.UPSTREAM_BINDING, Priority.MISS)
    if instance.failover is Failover.NONE:
        yield drop
    else:
        yield missed(drop, LWB4, validates=instance.failover.validates)


def downstream_miss_flows(instance: Instance) -> Iterator[Flow]:
    drop = drop_flow(Drop.DOWNSTREAM_NO_BINDING, Table.DOWNSTREAM_BINDING, Priority.MISS)
    if instance.failover.validates:
        yield missed(drop, IPV4, validates=True)
    else:
        yield shown(drop, Punt.UNKNOWN_IPV4) if instance.icmp.unknown_ipv4 else drop
