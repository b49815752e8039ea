"""How fast a switch gets its flows: the controller against Open vSwitch's own ``ovs-ofctl``.

An empty switch connects to a controller that has 100,000 bindings; counted is what the session
reports, from its first question to the switch to the barrier reply after its last bundle. Then
the same flows go to the same, again empty, switch by ``ovs-ofctl --bundle add-flows``.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

from bench.rig import BRIDGE, Result, Rig, Row, lwaftr
from openflow_rules.tables import CLASS_MASK, CookieClass, cookie

BINDINGS = 100_000
ROUNDS = 5
TARGET = 1.5
_OFCTL = ("ovs-ofctl", "-OOpenFlow13")
_BINDINGS = f"{cookie(CookieClass.BINDING):#x}/{CLASS_MASK:#x}"


def measure() -> Result:
    ours, theirs = [], []
    with lwaftr(BINDINGS) as rig:
        file = rig.ovs.directory / "flows.txt"
        for _ in range(ROUNDS):
            ours.append(_controller(rig))
            if not file.exists():
                _save_binding_flows(rig, file)
            theirs.append(_ofctl(rig, file))
    flows = 2 * BINDINGS
    a, b = flows / median(ours), flows / median(theirs)
    return Result(
        [
            Row("controller", f"{a:,.0f} flows/s"),
            Row("ovs-ofctl --bundle", f"{b:,.0f} flows/s"),
            Row("controller / ovs-ofctl", f"{a / b:.2f}", f">= {TARGET}", a / b >= TARGET),
        ],
        {"flows": flows, "controller_seconds": ours, "ovs_ofctl_seconds": theirs},
    )


def _controller(rig: Rig) -> float:
    """Seconds the controller takes for an empty switch."""
    rig.controller.start()
    found = rig.controller.switch()["last_reconcile"]
    rig.controller.kill()
    assert found["changed_bindings"] == BINDINGS, found
    return float(found["seconds"])


def _save_binding_flows(rig: Rig, file: Path) -> None:
    text = rig.ovs(*_OFCTL, "--no-stats", "--no-names", "dump-flows", BRIDGE, f"cookie={_BINDINGS}")
    lines = [line for line in text.splitlines() if "actions=" in line]
    assert len(lines) == 2 * BINDINGS, len(lines)
    file.write_text("\n".join(lines) + "\n")


def _ofctl(rig: Rig, file: Path) -> float:
    """Seconds ovs-ofctl takes for the empty switch, which is left empty again."""
    rig.ovs(*_OFCTL, "del-flows", BRIDGE)
    started = time.monotonic()
    rig.ovs(*_OFCTL, "--bundle", "add-flows", BRIDGE, str(file))
    seconds = time.monotonic() - started
    rig.ovs(*_OFCTL, "del-flows", BRIDGE)
    return seconds
