"""What a failover costs that provisions everybody anew: PCP, and DHCPv4 over DHCPv6.

5,000 lwB4s have live traffic and a lease of a lwAFTR that is no more. The one under test, which has
never heard of them, refuses their packets; each provisions again (``bench.fleet``).
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from bench.fleet import Fleet, Softwires, duplicates, percentile
from bench.rig import AFTR, MTU, Result, Rig, Row, lwaftr
from topo.lwb4 import pcp
from topo.lwb4.lease import Lease

LWB4S = 5_000
PACKETS_PER_SECOND = 5_000
"""Of all subscribers together: each sends one a second."""
PATIENCE = 60.0  # seconds
PCP_PER_SECOND = 2_000

PCP_CONFIG = f"""\
store: sqlite:///{{directory}}/bindings.sqlite
prefixes:
  - {{{{prefix: 198.18.0.0/24, psid_offset: 0, psid_length: 6}}}}
instances:
  - name: lwaftr1
    datapath_id: 1
    bridge: br0
    aftr_addresses: ["{AFTR}"]
    ipv6: {{{{port: eth6, address: "2001:db8:1::1/64", next_hop: "2001:db8:1::fe", mtu: {MTU}}}}}
    ipv4: {{{{port: eth4, address: 198.51.100.1/24, next_hop: 198.51.100.254}}}}
    pcp: {{{{}}}}
"""


@dataclass(frozen=True)
class Run:
    """``seconds`` from the first packet that was refused to the last lease, ``each`` from a
    lwB4's first refusal to its lease."""

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
    found = _pcp()
    return Result(
        [
            Row(
                f"PCP: {LWB4S:,} lwB4s bound", f"{found.bound:,}, {found.applied:,} applied",
                "all", found.bound == found.applied == LWB4S,
            ),
            Row("PCP: port sets given out twice", str(found.duplicates), "0",
                found.duplicates == 0),
            Row(
                "PCP: lwB4s provisioned anew", f"{found.per_second:,.0f}/s",
                f">= {PCP_PER_SECOND:,}/s", found.per_second >= PCP_PER_SECOND,
            ),
            Row(
                "PCP: from refusal to lease",
                f"p50 {percentile(found.each, 0.5) * 1000:.0f} ms, "
                f"p99 {percentile(found.each, 0.99) * 1000:.0f} ms",
            ),
        ],
        {"pcp": {"bound": found.bound, "seconds": found.seconds, "messages": found.messages}},
    )  # fmt: skip


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
    applied = _applied(rig)
    return Run(
        len(fleet.bound_at),
        duplicates(fleet.leases.values()),
        applied,
        max(fleet.bound_at.values(), default=0.0) - min(refused.values(), default=0.0),
        [at - refused[number] for number, at in fleet.bound_at.items()],
        fleet.sent + fleet.received,
    )


def _applied(rig: Rig) -> int:
    """How many bindings the switch has confirmed."""
    status, body = rig.controller.rest("GET", "/v1/switches/lwaftr1")
    assert status == 200
    return int(body["bindings"])
