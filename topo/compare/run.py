"""Measures every run of the comparison, one lab after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from topo.compare.measure import Measured, measure
from topo.compare.runs import RUNS, Run
from topo.failover.build import FailoverBuilder


def compare(
    name: str, say: Callable[[str], None], runs: Sequence[Run] = RUNS
) -> list[Measured]:  # fmt: skip
    """``name`` is the labs'. Each is taken down when it has been measured. Raises LabError."""
    found = []
    for run in runs:
        _say(say, run, run.how)
        lab = FailoverBuilder(run.lab(name))
        lab.down()
        try:
            lab.up()
            found.append(measure(lab, run, partial(_say, say, run)))
        except BaseException:
            lab.down(keep_logs=True)
            raise
        lab.down()
    return found


def _say(say: Callable[[str], None], run: Run, text: str) -> None:
    say(f"{run.title}: {text}")
