"""What a failover costs that provisions everybody anew: PCP, and DHCPv4 over DHCPv6.

5,000 lwB4s have live traffic and a lease of a lwAFTR that is no more. The one under test, which has
never heard of them, refuses their packets; each provisions again (``bench.fleet``).

DHCP is as fast as the server: the same lwB4s ask the same Kea whether their leases still hold, once
by the lwAFTR and once without it.
"""

from __future__ import annotations

import contextlib
import json
import select
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.fleet import Dhcp, Fleet, Softwires, address, duplicates, percentile
from bench.rig import AFTR, MTU, Result, Rig, Row, lwaftr
from ryu_lw4o6.core.config import load
from ryu_lw4o6.core.settings import Failover
from ryu_lw4o6.provisioning import kea_config
from tests.support.kea import Kea, server
from tests.support.netns import namespace
from tests.support.ovs import run
from topo.compare.traffic import Traffic
from topo.failover import faults
from topo.failover.build import FailoverBuilder
from topo.failover.faults import How, Role
from topo.failover.plan import FailoverLab
from topo.lwb4 import dhcp, pcp
from topo.lwb4.lease import Lease
from topo.nodes import wait_for
from topo.plan import SERVER, Subscriber, subscribers
from topo.provisioning import Provisioning

LWB4S = 5_000
PACKETS_PER_SECOND = 5_000
"""Of all subscribers together: each sends one a second."""
AT_ONCE = 200
"""LwB4s that wait for the DHCP server at a time: what it does not drop."""
PATIENCE = 60.0  # seconds
FAILOVERS = 5
MOST_SECONDS = (0.3, 0.5)
"""From the kill to the first packet by the backup, half of the times: PCP, DHCP."""
PCP_PER_SECOND = 2_000
DHCP_SHARE = 0.8
"""Of the rate without the lwAFTR in the path."""
KEA = "2001:db8:9::67"

_INSTANCES = f"""\
instances:
  - name: lwaftr1
    datapath_id: 1
    bridge: br0
    aftr_addresses: ["{AFTR}"]
    ipv6: {{{{port: eth6, address: "2001:db8:1::1/64", next_hop: "2001:db8:1::fe", mtu: {MTU}}}}}
    ipv4: {{{{port: eth4, address: 198.51.100.1/24, next_hop: 198.51.100.254}}}}
"""
PCP_CONFIG = f"""\
store: sqlite:///{{directory}}/bindings.sqlite
prefixes:
  - {{{{prefix: 198.18.0.0/24, psid_offset: 0, psid_length: 6}}}}
{_INSTANCES}\
    pcp: {{{{}}}}
"""
DHCP_CONFIG = f"""\
store: sqlite:///{{directory}}/bindings.sqlite
prefixes:
  - {{{{prefix: 198.18.0.0/24, psid_offset: 6, psid_length: 6, leased_as: 10.64.0.0/18}}}}
{_INSTANCES}\
    dhcp: {{{{server: "{KEA}"}}}}
"""


@dataclass(frozen=True)
class Run:
    """``seconds`` from the first packet that was refused, or the first request, to the last lease;
    ``each`` from a lwB4's own to its lease."""

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
    through, direct = _dhcp()
    share = through.per_second / direct.per_second
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
            *_rows("PCP", by_pcp),
            Row(
                "PCP: lwB4s provisioned anew", f"{by_pcp.per_second:,.0f}/s",
                f">= {PCP_PER_SECOND:,}/s", by_pcp.per_second >= PCP_PER_SECOND,
            ),
            *_rows("DHCP", through),
            Row("DHCP: lwB4s provisioned anew", f"{through.per_second:,.0f}/s"),
            Row("DHCP: the same by Kea alone", f"{direct.per_second:,.0f}/s"),
            Row("DHCP: share of that", f"{share:.2f}", f">= {DHCP_SHARE}", share >= DHCP_SHARE),
        ],
        {
            name: {"bound": found.bound, "seconds": found.seconds, "messages": found.messages}
            for name, found in (("pcp", by_pcp), ("dhcp", through), ("kea", direct))
        }
        | {"seconds_to_backup": single},
    )  # fmt: skip


def _rows(protocol: str, found: Run) -> list[Row]:
    return [
        Row(
            f"{protocol}: {LWB4S:,} lwB4s bound", f"{found.bound:,}, {found.applied:,} applied",
            "all", found.bound == found.applied == LWB4S,
        ),
        Row(f"{protocol}: port sets given out twice", str(found.duplicates), "0",
            found.duplicates == 0),
        Row(
            f"{protocol}: one lwB4",
            f"p50 {percentile(found.each, 0.5) * 1000:.0f} ms, "
            f"p99 {percentile(found.each, 0.99) * 1000:.0f} ms",
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
    applied = _applied(rig)
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


# --- DHCP -----------------------------------------------------------------------------------------


def _dhcp() -> tuple[Run, Run]:
    """By the lwAFTR, and without it."""
    with (
        lwaftr(0, DHCP_CONFIG) as rig,
        namespace() as place,
        tempfile.TemporaryDirectory(prefix="lw4o6-kea-") as directory,
    ):
        _connect(rig.outside, place)
        rig.controller.start()
        rig.wait_ready()
        settings = load(rig.controller.config)
        machine = server(Path(directory), "kea0", lease_seconds=7200)
        configurations = {
            "dhcp4": kea_config.dhcp4(settings, machine),
            "dhcp6": kea_config.dhcp6(settings, machine),
        }
        with (
            _kea(directory, configurations, place),
            contextlib.closing(Dhcp(rig.outside, AFTR)) as transport,
        ):
            fleet = Fleet(_clients(), transport)
            _ask(fleet)  # everybody gets a lease; and then there is another lwAFTR
            rig.controller.kill()
            for file in rig.ovs.directory.glob("bindings.sqlite*"):
                file.unlink()
            rig.controller.start()
            rig.wait_ready()
            through = _ask(fleet, rig)
        # Without relays, Kea knows by the lwB4's own address where it belongs.
        for network in configurations["dhcp4"]["Dhcp4"]["shared-networks"]:
            for subnet in network["subnet4"]:
                subnet["4o6-subnet"] = "2001:db8:b4::/64"
        for file in Path(directory).glob("kea-leases*"):
            file.unlink()
        with (
            _kea(directory, configurations, place),
            contextlib.closing(Dhcp(rig.outside, KEA)) as transport,
        ):
            fleet = Fleet(_clients(), transport)
            _ask(fleet)
            return through, _ask(fleet)


def _clients() -> list[dhcp.Client]:
    # The server is known: it is the transport that finds it.
    return [
        dhcp.Client(dhcp.Config(address(n), b"\0\3\0\1" + n.to_bytes(6, "big"), servers=()))
        for n in range(LWB4S)
    ]


def _connect(outside: str, place: str) -> None:
    """A link from the access router to the DHCP server, and the lwB4s' addresses at the router."""
    run("ip", "link", "add", "kea0", "netns", place, "type", "veth", "peer", "name", "kea1",
        "netns", outside)  # fmt: skip
    for name, command in (
        (place, "link set kea0 up"),
        (outside, "link set kea1 up"),
        (place, f"addr add {KEA}/64 dev kea0 nodad"),
        (place, "addr add 198.51.100.67/32 dev kea0"),
        (outside, "addr add 2001:db8:9::fe/64 dev kea1 nodad"),
        (place, "-6 route add default via 2001:db8:9::fe"),
        (outside, "-6 route add local 2001:db8:b4::/64 dev lo"),
        (outside, f"-6 route add {AFTR}/128 via 2001:db8:1::1"),
    ):
        run("ip", "-n", name, *command.split())
    run("ip", "netns", "exec", outside, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    # Open vSwitch would hand on frames whose checksums a NIC was to fill in.
    run("ip", "netns", "exec", outside, "ethtool", "-K", "wire6", "tx", "off")


@contextlib.contextmanager
def _kea(directory: str, configurations: dict[str, Any], place: str) -> Iterator[None]:
    kea = Kea(Path(directory), json.loads(json.dumps(configurations)), place)
    try:
        kea.start()
        yield
    finally:
        kea.stop()


def _ask(fleet: Fleet, rig: Rig | None = None) -> Run:
    """Let all provision, some at a time; a lwB4 that has a lease asks whether it still holds."""
    fleet.bound_at.clear()
    began = time.monotonic()
    before = fleet.sent + fleet.received
    asked: dict[int, float] = {}
    while len(fleet.bound_at) < LWB4S and time.monotonic() < began + PATIENCE:
        while len(asked) < LWB4S and len(asked) - len(fleet.bound_at) < AT_ONCE:
            asked[len(asked)] = time.monotonic()
            fleet.start(len(asked) - 1)
        select.select([fleet.transport], [], [], 0.001)
        fleet.work()
    return Run(
        len(fleet.bound_at),
        duplicates(fleet.leases.values()),
        0 if rig is None else _applied(rig),
        max(fleet.bound_at.values(), default=began) - began,
        [at - asked[number] for number, at in fleet.bound_at.items()],
        fleet.sent + fleet.received - before,
    )


def _applied(rig: Rig) -> int:
    """How many bindings the switch has confirmed."""
    status, body = rig.controller.rest("GET", "/v1/switches/lwaftr1")
    assert status == 200
    return int(body["bindings"])
