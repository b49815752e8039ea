"""Port ranges as masks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_lw4o6.core.filters import PortRange


@pytest.mark.parametrize(
    ("first", "last", "masks"),
    [
        (25, 25, [(25, 0xFFFF)]),
        (0, 65535, [(0, 0)]),
        (1024, 65535, [(1024, 0xFC00), (2048, 0xF800), (4096, 0xF000), (8192, 0xE000),
                       (16384, 0xC000), (32768, 0x8000)]),
        (135, 139, [(135, 0xFFFF), (136, 0xFFFC)]),
    ],
)  # fmt: skip
def test_by_hand(first: int, last: int, masks: list[tuple[int, int]]) -> None:
    assert PortRange(first, last).masks() == masks


@given(st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(sorted), st.integers(0, 65535))
def test_a_port_is_covered_if_it_is_in_the_range(ends: list[int], port: int) -> None:
    first, last = ends
    for tried in {port, first, last, max(first - 1, 0), min(last + 1, 65535)}:
        covered = sum(tried & mask == value for value, mask in PortRange(first, last).masks())
        assert covered == (first <= tried <= last)
