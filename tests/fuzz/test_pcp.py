"""Any message, and any sequence of requests that are nearly right."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.pcp import SEEDS, message_is_read, requests_are_served


@st.composite
def nearly_right(draw: st.DrawFn) -> bytes:
    message = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 5))):
        message[draw(st.integers(0, len(message) - 1))] = draw(st.integers(0, 255))
    return bytes(message[: draw(st.integers(0, len(message)) | st.just(len(message)))])


@given(nearly_right() | st.binary(max_size=1200))
def test_any_message(data: bytes) -> None:
    message_is_read(data)


change = st.binary(max_size=12) | st.binary(max_size=99)
step = st.builds(
    lambda lwb4, passed, what: bytes([lwb4, passed, len(what)]) + what,
    st.integers(0, 7),
    st.integers(0, 255),
    change,
)


@given(st.lists(step, max_size=30).map(b"".join))
def test_any_sequence_of_requests(data: bytes) -> None:
    requests_are_served(data)
