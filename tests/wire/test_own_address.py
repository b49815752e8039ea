"""What comes to the lwAFTR's own IPv4 address in fragments, or for nobody there (RFC 1122 sections
3.2.2 and 3.3.2)."""

from __future__ import annotations

import itertools

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6ParamProblem, IPv6
from scapy.packet import Packet, Raw

from openflow_rules.tables import Punt
from tests.support.ovs import wait_for
from tests.support.rig import CONFIG, IPV4, IPV6, Rig, frames
from tests.wire.scenario import (
    AFTR,
    LWB4,
    SECOND_AFTR,
    Scenario,
    downstream,
    frame_of,
    run,
    softwire,
    tunnelled,
    upstream,
)
from tests.wire.test_echo import answer, asked
from tests.wire.test_fragments import cut, fragments, times
from tests.wire.test_icmp_errors import BIG, quoted_by
from tests.wire.test_sums import limit
from tests.wire.test_ttl import to_lwb4

_source = itertools.count(1)
FRAGMENTS = {"from_internet": 1, "fragments_to_lwaftr": 1}
DATA = (bytes(range(256)) * 12)[:3000]
PING, PONG = (ICMP(type=kind, id=1075, seq=3) / Raw(DATA) for kind in (8, 0))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 0, 1, 2)], ids=str)
def test_an_echo_in_fragments_is_answered(rig: Rig, order: tuple[int, ...]) -> None:
    """3008 bytes of ICMP are 1480, 1480 and 48, there and back."""
    pieces = cut(asked() / PING, 1480)
    assert [len(piece) for piece in pieces] == [1500, 1500, 68]
    reply = fragments(answer("198.51.100.200", id=pieces[0].id) / PONG, 1480)
    run(rig, Scenario("", send4=[pieces[n] for n in order], out4=reply,
                      counters=times(len(order), FRAGMENTS) | {"to_internet": 3}))  # fmt: skip


@pytest.mark.parametrize(("source", "lwb4"), [("192.0.2.1", 1), ("203.0.113.1", 3)])
def test_that_of_an_lwb4_comes_back_through_its_softwire(rig: Rig, source: str, lwb4: int) -> None:
    """Of 1460 bytes, 1440 are ICMP: 1440, 1440 and 128."""
    pieces = cut(upstream(src=source, dst=IPV4) / PING, 1400)
    reply = fragments(answer(source, id=pieces[0].id) / PONG, 1440)
    run(rig, Scenario(
        "", send6=[softwire(piece, LWB4[lwb4]) for piece in pieces],
        out6=[tunnelled(piece, LWB4[lwb4]) for piece in reply],
        counters={"from_softwire": 3, "fragments_to_lwaftr": 3, "from_lwaftr": 3, "to_softwire": 3},
    ))  # fmt: skip


def test_the_largest_echo_there_is(rig: Rig) -> None:
    """65,507 bytes and both headers are 65,535; 44 fragments of 1480 bytes and one of 395."""
    pieces = cut(asked() / ICMP(type=8, id=5) / Raw(bytes(65507)), 1480)
    reply = fragments(
        answer("198.51.100.200", id=pieces[0].id) / ICMP(type=0, id=5) / Raw(bytes(65507)), 1480
    )
    assert len(pieces) == len(reply) == 45
    run(rig, Scenario("", send4=pieces, out4=reply,
                      counters=times(45, FRAGMENTS) | {"to_internet": 45}))  # fmt: skip


NOT_ANSWERED = [
    ("a checksum that is wrong", asked() / ICMP(type=8, id=9, chksum=0x1234) / Raw(bytes(100))),
    ("an echo reply", asked() / ICMP(type=0, id=9) / Raw(bytes(100))),
    ("an ICMP error", asked() / ICMP(type=3, code=3) / Raw(bytes(100))),
    ("from a broadcast address",
     asked(src="198.51.100.255") / UDP(sport=5, dport=7) / Raw(bytes(100))),
]  # fmt: skip


@pytest.mark.parametrize("packet", [row[1] for row in NOT_ANSWERED],
                         ids=[row[0] for row in NOT_ANSWERED])  # fmt: skip
def test_no_answer_to_what_fragments_made(rig: Rig, packet: Packet) -> None:
    pieces = cut(packet)
    assert len(pieces) == 2
    run(rig, Scenario("", send4=pieces, counters=times(2, FRAGMENTS)))


def test_fragments_beyond_the_limit_are_lost(rig: Rig) -> None:
    limit(rig, Punt.FRAGMENT_TO_LWAFTR)
    try:
        before = rig.counters()
        pieces = [cut(asked() / PING, 1480)[0] for _ in range(6)]
        for piece in pieces:
            rig.wire4.send(frame_of(piece, 4))
        wait_for("they have come in",
                 lambda: (rig.counters() - before)["fragments_to_lwaftr"] == 6)  # fmt: skip
        assert (rig.counters() - before)["withheld_fragment_to_lwaftr"] >= 3
    finally:
        rate = "band=type=drop,rate=250,burst_size=250"
        meter = f"meter={Punt.FRAGMENT_TO_LWAFTR},pktps,burst,stats,{rate}"
        rig.ovs("ovs-ofctl", "-OOpenFlow13", "mod-meter", "br0", meter)


# --- for nobody -----------------------------------------------------------------------------------


def is_told(name: str, packet: Packet, code: int) -> Scenario:
    return Scenario(name, send4=[packet], out4=[quoted_by(3, code, packet)],
                    counters={"from_internet": 1, "drop_to_lwaftr": 1})  # fmt: skip


LWB4_IS_TOLD = {"from_softwire": 1, "drop_to_lwaftr": 1, "from_lwaftr": 1, "to_softwire": 1}
TRACED = upstream(dst=IPV4) / UDP(sport=1072, dport=33434) / b"traceroute"
FOR_NOBODY = [
    is_told("UDP: port unreachable", asked() / UDP(sport=5, dport=33434) / b"traceroute", 3),
    is_told("the last hop", asked(ttl=1) / UDP(sport=5, dport=33434), 3),
    is_told("of 1500 bytes, 548 are quoted", asked() / UDP(sport=5, dport=7) / bytes(1472), 3),
    is_told("TCP: protocol unreachable", asked() / TCP(sport=5, dport=22, flags="S"), 2),
    is_told("another protocol", asked(proto=47) / Raw(bytes(24)), 2),
    is_told("nothing but a header", asked(proto=59), 2),
    Scenario("from an lwB4", send6=[softwire(TRACED)], out6=[to_lwb4(3, 3, TRACED)],
             counters=LWB4_IS_TOLD),
]  # fmt: skip
SILENCE = [
    Scenario(f"a source that is no single host: {source}",
             send4=[asked(src=source) / UDP(sport=5, dport=7)],
             counters={"from_internet": 1, "drop_to_lwaftr": 1})
    for source in ("240.0.0.1", "198.51.100.255", IPV4)
]  # fmt: skip


@pytest.mark.parametrize("scenario", FOR_NOBODY, ids=str)
def test_who_sends_to_nobody_is_told(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


def test_about_a_packet_that_came_in_fragments(rig: Rig) -> None:
    packet = asked() / UDP(sport=5, dport=7) / Raw(bytes(2000))
    pieces = cut(packet, 1480)
    packet.id = pieces[0].id
    run(rig, Scenario("", send4=pieces, out4=[quoted_by(3, 3, packet)],
                      counters=times(2, FRAGMENTS)))  # fmt: skip


@pytest.mark.parametrize("scenario", SILENCE, ids=str)
def test_who_must_not_be_told(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


def test_nobody_is_told_by_policy(silent: Rig) -> None:
    run(silent, Scenario("", send4=[asked() / UDP(sport=5, dport=7)],
                         counters={"from_internet": 1, "drop_to_lwaftr": 1}))  # fmt: skip
    pieces = cut(asked() / UDP(sport=5, dport=7) / Raw(bytes(100)))
    run(silent, Scenario("", send4=pieces, counters=times(2, FRAGMENTS)))


UNREACHABLE = UDP(sport=5, dport=33434) / b"traceroute", 17, ICMPv6DestUnreach(code=4)
UNKNOWN = Raw(bytes(24)), 253, ICMPv6ParamProblem(code=1, ptr=6)  # byte 6 is the next header


@pytest.mark.parametrize("own", [IPV6, AFTR, SECOND_AFTR])
@pytest.mark.parametrize(("payload", "kind", "message"), [UNREACHABLE, UNKNOWN], ids=["udp", "253"])
def test_the_kernel_tells_who_sends_to_nobody(
    rig: Rig, own: str, payload: Packet, kind: int, message: Packet
) -> None:
    source = f"2001:db8:77::{next(_source):x}"  # each is told so once a second
    sent = IPv6(src=source, dst=own, nh=kind, hlim=60) / payload
    rig.wire6.send(frame_of(sent, 6))
    (found,) = frames(rig.wire6, 1)
    expected = IPv6(src=own, dst=source, hlim=64) / message / Raw(bytes(sent))
    # The flow label is the kernel's own choice.
    assert found[:14] + b"\x60\0\0\0" + found[18:] == frame_of(expected, 6, out=True)


def test_the_errors_that_subscribers_need_are_left() -> None:
    """Four errors a second, of which a flood to the lwAFTR itself takes one."""
    rig = Rig(CONFIG + "    icmp: {{rate: 4}}\n")
    try:
        flood = frame_of(asked() / UDP(sport=5, dport=33434), 4)
        for _ in range(50):
            rig.wire4.send(flood)
        rig.wire4.send(frame_of(BIG, 4))
        found = frames(rig.wire4, 10, 3)
        assert frame_of(quoted_by(3, 4, BIG, 1460), 4, out=True) in found
    finally:
        rig.stop()


def test_an_address_that_is_not_ours_is_nobodys(rig: Rig) -> None:
    run(rig, Scenario("", send4=[downstream(dst="198.51.100.2") / UDP(sport=5, dport=7)],
                      counters={"from_internet": 1, "drop_downstream_not_served": 1}))  # fmt: skip
