"""Small pieces that the flows of every stage are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network

from openflow_rules.flow import Action, Flow, Match, ToController
from openflow_rules.tables import CookieClass, Count, Drop, Punt, Table, cookie

ETH_IPV4 = 0x0800
ETH_ARP = 0x0806
ETH_IPV6 = 0x86DD
ICMP = 1
TCP = 6
UDP = 17
ICMPV6 = 58
FRAG_FIRST = 1
FRAG_LATER = 3  # nw_frag: bit 0 a fragment, bit 1 not the first
LOCAL_PORT = 0xFFFFFFFE
IN_PORT = 0xFFFFFFF8
CONTROLLER_PORT = 0xFFFFFFFD
WHOLE = 0xFFFF
QUOTE_LENGTH = 576
"""How much of a packet the controller is shown: what an ICMPv4 error may quote (RFC 1812
section 4.3.2.3) fits into it."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The switch's numbers for an instance's ports, and the MAC addresses of two of them."""

    ipv6: int
    ipv4: int
    softwire: int
    ipv4_mac: str
    local_mac: str


def step(
    table: Table,
    priority: int,
    match: tuple[Match, ...],
    *actions: Action,
    goto: Table | None = None,
    note: str,
) -> Flow:
    own = cookie(CookieClass.PIPELINE, table)
    return Flow(table, priority, own, match, actions, goto, note=note)


def counted(count: Count, flow: Flow) -> Flow:
    return replace(flow, cookie=cookie(CookieClass.COUNT, count))


def drop_flow(drop: Drop, table: Table, priority: int, *match: Match) -> Flow:
    note = f"drop: {drop.name.lower()}"
    return Flow(table, priority, cookie(CookieClass.DROP, drop), match, note=note)


def punted(count: Count, punt: Punt, flow: Flow) -> Flow:
    """``flow``, counted, with a metered copy of the whole packet for the controller."""
    actions = (*flow.actions, ToController(WHOLE))
    return replace(counted(count, flow), actions=actions, meter=punt)


def copied(count: Count, punt: Punt, flow: Flow) -> Flow:
    """``flow``, counted, and a copy of the whole packet for the controller if the meter allows it:
    the packet goes on in any case."""
    return replace(counted(count, flow), actions=(*flow.actions, ToController(WHOLE, punt)))


def shown(drop: Flow, punt: Punt) -> Flow:
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


def ip_match(*more: Match) -> tuple[Match, ...]:
    return (Match("eth_type", ETH_IPV4), *more)


def net_match(field: str, network: IPv4Network | IPv6Network) -> Match:
    """Match an address in a network; a single one without a mask, as the switch lists it."""
    whole = network.prefixlen == network.max_prefixlen
    return Match(field, str(network.network_address), None if whole else str(network.netmask))


def eth_src_match(value: int, mask: int) -> Match:
    return Match("eth_src", value.to_bytes(6, "big").hex(":"), mask.to_bytes(6, "big").hex(":"))
