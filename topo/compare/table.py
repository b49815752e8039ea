"""The comparison of the slides as a table: their rows, with what was measured."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from topo.compare.measure import Measured, Phase
from topo.compare.statistics import percentile, shown

_LABEL, _CELL = 38, 24
_RUNS_ABREAST = 3


class Row(NamedTuple):
    """``group`` is the slides' own row that this one belongs to."""

    group: str
    label: str
    cell: Callable[[Measured], str]


def _outage(phase: Phase) -> str:
    p50, p99 = (shown(percentile(phase.outages, percent)) for percent in (50, 99))
    return f"{p50} / {p99}"


def restored(measured: Measured) -> bool:
    """Whether service went on while the primary was away."""
    return percentile(measured.failover.outages, 50) < measured.returned[0]


def _at_failover(measured: Measured) -> str:
    seconds = _outage(measured.failover)
    return seconds if restored(measured) else f"{seconds}: until the primary is back"


def _at_return(measured: Measured) -> str:
    return _outage(measured.back) if restored(measured) else "ends the outage"


def _lost(phase: Phase) -> str:
    return f"{phase.lost} of {phase.sent}"


def _address(measured: Measured) -> str:
    if not restored(measured):
        return "no service"
    changed = measured.failover.renumbered
    if not changed:
        return "yes"
    return "no" if changed == measured.busy else f"changed for {changed} of {measured.busy}"


ON_THE_SLIDES = "on the slides"
_POOLS, _IMPACT, _COST = (
    "Address pool configuration",
    "Impact on applications",
    "Implementation requirement",
)
ROWS: tuple[Row, ...] = (
    Row(_POOLS, ON_THE_SLIDES, lambda m: m.run.claims.pools),
    Row(_POOLS, "IPv4 prefixes of the lwAFTRs",
        lambda m: "each has its own" if m.own_pools else "both have the same"),
    Row(_IMPACT, ON_THE_SLIDES, lambda m: m.run.claims.impact),
    Row(_IMPACT, "outage, p50 / p99 of all streams", _at_failover),
    Row(_IMPACT, "packets lost while primary is away", lambda m: _lost(m.failover)),
    Row(_IMPACT, "public IPv4 address kept", _address),
    Row(_IMPACT, "outbound TCP that survived",
        lambda m: f"{m.failover.outbound} of {m.busy}"),
    Row(_IMPACT, "inbound TCP that survived",
        lambda m: f"{m.failover.inbound} of {m.busy}"),
    Row(_IMPACT, "reached anew at the old address", lambda m: f"{m.new_inbound} of {m.busy}"),
    Row(_IMPACT, "a silent subscriber is reached", lambda m: "yes" if m.silent_reached else "no"),
    Row(_IMPACT, "outage at the return, p50 / p99", _at_return),
    Row(_IMPACT, "packets lost at the return",
        lambda m: _lost(m.back) if restored(m) else "-"),
    Row(_IMPACT, "TCP that survived the return",
        lambda m: f"{m.back.outbound + m.back.inbound} of {2 * m.busy}" if restored(m) else "-"),
    Row(_IMPACT, "packets that arrived twice", lambda m: str(m.duplicates)),
    Row(_COST, ON_THE_SLIDES, lambda m: m.run.claims.cost),
    Row(_COST, "on the lwB4", lambda m: m.run.lwb4),
    Row(_COST, "on the lwAFTR", lambda m: m.run.lwaftr),
    Row(_COST, "beside them", lambda m: m.run.beside),
    Row(_COST, "ICMPv6 errors to lwB4s", lambda m: str(m.refusals)),
    Row(_COST, "questions to the supporting system", lambda m: str(m.questions)),
    Row(_COST, "provisioning messages", lambda m: str(m.provisioning)),
)  # fmt: skip


def lines(found: Sequence[Measured]) -> Iterator[str]:
    """For a terminal, some runs beside each other at a time."""
    for first in range(0, len(found), _RUNS_ABREAST):
        yield from _lines(found[first : first + _RUNS_ABREAST])
        yield ""


def _lines(found: Sequence[Measured]) -> Iterator[str]:
    yield from _wrapped("", [measured.run.title.upper() for measured in found])
    group = ""
    for row in ROWS:
        if row.group != group:
            group = row.group
            yield group
        yield from _wrapped("  " + row.label, [row.cell(measured) for measured in found])


def _wrapped(label: str, cells: Sequence[str]) -> Iterator[str]:
    columns = [textwrap.wrap(cell, _CELL - 2) or [""] for cell in cells]
    for number in range(max(map(len, columns))):
        cells = [column[number] if number < len(column) else "" for column in columns]
        start = label if number == 0 else ""
        yield f"{start:<{_LABEL}}{''.join(f'{cell:<{_CELL}}' for cell in cells)}".rstrip()
