"""What a run of all tests has shown: which tests passed, and which counters were seen to move."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from openflow_rules.tables import Drop
from ryu_lw4o6.softwire.maps import COUNTERS

COMPLIANCE = Path(__file__).parents[2] / "docs/rfc7596.md"

UNREACHABLE = {
    "drop_softwire_not_ipv4": "the shim refuses it first (refused_not_ipv4)",
    "drop_tagged": "needs a NIC that takes tags away (tests/rules/test_trace.py)",
}
"""Counters that nothing on a wire can move: a second line of defence."""

_moved: set[str] = set()
_passed: set[str] = set()


def moved(names: Iterable[str]) -> None:
    """A test has seen these counters move as it expected."""
    _moved.update(names)


def seen_to_move() -> list[str]:
    """The counters that tests of this process have seen move."""
    return sorted(_moved)


def passed(node_id: str) -> None:
    """A test has passed; which parameters it had does not matter."""
    _passed.add(node_id.partition("[")[0])


def named_tests() -> list[str]:
    """The tests that docs/rfc7596.md names, as ``tests/x/test_y.py::test_z``."""
    return re.findall(r"`(tests/[\w/]+\.py::\w+)`", COMPLIANCE.read_text())


def missing() -> list[str]:
    """What a full run should have shown and has not."""
    counters = {f"drop_{drop.name.lower()}" for drop in Drop} | set(COUNTERS)
    still = sorted(counters - _moved - set(UNREACHABLE))
    return [
        *(f"docs/rfc7596.md names {test}, which did not pass" for test in named_tests()
          if test not in _passed),
        *(f"no test has seen {name} move" for name in still),
    ]  # fmt: skip
