"""Fragments that wait: in any order, bounded, and never two answers for one byte."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_lw4o6.core.fragments import MOST_PIECES, Piece, Waiting, joined


def waiting(packets: int = 10, size: int = 1 << 20) -> Waiting:
    return Waiting(60, packets, size)


def cut(data: bytes, size: int) -> list[Piece]:
    return [
        Piece(at, at + size < len(data), data[at : at + size]) for at in range(0, len(data), size)
    ]


@given(st.binary(min_size=1, max_size=400), st.integers(1, 10), st.randoms(use_true_random=False))
def test_whatever_the_order_the_packet_comes_back(
    data: bytes, eighths: int, order: random.Random
) -> None:
    pieces = cut(data, max(8 * eighths, -(-len(data) // MOST_PIECES // 8) * 8))
    order.shuffle(pieces)
    place = waiting()
    done = [place.add("key", piece, 0) for piece in pieces]
    assert done == [False] * (len(pieces) - 1) + [True]
    assert joined(place.take("key")) == data
    assert (len(place), place.bytes, dict(place.dropped)) == (0, 0, {})


A, B, C = cut(bytes(20), 8)


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ([A, Piece(0, True, bytes(16))], "overlapping"),
        ([A, Piece(0, True, b"another!")], "overlapping"),
        ([B, Piece(0, True, bytes(16))], "overlapping"),
        ([C, Piece(24, True, bytes(8))], "overlapping"),  # behind the end
        ([C, Piece(24, False, bytes(8))], "overlapping"),  # two ends
        ([Piece(24, True, bytes(8)), C], "overlapping"),
        ([A, A], "duplicate"),
        ([Piece(8, True, bytes(7))], "malformed"),
        ([Piece(8, True, b"")], "malformed"),
        ([Piece(65528, False, bytes(8))], "malformed"),
    ],
)
def test_what_does_not_fit_together_is_dropped(pieces: list[Piece], reason: str) -> None:
    place = waiting()
    for piece in pieces:
        assert not place.add("key", piece, 0)
    assert place.dropped[reason] == (2 if reason == "overlapping" else 1)


def test_after_an_overlap_the_rest_goes_as_well() -> None:
    place = waiting()
    for piece in (A, Piece(0, True, bytes(16)), B, C):
        assert not place.add("key", piece, 0)
    assert place.dropped["overlapping"] == 4
    assert place.bytes == 0
    assert place.take("key") == []


def test_a_packet_has_a_limited_number_of_fragments() -> None:
    place = waiting()
    for number in range(MOST_PIECES + 1):
        place.add("key", Piece(number * 8, True, bytes(8)), 0)
    assert place.dropped["overlapping"] == MOST_PIECES + 1


def test_fragments_wait_so_long() -> None:
    place = waiting()
    place.add("key", A, 0)
    place.expire(59.9)
    assert len(place) == 1
    assert not place.add("key", B, 60)
    assert place.dropped["timeout"] == 1
    assert [piece.offset for piece in place.take("key")] == [8]


def test_the_oldest_make_room() -> None:
    place = waiting(packets=2)
    for key in "abc":
        place.add(key, A, 0)
    assert (len(place), place.bytes) == (2, 16)
    assert place.take("a") == []
    place = waiting(size=20)
    for key in "abc":
        place.add(key, A, 0)
    assert (len(place), place.bytes, place.dropped["overload"]) == (2, 16, 1)


@given(
    st.lists(
        st.builds(
            Piece, st.integers(0, 8191).map(lambda n: 8 * n), st.booleans(), st.binary(max_size=40)
        ),
        max_size=40,
    ),
    st.lists(st.sampled_from("abcd"), min_size=40, max_size=40),
)
def test_the_books_are_right_after_anything(pieces: list[Piece], keys: list[str]) -> None:
    place = waiting(packets=3, size=200)
    for now, (piece, key) in enumerate(zip(pieces, keys, strict=False)):
        if place.add(key, piece, now):
            place.take(key)
        assert place.bytes <= 200
        assert len(place) <= 3
    place.expire(1000)
    assert (len(place), place.bytes) == (0, 0)
