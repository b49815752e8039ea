"""The supporting system, a PostgreSQL, is killed (kill -9) and started again in a storm.

Subscribers without a binding go on sending all the while, some from addresses that are not theirs.
In the end everybody who may has a binding and nobody else, and those who had one before have lost
nothing.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from ipaddress import IPv6Address
from pathlib import Path

from bench.rig import CONFIG, Result, Rig, Row, bindings, lwaftr
from bench.traffic import Collector, Known, flood, from_each, sample, sent
from ryu_lw4o6.core.binding import BindingKey, Origin
from ryu_lw4o6.store import Store
from tests.support.ovs import wait_for
from tests.support.postgres import Postgres

SUBSCRIBERS = 20_000
IMPOSTORS = 1_000
"""They send from the address and port set of one of the first subscribers."""

PACE = 5_000
SECONDS, KILL_AT, START_AT = 20.0, 1.5, 5.0
KNOWN = 1000
_FIRST = 64_000
_TAG = b"stormy lwB4"


def measure() -> Result:
    owners = bindings(SUBSCRIBERS, _FIRST)
    strangers = [
        replace(owner, lwb4=IPv6Address(int(owner.lwb4) | 0xBAD << 48))
        for owner in owners[:IMPOSTORS]
    ]
    with _postgres() as postgres:
        store = Store(postgres.url)
        store.save(owners, [])
        store.close()
        system = f"supporting_system: {{{{store: '{postgres.url}', remember_no: 2}}}}\n"
        with lwaftr(KNOWN, system + CONFIG + "    failover: data-packet\n") as rig:
            rig.controller.start()
            rig.wait_ready()
            frames = from_each(sample(_TAG), [*strangers, *owners])
            at = 14 + 20 + 8
            out = Collector(rig.outside, "wire4", at, _TAG, at + len(_TAG), len(frames))
            connections = rig.controller.switch()["connections"]
            with Known(rig, SECONDS + 1) as known:
                started = time.monotonic()
                sending = flood(rig.outside, "wire6", frames, SECONDS, PACE)
                time.sleep(KILL_AT)
                postgres.kill()
                time.sleep(START_AT - KILL_AT)
                postgres.start()
                back = time.monotonic() - started
                sent(sending)
            found = out.stop()
            made = _made(rig)
            crashes = rig.controller.switch()["connections"] - connections
            validation = rig.controller.rest("GET", "/v1/failover/lwaftr1")[1]["validation"]
    through = sum(1 for count in found.count[:IMPOSTORS] if count)
    restored = [t - started for t in found.first[IMPOSTORS:] if t]
    right = {binding.key: binding.lwb4 for binding in owners}
    wrong = sum(right.get(key) != lwb4 for key, lwb4 in made.items())
    loss = known.loss
    rows = [
        Row("subscribers restored", f"{len(restored):,} of {SUBSCRIBERS:,}", f"{SUBSCRIBERS:,}",
            len(restored) == SUBSCRIBERS),
        Row("wrong bindings", str(wrong), "0", wrong == 0),
        Row("impostors' packets through", str(through), "0", through == 0),
        Row("connections lost, controllers crashed", str(crashes), "0", crashes == 0),
        Row("known subscribers' packets lost", f"{loss.lost:,} of {loss.sent:,}", "0",
            loss.lost == 0),
        Row("server back to the last one restored",
            f"{max(restored, default=0) - back:.1f} s (it was away for {back - KILL_AT:.1f} s)"),
    ]  # fmt: skip
    return Result(rows, {"validation": validation, "known": asdict(loss), "bindings": len(made)})


@contextlib.contextmanager
def _postgres() -> Iterator[Postgres]:
    directory = Path(tempfile.mkdtemp(prefix="lw4o6-bench-"))
    directory.chmod(0o755)
    server = Postgres(directory)
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory)


def _made(rig: Rig) -> dict[BindingKey, IPv6Address]:
    """The lwB4 of every binding that was validated."""
    wait_for("the switch has confirmed", lambda: not rig.controller.switch()["backlog"], 30)
    store = Store(f"sqlite:///{rig.ovs.directory}/bindings.sqlite")
    with contextlib.closing(store):
        stored = store.load().bindings
    return {b.key: b.lwb4 for b in stored if b.origin is Origin.VALIDATED}
