"""The ``filters`` of a side."""

from __future__ import annotations

import re
from ipaddress import IPv6Network

from ryu_lw4o6.core.config import values
from ryu_lw4o6.core.config.document import Entry, value_of
from ryu_lw4o6.core.config.problems import Bad, quote
from ryu_lw4o6.core.filters import Direction, PortRange, Rule

_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17}
_MOST_RULES = 1000
_KEYS = (
    "direction", "action", "source", "destination", "protocol", "source_port", "destination_port",
)  # fmt: skip


def read_filters(entry: Entry | None, *, softwires: bool) -> tuple[Rule, ...]:
    """``softwires`` is whether this is the side where packets are in softwires."""
    if entry is None:
        return ()
    rules = []
    keys = (*_KEYS, "lwb4") if softwires else _KEYS
    items = entry.items()
    if len(items) > _MOST_RULES:
        entry.problem(f"{len(items)} rules are too many", f"Use at most {_MOST_RULES}")
    for item in items[:_MOST_RULES]:
        found = item.fields(keys, ("direction", "action"))
        if found is None:
            continue
        before = len(item.problems)
        direction = value_of(found, "direction", values.choice(*Direction))
        action = value_of(found, "action", values.choice("allow", "deny"))
        rule = Rule(
            Direction.IN if direction is None else Direction(direction),
            action == "allow",
            value_of(found, "source", values.ipv4_network),
            value_of(found, "destination", values.ipv4_network),
            value_of(found, "protocol", _protocol),
            value_of(found, "source_port", _ports),
            value_of(found, "destination_port", _ports),
            value_of(found, "lwb4", _ipv6_network),
        )
        with_ports = rule.source_port or rule.destination_port
        if with_ports and len(item.problems) == before and rule.protocol not in (6, 17):
            item.problem("ports need a protocol that has them", "Add protocol: tcp, or udp")
        if len(item.problems) == before:
            rules.append(rule)
    return tuple(rules)


def _protocol(value: str) -> int:
    if value in _PROTOCOLS:
        return _PROTOCOLS[value]
    if not re.fullmatch(r"[0-9]{1,3}", value) or not 1 <= int(value) <= 255:
        raise Bad(f"{quote(value)} is not a protocol", "Use tcp, udp, icmp, or 1 to 255")
    return int(value)


def _ports(value: str) -> PortRange:
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", value)
    if match:
        first, last = int(match[1]), int(match[2] or match[1])
        if first <= last <= 65535:
            return PortRange(first, last)
    raise Bad(f"{quote(value)} is not a port", "Use one, such as 25, or a range, such as 135-139")


def _ipv6_network(value: str) -> IPv6Network:
    try:
        return IPv6Network(value)
    except ValueError:
        raise Bad(
            f"{quote(value)} is not an IPv6 prefix", "Use one without host bits: 2001:db8:b4::/48"
        ) from None
