"""Ten thousand subscribers with live UDP streams, and their primary lwAFTR dies (kill -9).

In the failover lab: data-packet trigger, BGP, and a PostgreSQL that is the supporting system of
both lwAFTRs, each of which has a SQLite store of its own. Each subscriber sends a packet every half
a second; restored is who has a packet come out of the backup.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from bench.rig import PARAMS, Result, Row, discard
from bench.traffic import Collector, flood, from_each, sent
from ryu_lw4o6.core.binding import Binding
from ryu_lw4o6.store import Store
from topo.failover.build import FailoverBuilder
from topo.failover.faults import How, Role, fail
from topo.failover.plan import FailoverLab, database_url
from topo.nodes import wait_for
from topo.plan import ANYCAST, FULL, SERVER, Site, subscribers

SUBSCRIBERS = 10_000
INTERVAL = 0.5
MOST_SECONDS = 2.0
SHARE = 0.99
POOL = IPv4Network("198.19.0.0/24")
_WARM_UP, _AFTER = 12.0, 8.0
_TAG = b"subscriber"
_AT = 14 + 20 + 8


@dataclass(frozen=True)
class _Lab(FailoverLab):
    """With addresses for many subscribers, who are but the frames that a generator sends."""

    def pools(self, site: Site) -> tuple[IPv4Network, IPv4Network]:
        return POOL, FULL


def measure() -> Result:
    with _lab() as lab:
        made = _bindings(lab)
        streams = _frames(lab, made)
        second = lab.lwaftrs[Role.BACKUP.site(lab).name]
        link = f"core{Role.BACKUP.site(lab).number}"
        out = Collector(
            lab.namespace("border"), link, _AT, _TAG, _AT + len(_TAG), SUBSCRIBERS
        )  # fmt: skip
        pace = int(SUBSCRIBERS / INTERVAL)
        sending = flood(lab.namespace("tun1"), "wan", streams, _WARM_UP + _AFTER, pace)
        wait_for("the primary has them all", lambda: _has_all(lab), _WARM_UP)
        killed = time.monotonic()
        fail(lab, Role.PRIMARY, How.KILL)
        sent(sending)
        seconds = out.stop().seconds(killed)
        validation = second.ask(f"/v1/failover/{second.name}")["validation"]
    in_time = sum(1 for second in seconds if second <= MOST_SECONDS)
    share = in_time / SUBSCRIBERS
    at = [seconds[min(len(seconds), SUBSCRIBERS * n // 100) - 1] for n in (50, 99, 100)]
    rows = [
        Row(f"restored within {MOST_SECONDS:.0f} s", f"{share:.1%} of {SUBSCRIBERS:,}",
            f">= {SHARE:.0%}", share >= SHARE),
        Row("restored in the end", f"{len(seconds):,}", f"{SUBSCRIBERS:,}",
            len(seconds) == SUBSCRIBERS),
        Row("kill to first packet, p50 / p99 / last", " / ".join(f"{s:.2f}" for s in at) + " s"),
    ]  # fmt: skip
    return Result(rows, {
        "subscribers": SUBSCRIBERS, "within": in_time, "p50_p99_last_seconds": at,
        "validation": validation,
    })  # fmt: skip


@contextlib.contextmanager
def _lab() -> Iterator[FailoverBuilder]:
    lab = FailoverBuilder(_Lab("lw4o6-bench", subscribers(1)))
    lab.down()
    try:
        lab.up()
        discard(lab.namespace("inet"), "eth0")
        yield lab
    finally:
        lab.down()


def _bindings(lab: FailoverBuilder) -> list[Binding]:
    """What the supporting system knows from now on."""
    first = lab.lab.subscribers[0].lwb4 + 0x10000
    made = [Binding(first + n, POOL[1 + (n >> 6)], n & 63, PARAMS) for n in range(SUBSCRIBERS)]
    with contextlib.closing(Store(database_url(str(lab.directory)))) as store:
        store.save(made, [])
    return made


def _frames(lab: FailoverBuilder, made: Sequence[Binding]) -> list[bytes]:
    """A packet of each, as it comes to the access router where the lab's own subscriber is."""
    text = lab.run("access", "ip", "-j", "link", "show", "dev", "sub1").stdout
    router = json.loads(text)[0]["address"]
    sample = bytes(
        Ether(dst=router, src="02:00:00:00:00:01")
        / IPv6(src=str(made[0].lwb4), dst=str(ANYCAST), nh=4)
        / IP(src=str(made[0].ipv4), dst=str(SERVER))
        / UDP(sport=1024, dport=9, chksum=0)
        / Raw(_TAG + bytes(4))
    )
    return from_each(sample, made)


def _has_all(lab: FailoverBuilder) -> bool:
    found = lab.lwaftr.ask("/v1/switches")
    return bool(found and found["switches"][0]["bindings"] >= SUBSCRIBERS)
