"""Any frame at all, and frames that are nearly right."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether

from ryu_lw4o6 import punt
from tests.fuzz.punt import INSTANCE, REASONS, check_icmpv4, frame_is_answered

HEADER = IP(src="198.51.100.200", dst="192.0.2.1", flags="DF")
OURS = IP(src="192.0.2.1", dst="198.51.100.200", ttl=1)
SEEDS = [
    bytes(Ether(src="02:00:00:00:04:fe", dst="02:00:00:00:04:01") / packet)
    for packet in (
        HEADER / UDP(sport=53, dport=1072) / bytes(1440),
        HEADER / TCP(sport=80, dport=1072),
        HEADER / ICMP(type=8, id=1075),
        HEADER / ICMP(type=3, code=3) / (OURS / UDP(sport=1072, dport=53)),
        IP(src="192.0.2.1", dst="198.51.100.200", ttl=1, options=b"\x01" * 8) / UDP(sport=1072),
        OURS / ICMP(type=11) / (HEADER / ICMP(type=8, id=1075)),
    )
]


@st.composite
def nearly_right(draw: st.DrawFn) -> bytes:
    frame = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 5))):
        frame[draw(st.integers(0, min(len(frame), 90) - 1))] = draw(st.integers(0, 255))
    return bytes(frame[: draw(st.integers(0, len(frame)) | st.just(len(frame)))])


@given(st.integers(0, len(REASONS) - 1), nearly_right() | st.binary(max_size=120))
def test_any_frame(reason: int, frame: bytes) -> None:
    frame_is_answered(bytes([reason]) + frame)


def test_the_checks_are_not_blind() -> None:
    """A seed for each kind of answer gets one, and one that is changed is found out."""
    answers = [punt.icmp_answer(INSTANCE, punt.TOO_BIG, seed) for seed in SEEDS]
    assert [answer is not None for answer in answers] == [True, True, True, False, True, False]
    answer = answers[0]
    assert answer is not None
    for at in (0, 3, 10, 12, 16, 20, 22, 30):
        wrong = answer[:at] + bytes([answer[at] ^ 1]) + answer[at + 1 :]
        try:
            check_icmpv4(wrong, SEEDS[0])
        except AssertionError:
            continue
        raise AssertionError(f"byte {at} may be anything")
