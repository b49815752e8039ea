"""Which ICMPv6 errors restart provisioning: those of the lwAFTR, about a packet just sent."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.packet import Packet

from ryu_lw4o6.core.icmp import softwire_refused
from ryu_lw4o6.core.portset import PortParams
from topo.lwb4.lease import Lease
from topo.lwb4.refusal import (
    FORGOTTEN,
    LOOK_UP_INTERVAL,
    MAX_HOLD_DOWN,
    REMEMBERED,
    Flow,
    Guard,
    Verdict,
    quoted,
)

LWB4, AFTR = IPv6Address("2001:db8:b4:1::1"), IPv6Address("2001:db8:ffff::1")
SERVER = IPv4Address("198.18.0.80")
# PSID 3 of offset 6, length 6: 1024 * a + 48 to 63, for each a from 1 to 63.
LEASE = Lease.of(IPv4Address("192.0.2.1"), PortParams(6, 6), 3)
ICMPV6_AT = 40  # behind the outer IPv6 header


def error(inner: Packet, **outer: object) -> bytes:
    """The lwAFTR's error about a softwire packet, as its own code makes it."""
    ends = {"src": str(LWB4), "dst": str(AFTR), "nh": 4} | outer
    return softwire_refused(bytes(IPv6(**ends) / inner))[ICMPV6_AT:]


def tcp(source: str = "192.0.2.1", port: int = 1072) -> Packet:
    return IP(src=source, dst=str(SERVER)) / TCP(sport=port, dport=80)


def verdict(message: bytes, source: IPv6Address = AFTR) -> Flow | Verdict:
    return quoted(message, source, LWB4, AFTR, LEASE)


def test_the_quoted_flow_is_found() -> None:
    assert verdict(error(tcp())) == Flow(LEASE.ipv4, 6, 1072, SERVER, 80)
    udp = IP(src="192.0.2.1", dst=str(SERVER)) / UDP(sport=65535 - 1024 + 64, dport=53)
    assert verdict(error(udp)) == Flow(LEASE.ipv4, 17, 64575, SERVER, 53)
    for kind in (0, 8):
        echo = IP(src="192.0.2.1", dst=str(SERVER)) / ICMP(type=kind, id=1087)
        assert verdict(error(echo)) == Flow(LEASE.ipv4, 1, 1087, SERVER)
    options = IP(src="192.0.2.1", dst=str(SERVER), options=b"\1\1\1\0") / TCP(sport=1072, dport=80)
    assert verdict(error(options)) == Flow(LEASE.ipv4, 6, 1072, SERVER, 80)


def test_a_linux_tunnels_encapsulation_limit_is_passed_over() -> None:
    packet = IPv6(src=str(LWB4), dst=str(AFTR)) / IPv6ExtHdrDestOpt(nh=4, options=[]) / tcp()
    message = softwire_refused(bytes(packet))[ICMPV6_AT:]
    assert verdict(message) == Flow(LEASE.ipv4, 6, 1072, SERVER, 80)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"\x01\x00" + error(tcp())[2:], Verdict.OTHER_ERROR),
        (b"\x03\x05" + error(tcp())[2:], Verdict.OTHER_ERROR),
        (error(tcp(), src="2001:db8:b4:1::2"), Verdict.WRONG_SOFTWIRE),
        (error(tcp(), dst="2001:db8:ffff::2"), Verdict.WRONG_SOFTWIRE),
        (error(tcp(), nh=6), Verdict.MALFORMED),
        (error(tcp(source="192.0.2.2")), Verdict.WRONG_ADDRESS),
        (error(tcp(source="192.168.1.2")), Verdict.WRONG_ADDRESS),
        (error(tcp(port=1071)), Verdict.WRONG_PORT),
        (error(tcp(port=48)), Verdict.WRONG_PORT),  # of no set: a = 0
        (error(IP(src="192.0.2.1") / ICMP(type=8, id=1088)), Verdict.WRONG_PORT),
        (error(IP(src="192.0.2.1") / ICMP(type=3) / tcp()), Verdict.MALFORMED),
        (error(IP(src="192.0.2.1", proto=47) / bytes(8)), Verdict.MALFORMED),
        (error(IP(src="192.0.2.1", chksum=1) / TCP(sport=1072)), Verdict.MALFORMED),
        (error(IP(src="192.0.2.1", version=6) / TCP(sport=1072)), Verdict.MALFORMED),
        (error(tcp())[: 8 + 40 + 27], Verdict.MALFORMED),  # a byte of the TCP ports' eight missing
        (b"\x01\x05", Verdict.MALFORMED),
    ],
)  # fmt: skip
def test_a_quote_that_cannot_be_of_this_lwb4(message: bytes, expected: Verdict) -> None:
    assert verdict(message) is expected


def test_only_the_lwaftr_may_refuse() -> None:
    assert verdict(error(tcp()), IPv6Address("2001:db8:bad::1")) is Verdict.WRONG_SOURCE
    assert verdict(error(tcp()), LWB4) is Verdict.WRONG_SOURCE


@given(st.binary(max_size=200))
def test_whatever_comes_there_is_a_verdict(data: bytes) -> None:
    verdict(data)
    verdict(b"\x01\x05" + data)
    head = error(tcp())[: 8 + 40]
    assert isinstance(verdict(head + data), Flow | Verdict)


def test_every_verdict_about_a_quote_needs_the_whole_quote() -> None:
    message = error(tcp())
    for length in range(8 + 40 + 28):
        assert isinstance(verdict(message[:length]), Verdict)
    assert isinstance(verdict(message[: 8 + 40 + 28]), Flow)


# --- the guard ---


def message(number: int) -> bytes:
    return error(IP(src="192.0.2.1", dst=str(SERVER), id=number) / TCP(sport=1072, dport=80))


def judge(guard: Guard, number: int, now: float, *, sent: bool = True) -> tuple[Guard, Verdict]:
    flow = verdict(message(number))
    assert isinstance(flow, Flow)
    return guard.judge(flow, message(number), lambda _: sent, now)


def test_once_per_hold_down_and_the_same_error_never_again() -> None:
    guard, first = judge(Guard(hold_down=2), 1, 100.0)
    assert first is Verdict.ACCEPTED
    guard, second = judge(guard, 2, 101.9)
    assert second is Verdict.HELD_DOWN
    # What was held down is known as well, and does nothing when it is played again.
    for number in (1, 2):
        guard, again = judge(guard, number, 102.1)
        assert again is Verdict.REPLAYED
    guard, third = judge(guard, 3, 102.1)
    assert third is Verdict.ACCEPTED


def test_a_replay_is_known_for_a_while() -> None:
    guard, _ = judge(Guard(), 1, 0.0)
    assert judge(guard, 1, FORGOTTEN - 0.1)[1] is Verdict.REPLAYED
    assert judge(guard, 1, FORGOTTEN + 0.1)[1] is Verdict.ACCEPTED


def test_a_flow_that_has_not_sent_lately_is_stale() -> None:
    guard, stale = judge(Guard(), 1, 0.0, sent=False)
    assert stale is Verdict.STALE
    # It is not held against the next one, once it may be looked up.
    assert judge(guard, 2, LOOK_UP_INTERVAL / 2)[1] is Verdict.RATE_LIMITED
    assert judge(guard, 2, LOOK_UP_INTERVAL)[1] is Verdict.ACCEPTED


def test_the_hold_down_doubles_while_errors_go_on() -> None:
    guard, now, holds = Guard(hold_down=1), 0.0, []
    for number in range(9):
        guard, accepted = judge(guard, number, now)
        assert accepted is Verdict.ACCEPTED
        holds.append(guard.held_for)
        now += guard.held_for
    assert holds == [1, 2, 4, 8, 16, 32, 64, MAX_HOLD_DOWN, MAX_HOLD_DOWN]
    # A time without errors, and it is as it was.
    guard, _ = judge(guard, 100, now + 2 * MAX_HOLD_DOWN)
    assert guard.held_for == 1


def test_one_failover_after_the_other_is_held_down_no_longer() -> None:
    """Each restart has helped for a while: an lwAFTR that goes and comes is no reason to wait."""
    guard, now = Guard(hold_down=1), 0.0
    for number in range(8):
        guard, accepted = judge(guard, number, now)
        assert accepted is Verdict.ACCEPTED
        assert guard.held_for == 1
        now += 2.1


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 20), st.booleans()), max_size=60))
def test_restarts_are_a_hold_down_apart(errors: list[tuple[float, int, bool]]) -> None:
    guard, now, restarts = Guard(hold_down=2), 0.0, []
    for wait, number, sent in errors:
        now += wait
        guard, found = judge(guard, number, now, sent=sent)
        if found is Verdict.ACCEPTED:
            assert sent
            restarts.append(now)
    assert all(later - earlier >= 2 for earlier, later in pairwise(restarts))


def test_what_is_remembered_is_limited() -> None:
    guard, _ = judge(Guard(hold_down=1000), 0, 0.0)
    flow = verdict(message(1))
    assert isinstance(flow, Flow)
    for number in range(REMEMBERED + 10):
        packet = struct.pack("!8xI", number)
        guard, _ = guard.judge(flow, packet, lambda _: True, 0.001)
    assert len(guard.seen) == REMEMBERED
