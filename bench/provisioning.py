"""What a failover costs that provisions everybody anew: PCP, and DHCPv4 over DHCPv6.

5,000 lwB4s have live traffic and a lease of a lwAFTR that is no more. The one under test, which has
never heard of them, refuses their packets; each provisions again (``bench.fleet``).

DHCP can be no faster than its server: the same lwB4s ask the same Kea, with the lwAFTR in the path
and without it (``bench.dhcp``).
"""

from __future__ import annotations

import dataclasses
import select
import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import pairwise

from bench import dhcp
from bench.fleet import Fleet, Softwires, duplicates, percentile
from bench.rig import INSTANCE, Result, Rig, Row, lwaftr
from ryu_lw4o6.core.settings import Failover
from topo.compare.traffic import Traffic
from topo.failover import faults
from topo.failover.build import FailoverBuilder
from topo.failover.faults import How, Role
from topo.failover.plan import FailoverLab
from topo.lwb4 import pcp
from topo.lwb4.lease import Lease
from topo.nodes import wait_for
from topo.plan import SERVER, Subscriber, subscribers
from topo.provisioning import Provisioning

LWB4S = 5_000
PACKETS_PER_SECOND = 5_000
"""Of all subscribers together: each sends one a second."""
PATIENCE = 60.0  # seconds
FAILOVERS = 5
MOST_SECONDS = (0.3, 0.5)
"""From the kill to the first packet by the backup, half of the times: PCP, DHCP."""
PCP_PER_SECOND = 2_000
DHCP_SHARE = 0.8
"""Of the rate without the lwAFTR in the path."""

PCP_CONFIG = f"""\
store: sqlite:///{{directory}}/bindings.sqlite
prefixes:
  - {{{{prefix: 198.18.0.0/24, psid_offset: 0, psid_length: 6}}}}
{INSTANCE}\
    pcp: {{{{}}}}
"""


@dataclass(frozen=True)
class Run:
    """``seconds`` from the first packet that was refused to the last lease; ``each`` from a lwB4's
    own to its lease."""

    bound: int
    duplicates: int
    applied: int
    seconds: float
    each: Sequence[float]
    messages: int

    @property
    def per_second(self) -> float:
        return self.bound / self.seconds


def measure() -> Result:
    by_pcp = _pcp()
    by_dhcp = dhcp.measure(LWB4S)
    single = {
        protocol: _failovers(provisioning)
        for protocol, provisioning in (("PCP", Provisioning.PCP), ("DHCP", Provisioning.DHCP))
    }
    return Result(
        [
            *(
                Row(
                    f"{protocol}: kill to first packet by the backup",
                    f"p50 {percentile(times, 0.5) * 1000:.0f} ms, "
                    f"max {max(times) * 1000:.0f} ms",
                    f"p50 <= {most * 1000:.0f} ms", percentile(times, 0.5) <= most,
                )
                for (protocol, times), most in zip(single.items(), MOST_SECONDS, strict=True)
            ),
            *_rows("PCP", by_pcp.bound, by_pcp.applied, by_pcp.duplicates, by_pcp.each),
            Row(
                "PCP: lwB4s provisioned anew", f"{by_pcp.per_second:,.0f}/s",
                f">= {PCP_PER_SECOND:,}/s", by_pcp.per_second >= PCP_PER_SECOND,
            ),
            *_dhcp_rows(by_dhcp),
        ],
        {
            "pcp": {
                "bound": by_pcp.bound, "seconds": by_pcp.seconds, "messages": by_pcp.messages,
            },
            "dhcp": dataclasses.asdict(by_dhcp),
            "seconds_to_backup": single,
        },
    )  # fmt: skip


def _dhcp_rows(found: dhcp.Found) -> list[Row]:
    through, alone = dhcp.best(found.through), dhcp.best(found.alone)
    share = through.per_second / alone.per_second
    bound = min(run.bound for run in found.through)
    return [
        *_rows("DHCP", bound, min(found.applied), found.duplicates, through.each),
        *(
            Row(
                f"DHCP: {name}, {run.window} at once", f"{run.per_second:,.0f}/s",
                "" if run.again == 0 else f"{run.again} asked again",
            )
            for name, runs in (("by the lwAFTR", found.through), ("Kea alone", found.alone))
            for run in runs
        ),
        Row("DHCP: what the lwB4s could take", f"{found.echo:,.0f}/s"),
        *(
            Row(f"DHCP: processor time each, {name}", _times(run))
            for name, run in (("by the lwAFTR", through), ("Kea alone", alone))
        ),
        Row("DHCP: share if each had a processor", f"{found.share_apart:.2f}"),
        Row("DHCP: share of Kea alone", f"{share:.2f}", f">= {DHCP_SHARE}", share >= DHCP_SHARE),
    ]  # fmt: skip


def _times(run: dhcp.Run) -> str:
    times = {name: run.microseconds(name) for name in run.processor}
    return ", ".join(f"{name} {each:.0f} us" for name, each in times.items() if each >= 5)


def _rows(protocol: str, bound: int, applied: int, twice: int, each: Sequence[float]) -> list[Row]:
    return [
        Row(
            f"{protocol}: {LWB4S:,} lwB4s bound", f"{bound:,}, {applied:,} applied",
            "all", bound == applied == LWB4S,
        ),
        Row(f"{protocol}: port sets given out twice", str(twice), "0", twice == 0),
        Row(
            f"{protocol}: one lwB4",
            f"p50 {percentile(each, 0.5) * 1000:.0f} ms, "
            f"p99 {percentile(each, 0.99) * 1000:.0f} ms",
        ),
    ]  # fmt: skip


def _pcp() -> Run:
    # What each had before: the same pool, its lwB4s in another order.
    leases = [
        Lease(IPv4Address(int(IPv4Address("198.18.0.0")) + n // 63),
              (range((n % 63 + 1) * 1024, (n % 63 + 2) * 1024),))
        for n in range(LWB4S)
    ]  # fmt: skip
    with lwaftr(0, PCP_CONFIG) as rig:
        rig.controller.start()
        rig.wait_ready()
        softwires = Softwires(rig.outside, "wire6")
        clients = [
            pcp.Client(n.to_bytes(12, "big"), phase=pcp.Phase.BOUND, suggested=leases[n],
                       granted=pcp.Granted(leases[n], 0.0, time.monotonic() + 7200))
            for n in range(LWB4S)
        ]  # fmt: skip
        fleet = Fleet(clients, softwires)
        try:
            return _run(rig, fleet, softwires, leases)
        finally:
            softwires.close()


def _run(rig: Rig, fleet: Fleet, softwires: Softwires, leases: Sequence[Lease]) -> Run:
    """Let all send, a packet in turn, until all are bound."""
    began = time.monotonic()
    refused: dict[int, float] = {}
    sent = 0
    while len(fleet.bound_at) < LWB4S and time.monotonic() < began + PATIENCE:
        due = int((time.monotonic() - began) * PACKETS_PER_SECOND)
        while sent < due:
            number = sent % LWB4S
            softwires.data(number, fleet.leases.get(number, leases[number]), b"live")
            sent += 1
        select.select([softwires, fleet.transport], [], [], 0.001)
        fleet.work()
        for number in softwires.refused:
            if number < LWB4S and number not in refused:
                refused[number] = time.monotonic()
                fleet.start(number)
        softwires.refused.clear()
    applied = dhcp.applied(rig)
    return Run(
        len(fleet.bound_at),
        duplicates(fleet.leases.values()),
        applied,
        max(fleet.bound_at.values(), default=0.0) - min(refused.values(), default=0.0),
        [at - refused[number] for number, at in fleet.bound_at.items()],
        fleet.sent + fleet.received,
    )


# --- one subscriber, in the failover lab ----------------------------------------------------------


def _failovers(provisioning: Provisioning) -> list[float]:
    """Seconds from the kill of the primary to the first packet by the backup, each time."""
    lab = FailoverBuilder(
        FailoverLab(
            "lw4o6-bench", subscribers(1), provisioning=provisioning, mechanism=Failover.ICMPV6,
            own_pools=provisioning is Provisioning.PCP,
        )
    )  # fmt: skip
    lab.down()
    try:
        lab.up()
        return [_failover(lab) for _ in range(FAILOVERS)]
    finally:
        lab.down()


def _failover(lab: FailoverBuilder) -> float:
    (sub,) = lab.lab.subscribers
    # After a return, too, it is the first packet that lets the lwB4 provision.
    wait_for("the subscriber is at the primary", lambda: _reaches(lab, sub))
    with Traffic(lab, [sub]) as traffic:
        traffic.wait_flowing()
        stream = traffic.streams[sub.number, "up"]
        killed = time.monotonic()
        faults.fail(lab, Role.PRIMARY, How.KILL)
        before = len(stream.arrivals)
        wait_for("packets come by the backup", lambda: len(stream.arrivals) > before + 50)
        # What was under way at the kill may have arrived after it.
        times = [killed, *(when for when, _ in stream.arrivals if when > killed)]
        _, first = max(pairwise(times), key=lambda pair: pair[1] - pair[0])
    faults.recover(lab, Role.PRIMARY)
    _forget(lab)
    return first - killed


def _forget(lab: FailoverBuilder) -> None:
    """Let the backup be one that has never heard of any binding."""
    backup = lab.lwaftrs[lab.lab.sites[1].name]
    backup.kill("ryu-manager")
    for file in backup.directory.glob("bindings.sqlite*"):
        file.unlink()
    backup.start_controller()
    wait_for("the backup is ready", lambda: backup.ready() and lab.converged(), 30)


def _reaches(lab: FailoverBuilder, sub: Subscriber) -> bool:
    ping = ("ping", "-c", "1", "-W", "1", str(SERVER))
    return lab.run(sub.host, *ping, check=False).returncode == 0
