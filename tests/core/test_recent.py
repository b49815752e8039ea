from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ryu_lw4o6.core.recent import Recent


def test_a_key_is_new_once_an_interval() -> None:
    recent = Recent(1.0, 100)
    assert [recent.add("a", t) for t in (0.0, 0.5, 0.999, 1.0, 1.5, 2.0)] == [
        True, False, False, True, False, True,
    ]  # fmt: skip


def test_the_oldest_give_way() -> None:
    recent = Recent(1.0, 2)
    assert [recent.add(key, 0.0) for key in "abcb"] == [True, True, True, False]
    assert recent.add("a", 0.5) is True


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 0.5)), max_size=60))
def test_against_a_list_of_all_times(steps: list[tuple[int, float]]) -> None:
    recent, now = Recent(1.0, 1000), 0.0
    taken: list[tuple[int, float]] = []
    for key, pause in steps:
        now += pause
        expected = not any(k == key and t > now - 1.0 for k, t in taken)
        assert recent.add(key, now) is expected
        if expected:
            taken.append((key, now))
