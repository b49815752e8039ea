"""What a failover costs a subscriber: from the primary's kill to the first packet by the backup.

In the failover lab, with BGP between lwAFTRs and routers. The backup has no binding and asks a
PostgreSQL (data-packet trigger). The subscriber sends a packet every 2 ms; how long the lwAFTR had
the first one is seen on the wires on either side of it, by the kernel's time stamps.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.rig import Result, Row
from topo.compare.statistics import percentile
from topo.failover import faults
from topo.failover.build import FailoverBuilder
from topo.failover.faults import How, Role
from topo.failover.plan import FailoverLab
from topo.nodes import wait_for
from topo.plan import SERVER, subscribers

ROUNDS = 30
_INTERVAL = 0.002
_PORT = 9
_TIMESTAMP = 35  # SO_TIMESTAMPNS, which Python has no name for
_ALL = 3  # ETH_P_ALL
_IPIP, _NEXT_HEADER = 4, 14 + 6
_MOST_P50, _MOST_P99, _MOST_OURS = 0.100, 0.250, 0.005


class Round(NamedTuple):
    """Seconds: from the kill to the first packet on the way out of the backup, and from its way
    in to its way out."""

    outage: float
    ours: float


def measure() -> Result:
    lab = FailoverBuilder(FailoverLab("lw4o6-bench", subscribers(1)))
    lab.down()
    try:
        lab.up()
        with _sender(lab):
            rounds = [_round(lab) for _ in range(ROUNDS)]
    finally:
        lab.down()
    outages, ours = [r.outage for r in rounds], [r.ours for r in rounds]
    return Result(
        [
            _row("kill to first packet, p50", percentile(outages, 50), _MOST_P50),
            _row("kill to first packet, p99", percentile(outages, 99), _MOST_P99),
            _row("of that the lwAFTR's, p50", percentile(ours, 50), _MOST_OURS),
        ],
        {"rounds": ROUNDS, "outages": outages, "ours": ours},
    )


def _row(what: str, seconds: float, most: float) -> Row:
    return Row(what, f"{seconds * 1e3:.1f} ms", f"<= {most * 1e3:.0f} ms", seconds <= most)


def _round(lab: FailoverBuilder) -> Round:
    (sub,) = lab.lab.subscribers
    first, second = lab.lwaftrs.values()
    path = f"/v1/bindings/{sub.ipv4}/{sub.psid}"
    wait_for("the primary has the binding", lambda: first.ask(path))
    second.rest("DELETE", f"{path}?wait=applied")
    for cpu, lwaftr in enumerate((first, second)):
        _pin(lab.namespace(lwaftr.name), cpu)
    with _wire(lab, "access") as before, _wire(lab, "border") as behind:
        killed = time.time()
        faults.fail(lab, Role.PRIMARY, How.KILL)
        time.sleep(2 * _MOST_P99)  # asking would be in the way
        wait_for("the backup has the binding", lambda: second.ask(path))
        shown = min(at for at, frame in _frames(before) if frame[_NEXT_HEADER] == _IPIP)
        sent_on = min(at for at, frame in _frames(behind) if frame[12:14] == b"\x08\x00")
    faults.recover(lab, Role.PRIMARY)
    return Round(sent_on - killed, sent_on - shown)


def _pin(namespace: str, cpu: int) -> None:
    """Each lwAFTR has a processor, as if it were a machine of its own: one that dies takes 30 ms of
    processor time to do so, in the very moment when the other one is needed."""
    inode = Path(f"/run/netns/{namespace}").stat().st_ino
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and (process / "ns/net").stat().st_ino == inode:
                for thread in (process / "task").iterdir():
                    os.sched_setaffinity(int(thread.name), {cpu % (os.cpu_count() or 1)})


@contextlib.contextmanager
def _sender(lab: FailoverBuilder) -> Iterator[None]:
    """The subscriber sends all the time."""
    (sub,) = lab.lab.subscribers
    stop = threading.Event()
    with lab.inside(sub.host):
        end = socket.socket(type=socket.SOCK_DGRAM)

    def send() -> None:
        while not stop.wait(_INTERVAL):
            with contextlib.suppress(OSError):
                end.sendto(b"packet", (str(SERVER), _PORT))

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        end.close()


@contextlib.contextmanager
def _wire(lab: FailoverBuilder, router: str) -> Iterator[socket.socket]:
    """A router's link to the backup, both ways."""
    with lab.inside(router), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        wire.setsockopt(socket.SOL_SOCKET, _TIMESTAMP, 1)
        wire.bind(("core2", _ALL))
        wire.setblocking(False)
        yield wire


def _frames(wire: socket.socket) -> Iterator[tuple[float, bytes]]:
    """What has passed: when (Unix time), and the frame."""
    with contextlib.suppress(BlockingIOError):
        while True:
            frame, ancillary, _, _ = wire.recvmsg(2048, socket.CMSG_SPACE(16))
            seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
            yield seconds + nanoseconds / 1e9, frame
