"""Any ICMPv6 error, and those that are nearly right."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ryu_lw4o6.path_mtu import Paths
from tests.fuzz.tunnel_icmp import ETHERNET, SMALLER, TABLE, error, error_is_read


def test_an_error_that_is_right_is_believed() -> None:
    paths = Paths(SMALLER, TABLE)
    outcome = paths.error(ETHERNET + error(b"\1\0\0\0\5\x14"), 0.0)  # too big, 1300
    assert paths.counts == {"believed": 1}
    assert outcome.answer is not None
    assert outcome.flow is not None


nearly_right = st.tuples(
    st.binary(min_size=6, max_size=6), st.integers(0, 80), st.binary(max_size=4)
).map(lambda parts: parts[0] + bytes(parts[1]) + parts[2])


@given(nearly_right | st.binary(max_size=1400))
def test_any_error(data: bytes) -> None:
    error_is_read(data)
