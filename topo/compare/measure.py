"""One run: traffic flows, the primary is killed, and comes back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from topo.compare.runs import Run
from topo.compare.statistics import outage
from topo.compare.traffic import INTERVAL, Stream, Traffic
from topo.failover import faults
from topo.failover.build import FailoverBuilder
from topo.failover.faults import How, Role
from topo.nodes import wait_for

BEFORE, AWAY, AFTER = 1.0, 3.5, 2.0
"""Seconds of traffic before the primary is killed, while it is away, and after its return."""
_SETTLED = 1.0
"""Seconds after the kill at which the Internet tries to reach subscribers anew..."""
_CONNECT = 2.0
"""...and for how long."""
_COUNTERS = """\
table ip6 compare {
 counter refusals {}
 chain seen { type filter hook forward priority 0;
  icmpv6 type destination-unreachable icmpv6 code policy-fail counter name refusals
 }
}
"""


@dataclass(frozen=True)
class Phase:
    """What subscribers saw of the failover, or of the return. Seconds; one outage per stream."""

    outages: list[float]
    lost: int
    sent: int
    outbound: int
    inbound: int
    renumbered: int


@dataclass(frozen=True)
class Measured:
    """What came of a run. Times are seconds since the primary was killed."""

    run: Run
    own_pools: bool
    busy: int
    failover: Phase
    back: Phase
    returned: tuple[float, float]
    """When mending began, and when the routers used the primary again."""
    end: float
    new_inbound: int
    """Subscribers that were reached anew at their old address and port while it was away."""
    silent_reached: bool
    duplicates: int
    refusals: int
    questions: int
    provisioning: int
    arrivals: dict[str, list[float]]
    """Of all streams, by their way."""


def measure(lab: FailoverBuilder, run: Run, say: Callable[[str], None]) -> Measured:
    """Measure in a lab that stands. Raises LabError."""
    *busy, quiet = lab.lab.subscribers
    lab.run("access", "nft", "-f", "-", text=_COUNTERS)
    made = lab.lwb4s.messages()
    with Traffic(lab, busy, [quiet]) as traffic:
        traffic.wait_flowing()
        wait_for("the silent one can be reached", lambda: traffic.can_connect(quiet, 1))
        time.sleep(BEFORE)
        killed = time.monotonic()
        faults.fail(lab, Role.PRIMARY, How.KILL)
        time.sleep(_SETTLED)
        with ThreadPoolExecutor(len(busy) + 1) as pool:
            *reached, silent_reached = pool.map(
                lambda sub: traffic.can_connect(sub, _CONNECT), (*busy, quiet)
            )
        time.sleep(max(0.0, killed + AWAY - time.monotonic()))
        mending = time.monotonic()
        say(f"killed, {mending - killed:.0f} s without the primary")
        faults.recover(lab, Role.PRIMARY)
        returned = time.monotonic()
        say(f"mended and back in {returned - mending:.1f} s")
        time.sleep(AFTER)
        ended = time.monotonic()
    counters = json.loads(lab.run("access", "nft", "-j", "list", "counters").stdout)["nftables"]
    (refusals,) = (entry["counter"]["packets"] for entry in counters if "counter" in entry)
    streams = list(traffic.streams.values())

    def phase(since: float, until: float, end: float) -> Phase:
        return Phase(
            [outage_of(stream, since, until, ended) for stream in streams],
            *losses(streams, since, end),
            outbound=sum(c.survived(since, end) for c in traffic.outbound),
            inbound=sum(c.survived(since, end) for c in traffic.inbound),
            renumbered=sum(
                any(since <= when < end for when, _ in seen) for seen in traffic.addresses.values()
            ),
        )

    return Measured(
        run,
        lab.lab.own_pools,
        len(busy),
        phase(killed, mending, mending),
        phase(mending, ended, ended),
        (mending - killed, returned - killed),
        ended - killed,
        sum(reached),
        silent_reached,
        sum(len(s.arrivals) - len({n for _, n in s.arrivals}) for s in streams),
        refusals,
        _questions(lab),
        lab.lwb4s.messages() - made,
        {
            way: sorted(when - killed for s in streams if s.way == way for when, _ in s.arrivals)
            for way in ("up", "down")
        },
    )


def outage_of(stream: Stream, since: float, until: float, end: float) -> float:
    """Seconds without a packet, as ``outage`` counts them, less those between any two."""
    arrivals = [when for when, _ in stream.arrivals]
    return max(0.0, outage(arrivals, since, until, end) - INTERVAL)


def losses(streams: Sequence[Stream], since: float, until: float) -> tuple[int, int]:
    """Packets lost and sent between two times, without those under way at the end."""
    lost = sent = 0
    for stream in streams:
        arrived = {number for _, number in stream.arrivals}
        numbers = [n for n, at in enumerate(stream.sent) if since <= at < until - 0.1]
        sent += len(numbers)
        lost += sum(number not in arrived for number in numbers)
    return lost, sent


def _questions(lab: FailoverBuilder) -> int:
    """How often lwAFTRs that live have asked the supporting system."""
    total = 0
    for name, lwaftr in lab.lwaftrs.items():
        found = lwaftr.ask(f"/v1/failover/{name}") if lwaftr.pid("ryu-manager") else None
        validation = found and found["validation"]
        if validation:
            total += sum(outcome["count"] for outcome in validation["outcomes"].values())
    return total
