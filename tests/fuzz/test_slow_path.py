"""Any sequence of frames, and fragments of sound softwire packets in any order."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.packet import Raw

from ryu_lw4o6.slow_path import SlowPath
from tests.fuzz.punt import ANYCAST, INSTANCE, LWB4
from tests.fuzz.slow_path import IPV6_FRAME, any_sequence, check
from tests.wire.scenario import upstream

STEPS = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=60)).map(
        lambda step: bytes([step[0], step[1], len(step[2])]) + step[2]
    ),
    max_size=20,
)


@given(STEPS | st.lists(st.binary(max_size=300), max_size=1))
def test_any_sequence(steps: list[bytes]) -> None:
    any_sequence(b"".join(steps))


@given(
    st.integers(8, 900), st.integers(8, 80), st.integers(0, 0xFFFFFFFF),
    st.randoms(use_true_random=False),
)  # fmt: skip
def test_a_softwire_packet_comes_out_once(
    size: int, eighths: int, number: int, order: random.Random
) -> None:
    inner = bytes(upstream() / UDP(sport=1072, dport=53) / bytes(size))
    cut = 8 * max(eighths, len(inner) // 8 // 60 + 1)
    outer = IPv6(src=str(LWB4), dst=str(ANYCAST), nh=44)
    pieces = [
        outer / IPv6ExtHdrFragment(nh=4, offset=at // 8, m=at + cut < len(inner), id=number)
        / Raw(inner[at : at + cut])
        for at in range(0, len(inner), cut)
    ]  # fmt: skip
    order.shuffle(pieces)
    path = SlowPath(INSTANCE, lambda *_: None)
    out = [i for piece in pieces for i in path.softwire(IPV6_FRAME + bytes(piece), 0)]
    assert [injection.frame[14:] for injection in out] == [inner]
    check(out[0])
