"""Filters: the rules of a side as flows, in tables that packets pass if there are any."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from openflow_rules.compiler.parts import TCP, UDP, ip_match, net_match, step
from openflow_rules.flow import Flow, Match
from openflow_rules.tables import FILTER_TABLES, CookieClass, Priority, Table, cookie
from ryu_lw4o6.core.filters import Direction, PortRange, Rule
from ryu_lw4o6.core.settings import Instance

_FIRST_PRIORITY = 30_000
_PORTS = {TCP: "tcp", UDP: "udp"}


@dataclass(frozen=True, slots=True)
class _Place:
    rules: tuple[Rule, ...]
    table: Table
    next: Table


def _places(instance: Instance) -> Iterator[_Place]:
    for (side, direction), (table, following) in FILTER_TABLES.items():
        rules = (instance.ipv6 if side == 6 else instance.ipv4).filters
        yield _Place(tuple(rule for rule in rules if rule.direction is direction), table, following)


def through(instance: Instance, table: Table, following: Table) -> Table:
    """Where packets on their way to ``following`` go: through ``table`` if it has rules."""
    has_rules = any(place.rules for place in _places(instance) if place.table == table)
    return table if has_rules else following


def filter_flows(instance: Instance) -> Iterator[Flow]:
    for place in _places(instance):
        if not place.rules:
            continue
        for number, rule in enumerate(place.rules):
            yield from _rule_flows(place, number, rule)
        yield step(
            place.table, Priority.MISS, ip_match(), goto=place.next, note="no rule says otherwise"
        )


def _rule_flows(place: _Place, number: int, rule: Rule) -> Iterator[Flow]:
    own = cookie(CookieClass.FILTER, place.table << 16 | number)
    for match in _matches(rule):
        yield Flow(
            place.table,
            _FIRST_PRIORITY - number,
            own,
            match,
            goto=place.next if rule.allow else None,
            note=f"rule {number + 1}: {'allow' if rule.allow else 'deny'}",
        )


def _matches(rule: Rule) -> Iterator[tuple[Match, ...]]:
    fixed = list(ip_match())
    if rule.protocol is not None:
        fixed.append(Match("ip_proto", rule.protocol))
    softwire = "tun_ipv6_src" if rule.direction is Direction.IN else "tun_ipv6_dst"
    for field, network in (
        ("ipv4_src", rule.source), ("ipv4_dst", rule.destination), (softwire, rule.lwb4),
    ):  # fmt: skip
        if network is not None and network.prefixlen:  # what matches anything is not listed
            fixed.append(net_match(field, network))
    name = _PORTS.get(rule.protocol or 0, "")
    for ports in product(
        _port_matches(f"{name}_src", rule.source_port),
        _port_matches(f"{name}_dst", rule.destination_port),
    ):
        yield (*fixed, *(port for port in ports if port is not None))


def _port_matches(field: str, ports: PortRange | None) -> list[Match | None]:
    if ports is None or ports == PortRange(0, 65535):
        return [None]
    return [Match(field, value, None if mask == 0xFFFF else mask) for value, mask in ports.masks()]
