"""Packets without a binding, on their way to the controller.

The switch could remember by itself whom it has shown (the ``learn`` action). But each flow that
comes makes Open vSwitch look again at all it has cached, and after a failover every subscriber is
unknown: it would do little else. So it shows what the meter lets pass, and the controller keeps
those quiet who do not stop (docs/adr/0012).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from openflow_rules.compiler.parts import counted, drop_flow, ip_match, step
from openflow_rules.flow import Flow, Load, Match, Resubmit, ToController, Var
from openflow_rules.tables import (
    CookieClass,
    Count,
    Drop,
    Priority,
    Punt,
    Register,
    Table,
    check,
    cookie,
)


@dataclass(frozen=True, slots=True)
class Unknown:
    """How packets without a binding from lwB4s differ from those from the Internet."""

    table: Table
    quiet: Table
    show: Table
    punt: Punt
    count: Count
    drop: Drop


LWB4 = Unknown(
    Table.UNKNOWN_LWB4,
    Table.UNKNOWN_LWB4_QUIET,
    Table.UNKNOWN_LWB4_PUNT,
    Punt.UNKNOWN_LWB4,
    Count.UNKNOWN_LWB4,
    Drop.UPSTREAM_NO_BINDING,
)
IPV4 = Unknown(
    Table.UNKNOWN_IPV4,
    Table.UNKNOWN_IPV4_QUIET,
    Table.UNKNOWN_IPV4_PUNT,
    Punt.UNKNOWN_IPV4,
    Count.UNKNOWN_IPV4,
    Drop.DOWNSTREAM_NO_BINDING,
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
    yield step(
        unknown.table,
        Priority.MISS,
        ip,
        Resubmit(unknown.quiet),
        goto=unknown.show,
        note="does the controller want to see this one?",
    )
    quiet = (*ip, Match(Register.QUIET, 1))
    if validates:
        yield drop_flow(unknown.drop, unknown.show, Priority.NORMAL, *quiet)
    else:
        note = "it has seen enough of these for the moment"
        yield step(unknown.show, Priority.NORMAL, quiet, note=note)
    yield Flow(
        unknown.show,
        Priority.MISS,
        cookie(CookieClass.PUNT, unknown.punt),
        ip,
        (ToController(0xFFFF),),
        meter=unknown.punt,
        note="show the controller the packet, whole",
    )


def quiet_lwb4(seconds: int) -> Flow:
    """Keeps whatever an lwB4 sends without a binding off the controller for a while."""
    return _quiet(LWB4, seconds, Match("tun_ipv6_src", Var.LWB4))


def quiet(seconds: int, *, upstream: bool) -> Flow:
    """Keeps an address and port set off the controller for a while: as the inner source of one
    lwB4, or as a destination."""
    port_set = Match(Register.PSID, Var.PSID)
    if not upstream:
        return _quiet(IPV4, seconds, Match("ipv4_dst", Var.IPV4), port_set)
    source = Match("tun_ipv6_src", Var.LWB4), Match("ipv4_src", Var.IPV4)
    return _quiet(LWB4, seconds, *source, port_set)


def _quiet(unknown: Unknown, seconds: int, *match: Match) -> Flow:
    return check(
        Flow(
            unknown.quiet,
            Priority.NORMAL,
            cookie(CookieClass.PUNT, unknown.punt),
            ip_match(*match),
            (Load(Register.QUIET, 32, 1),),
            hard_timeout=seconds,
            note="the controller knows",
        )
    )
