"""What the comparison makes of arrival times: figures, table, report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topo.compare import report, table
from topo.compare.connections import Record
from topo.compare.measure import Measured, Phase, losses, outage_of
from topo.compare.runs import BUSY, RUNS
from topo.compare.statistics import outage, percentile, rates, shown
from topo.compare.traffic import Stream
from topo.plan import MOST_SUBSCRIBERS

TIMES = st.lists(st.floats(0, 100), max_size=30).map(sorted)


@pytest.mark.parametrize(
    ("arrivals", "since", "until", "end", "expected"),
    [
        ([0, 1, 2, 5, 6], 1.5, 4, 7, 3),  # from 2 to 5
        ([0, 1, 2, 5, 6], 3, 4, 7, 2),  # counted from 3 on
        ([0, 1], 0.5, 4, 9, 8),  # to the end of the measurement
        ([0, 1, 2, 3, 9], 1.5, 2.5, 9, 1),  # the long one begins later
        ([], 1, 2, 3, 2),
    ],
)
def test_an_outage_is_the_longest_silence(
    arrivals: Sequence[float], since: float, until: float, end: float, expected: float
) -> None:
    assert outage(arrivals, since, until, end) == expected


@given(TIMES)
def test_an_outage_is_no_longer_than_the_measurement(arrivals: list[float]) -> None:
    assert 0 <= outage(arrivals, 10, 20, 100) <= 90


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 100))
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(
    values: list[float], percent: int
) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


@given(TIMES)
def test_rates_count_every_arrival_once(arrivals: list[float]) -> None:
    begins, counts = rates(arrivals, 0, 101, 0.5)
    assert len(begins) == len(counts) == 202
    assert sum(counts) == len(arrivals)


def test_losses_and_outage_of_a_stream() -> None:
    """Ten packets, 10 ms apart; those sent at 30, 40 and 50 ms did not arrive."""
    stream = Stream(1, "up", sent=[n / 100 for n in range(30)])
    stream.arrivals = [(n / 100, n) for n in range(30) if n not in (3, 4, 5)]
    # Those of the last 100 ms may be under way.
    assert losses([stream], 0.0, 0.2) == (3, 10)
    # Silence from 20 ms to 60 ms, of which 10 ms are usual.
    assert outage_of(stream, 0.0, 0.2, 0.3) == pytest.approx(0.03)


def test_a_connection_has_survived_if_it_did_not_break_and_still_works() -> None:
    working = Record(opened=[0.0], echoes=[n / 10 for n in range(100)])
    assert working.survived(2, 9)
    assert not replace(working, broken=[3.0]).survived(2, 9)
    assert replace(working, broken=[1.0]).survived(2, 9)  # opened again before
    assert not replace(working, echoes=[1.5, 7.5]).survived(2, 9)  # it hangs
    assert not replace(working, echoes=[8.5]).survived(2, 9)  # it was opened in between


def measured(number: int, outages: list[float]) -> Measured:
    phase = Phase(outages, lost=4, sent=100, outbound=1, inbound=2, renumbered=0)
    return Measured(
        RUNS[number], own_pools=RUNS[number].lab("x").own_pools, busy=2, failover=phase,
        back=replace(phase, lost=0, outages=[0.0]), returned=(4.0, 8.0), end=10.0, new_inbound=2,
        silent_reached=True, duplicates=0, refusals=3, questions=5, provisioning=7,
        arrivals={"up": [-1.0, 0.5, 1.0], "down": [2.0]},
    )  # fmt: skip


FOUND = [
    measured(0, [8.0, 8.1]),
    *(measured(number, [0.19, 0.2]) for number in range(1, len(RUNS) - 1)),
    measured(len(RUNS) - 1, [0.03, 0.04]),
]


def test_the_table_has_every_row_of_the_slides_and_every_run() -> None:
    text = "\n".join(table.lines([*FOUND, *FOUND]))
    for run in RUNS:
        assert text.count(run.title.upper()) == 2
    for group in ("Address pool configuration", "Impact on applications",
                  "Implementation requirement"):  # fmt: skip
        assert f"\n{group}\n" in text
    for row in table.ROWS:
        assert row.label in text
    assert "30 ms / 40 ms" in text
    assert "8.0 s / 8.1 s: until" in text  # and what follows is on the next line
    assert max(map(len, text.splitlines())) <= 110


def test_the_report_is_one_file_with_its_plot(tmp_path: Path) -> None:
    page, plot, figures = report.write(FOUND, tmp_path / "build")
    assert plot.read_bytes().startswith(b"\x89PNG")
    text = page.read_text()
    assert "data:image/png;base64," in text
    assert "http" not in text.replace("https://www.rfc-editor.org", "")  # nothing from elsewhere
    for run in RUNS:
        assert run.title in text
    assert "{" not in text.partition("</style>")[2]  # every place was filled in
    assert [entry["run"] for entry in json.loads(figures.read_text())] == [r.title for r in RUNS]


def test_runs_can_be_built() -> None:
    assert BUSY + 1 <= MOST_SUBSCRIBERS
    assert len({run.title for run in RUNS}) == len(RUNS)
    for run in RUNS:
        assert len(run.lab("x").subscribers) == BUSY + 1


def test_seconds_are_shown_for_people() -> None:
    assert [shown(value) for value in (0.0321, 0.999, 9.21)] == ["32 ms", "999 ms", "9.2 s"]
