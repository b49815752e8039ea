from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_lw4o6.core.relief import LEAST, Relief


def test_fewer_get_in_once_a_pause_while_much_waits() -> None:
    relief = Relief()
    shares = [relief.look(0.41, now, 1.0) for now in (10.0, 10.1, 10.39, 10.4, 10.8)]
    assert shares == pytest.approx([0.7, 0.7, 0.7, 0.49, 0.343])


def test_nothing_changes_in_between() -> None:
    relief = Relief()
    relief.look(1.0, 0.0, 1.0)
    assert [relief.look(fill, 5.0, 1.0) for fill in (0.4, 0.3, 0.15)] == [0.7, 0.7, 0.7]


def test_as_many_as_usual_get_in_again_slowly() -> None:
    """From a tenth, with a look every 50 ms: not at once, but within some seconds."""
    relief = Relief()
    for second in range(60):
        relief.look(1.0, second, 1.0)
    assert relief.share == LEAST
    looks = 0
    while relief.look(0.0, 100.0, 1.0) < 1.0:
        looks += 1
    assert 1 / 0.05 < looks < 10 / 0.05


def test_what_may_get_in_is_tried_at_once_when_it_is_more() -> None:
    relief = Relief()
    assert relief.look(0.0, 0.0, 0.02) == 0.02
    assert relief.look(0.0, 0.05, 5.0) == 5.0
    assert relief.look(0.5, 0.1, 5.0) == pytest.approx(3.5)
    assert relief.look(0.2, 0.15, 5.0) == pytest.approx(3.5)
    assert relief.look(0.0, 0.2, 1.0) == 1.0


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.floats(0, 1), st.sampled_from([0.02, 1.0, 5.0])),
        max_size=200,
    )
)
def test_some_always_get_in_and_never_more_than_may(
    steps: list[tuple[float, float, float]],
) -> None:
    relief, now = Relief(), 0.0
    for fill, pause, most in steps:
        now += pause
        assert min(LEAST, most) <= relief.look(fill, now, most) <= most
