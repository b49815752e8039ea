"""Two lwAFTRs: every way to fail, load shared by ECMP, and the comparison of the mechanisms."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from ryu_lw4o6.core.settings import Failover
from topo.compare import report, runs, table
from topo.compare.measure import Measured, losses, outage_of
from topo.compare.run import compare
from topo.compare.statistics import percentile, shown
from topo.compare.traffic import Traffic
from topo.demo.checks import Checks
from topo.failover import faults
from topo.failover.build import FailoverBuilder
from topo.failover.faults import How, Role
from topo.failover.plan import FailoverLab, Mode, Shared
from topo.plan import subscribers

REPORT = Path("build")
_AWAY, _SETTLE = 0.7, 0.5
"""Seconds for which an lwAFTR stays away at least, and for which traffic is watched afterwards."""
_MOST_OUTAGE = 1.0
"""Seconds. BGP and the lwAFTR take a few hundredths; the machine may be busy."""
_WHAT = {
    How.KILL: "the primary dies: kill -9 of everything on it",
    How.LINK: "the primary's cables are cut",
    How.SWITCH: "the primary's Open vSwitch dies",
    How.CONTROLLER: "the primary's ryu-manager dies",
    How.DRAIN: "the primary is drained for maintenance",
}


def active_backup(name: str) -> FailoverBuilder:
    return FailoverBuilder(FailoverLab(name, subscribers(3), mechanism=Failover.DATA_PACKET))


def active_active(name: str) -> FailoverBuilder:
    return FailoverBuilder(
        FailoverLab(name, subscribers(8), mode=Mode.ACTIVE_ACTIVE, store=Shared.POSTGRESQL)
    )


def every_way_to_fail(lab: FailoverBuilder, checks: Checks) -> None:
    """Active and backup, with the data-packet trigger."""
    with Traffic(lab, lab.lab.subscribers) as traffic:
        traffic.wait_flowing()
        for how in How:
            began = time.monotonic()
            faults.fail(lab, Role.PRIMARY, how)
            time.sleep(_AWAY)
            used = lab.anycast_ways
            mending = time.monotonic()
            faults.recover(lab, Role.PRIMARY)
            time.sleep(_SETTLE)
            seen, ok = _seen(traffic, began, mending)
            if how is How.DRAIN:
                ok = ok and not losses(list(traffic.streams.values()), began, time.monotonic())[0]
            checks.add(_WHAT[how], seen, ok and used == ["lwaftr2"])


def load_is_shared(lab: FailoverBuilder, checks: Checks) -> None:
    """Both active, with one store."""
    first, second = lab.lab.sites
    with Traffic(lab, lab.lab.subscribers) as traffic:
        traffic.wait_flowing()
        ways = [lab.way_of(sub) for sub in lab.lab.subscribers]
        shares = [ways.count(site.name) for site in lab.lab.sites]
        checks.add(
            "routers share lwB4s out by the outer IPv6 header (ECMP)",
            f"{shares[0]} of {len(ways)} by {first.name}, {shares[1]} by {second.name}",
            sum(shares) == len(ways),
        )
        # The kernel's hash has a secret, so all may be with one of them.
        role, other = (Role.BACKUP, first) if shares[1] else (Role.PRIMARY, second)
        began = time.monotonic()
        faults.fail(lab, role, How.KILL)
        time.sleep(_AWAY)
        used = lab.anycast_ways
        mending = time.monotonic()
        faults.recover(lab, role)
        time.sleep(_SETTLE)
        seen, ok = _seen(traffic, began, mending)
        checks.add("one of the two dies, and comes back", seen, ok and used == [other.name])


def _goes_on(measured: Measured) -> bool:
    """Service, address, connections and all."""
    seen = measured.failover
    return (
        table.restored(measured)
        and seen.renumbered == 0
        and seen.outbound == seen.inbound == measured.busy
    )


def _goes_on_elsewhere(measured: Measured) -> bool:
    """Service, under another address, which no connection survives."""
    seen = measured.failover
    return table.restored(measured) and seen.renumbered == measured.busy and not seen.outbound


_EXPECTED: dict[str, tuple[str, Callable[[Measured], bool]]] = {
    runs.NONE.title: (
        "no mechanism: no service until the primary is back",
        lambda measured: not table.restored(measured),
    ),
    runs.PCP_OWN_POOLS.title: (
        "ICMPv6 trigger, PCP, own pools: on under another address",
        _goes_on_elsewhere,
    ),
    runs.PCP_ONE_POOL.title: (
        "ICMPv6 trigger, PCP, one pool: connections go on",
        _goes_on,
    ),
    runs.DHCP.title: (
        "ICMPv6 trigger, DHCPv4 over DHCPv6: connections go on",
        _goes_on,
    ),
    runs.DATA_PACKET.title: (
        "data-packet trigger, SQL store: connections go on",
        _goes_on,
    ),
    runs.KEA.title: (
        "data-packet trigger, Kea's leases: connections go on",
        _goes_on,
    ),
}
"""What each run of the comparison is to show."""


def comparison(name: str, checks: Checks) -> None:
    """Of the mechanisms, as on the slides."""
    found = compare(name, _say)
    print()
    for line in table.lines(found):
        print(f"   {line}".rstrip())
    for measured in found:
        title, ok = _EXPECTED[measured.run.title]
        connections = measured.failover.outbound + measured.failover.inbound
        checks.add(
            title,
            f"outage {_p50(measured)}, {connections} of {2 * measured.busy} connections survived",
            ok(measured),
        )
    page, plot, _ = report.write(found, REPORT)
    checks.add("report and plot", f"{page}, {plot}", page.exists())


def _say(text: str) -> None:
    print(textwrap.indent(textwrap.fill(text, 100), "   "), flush=True)


def _seen(traffic: Traffic, began: float, mending: float) -> tuple[str, bool]:
    """What subscribers saw of a failover and of the return, and whether they can live with it."""
    now = time.monotonic()
    streams = traffic.streams.values()
    away = max(outage_of(stream, began, mending, now) for stream in streams)
    back = max(outage_of(stream, mending, now, now) for stream in streams)
    survived = sum(c.survived(began, now) for c in traffic.connections)
    count = len(traffic.connections)
    return (
        f"outage {shown(away)} at most, {shown(back)} at the return; {survived} of {count} TCP "
        "connections survived",
        max(away, back) < _MOST_OUTAGE and survived == count,
    )


def _p50(measured: Measured) -> str:
    return shown(percentile(measured.failover.outages, 50))
