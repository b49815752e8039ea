"""Packets without a binding, on their way to the controller."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from openflow_rules.compiler.parts import counted, drop_flow, ip_match, step
from openflow_rules.flow import Flow, Learn, Load, Match, Resubmit, ToController
from openflow_rules.tables import (
    SEEN_SECONDS,
    CookieClass,
    Count,
    Drop,
    Priority,
    Punt,
    Register,
    Seen,
    Table,
    check,
    cookie,
)


@dataclass(frozen=True, slots=True)
class Unknown:
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


LWB4 = Unknown(
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
IPV4 = Unknown(
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


def missed(drop: Flow, unknown: Unknown, match: tuple[Match, ...] = (), *, validates: bool) -> Flow:
    """``drop`` made into the way to the controller. If the supporting system is asked, it is too
    early to call it a drop."""
    note = drop.note + ", and let the controller tell the lwB4"
    flow = replace(drop, match=match, goto=unknown.table, note=note)
    if validates:
        return counted(unknown.count, replace(flow, note="no binding: ask about it"))
    return flow


def unknown_flows(unknown: Unknown, *, validates: bool) -> Iterator[Flow]:
    ip = ip_match()
    first = cookie(CookieClass.PUNT, unknown.first)
    yield step(
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
        yield drop_flow(unknown.refused, unknown.punt, Priority.NORMAL, *ip, refused)
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
        yield step(
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
    unknown, field = (IPV4, "ipv4_dst") if lwb4 is None else (LWB4, "ipv4_src")
    outer = () if lwb4 is None else (Match("tun_ipv6_src", str(lwb4)),)
    return check(
        Flow(
            unknown.seen,
            Priority.REFUSED,
            cookie(CookieClass.PUNT, unknown.first),
            ip_match(Match(field, str(ipv4)), *outer, Match(Register.PSID, psid)),
            (Load(Register.SEEN, 32, Seen.REFUSED),),
            hard_timeout=seconds,
            note="the supporting system said no a moment ago",
        )
    )
