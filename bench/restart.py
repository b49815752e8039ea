"""What a controller's death costs: packets, time, flows rewritten.

The controller is killed (kill -9) and started anew while a subscriber's packets flow. A flow of
the switch that is younger than the kill was rewritten.
"""

from __future__ import annotations

import re
import time
from datetime import datetime

from bench.rig import BRIDGE, Result, Rig, Row, Stream, bindings, lwaftr
from tests.support.ovs import wait_for

BINDINGS = 10_000
MOST_SECONDS = 2.0


def measure() -> Result:
    with lwaftr(BINDINGS) as rig:
        rig.controller.start()
        rig.wait_ready()
        with Stream(rig, bindings(1)[0]) as stream:
            time.sleep(2)
            killed = time.monotonic()
            rig.controller.kill()
            rig.controller.start()
            wait_for("both next hops are found again", rig.ready)
            time.sleep(2)
        switch = rig.controller.switch()
        rewritten = _younger_than(rig, time.monotonic() - killed)
    connected, reconciled = switch["connected_at"], switch["last_reconcile"]["at"]
    elapsed = datetime.fromisoformat(reconciled) - datetime.fromisoformat(connected)
    seconds = elapsed.total_seconds()
    loss = stream.loss
    return Result(
        [
            Row("packets lost", f"{loss.lost} of {loss.sent}", "0", loss.lost == 0),
            Row(
                f"connection to READY, {BINDINGS:,} bindings", f"{seconds:.2f} s",
                f"<= {MOST_SECONDS:.0f} s", seconds <= MOST_SECONDS,
            ),
            Row("flows rewritten", str(rewritten), "0", rewritten == 0),
        ],
        {
            "bindings": BINDINGS, "sent": loss.sent, "lost": loss.lost,
            "packets_per_second": loss.packets_per_second, "seconds_to_ready": seconds,
            "flows_rewritten": rewritten,
        },
    )  # fmt: skip


def _younger_than(rig: Rig, seconds: float) -> int:
    """How many flows the switch was given in the last ``seconds`` seconds."""
    text = rig.ovs("ovs-ofctl", "-OOpenFlow13", "dump-flows", BRIDGE)
    ages = [float(age) for age in re.findall(r"duration=([0-9.]+)s", text)]
    assert len(ages) > 2 * BINDINGS, len(ages)
    return sum(age < seconds for age in ages)
