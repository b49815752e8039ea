"""Fragments from either side, in any order: each goes where its packet's port says, or nowhere."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    HBHOptUnknown,
    ICMPv6ParamProblem,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.packet import Packet, Raw

from tests.support.ovs import wait_for
from tests.support.rig import Rig, frames
from tests.wire.scenario import (
    AFTR,
    DOWN,
    HAIRPINNED,
    LWB4,
    UP,
    Scenario,
    downstream,
    forwarded,
    frame_of,
    run,
    softwire,
    tunnelled,
    upstream,
)

_identification = itertools.count(0x1000)


def cut(packet: Packet, size: int = 64) -> list[Packet]:
    """A packet of its own identification in fragments of ``size`` bytes (RFC 791 section 3.2)."""
    packet = packet.copy()
    packet.id = next(_identification)
    return fragments(packet, size)


def fragments(packet: Packet, size: int) -> list[Packet]:
    pieces = [IP(bytes(piece)) for piece in fragment(packet, fragsize=size)]
    for piece in pieces:
        del piece.chksum  # so that it is made when the TTL is known
    return pieces


def fragments_of(rig: Rig) -> dict[str, int]:
    """What the controller says of fragments, without what is zero."""
    counts = rig.controller.switch()["slow_path"]
    named = {
        **counts["packets"],
        **{f"held_{k}": v for k, v in counts["held"]["dropped"].items()},
        **{f"reassembly_{k}": v for k, v in counts["reassembly"]["dropped"].items()},
    }
    return {name: value for name, value in named.items() if value}


def changes(rig: Rig, before: dict[str, int]) -> dict[str, int]:
    now = fragments_of(rig)
    return {k: v - before.get(k, 0) for k, v in now.items() if v != before.get(k, 0)}


def plays(
    rig: Rig, side: int, sent: Sequence[Packet], out: Sequence[Packet], counters: dict[str, int]
) -> None:
    """Packets in by a side, packets out by the other one, as ``run`` does it."""
    if side == 6:
        run(rig, Scenario("", send6=sent, out4=out, counters=counters))
    else:
        run(rig, Scenario("", send4=sent, out6=out, counters=counters))


def times(number: int, counters: dict[str, int]) -> dict[str, int]:
    return {name: number * value for name, value in counters.items()}


TALK = UDP(sport=53, dport=1072) / Raw(bytes(range(200)))
DATAGRAMS = [
    (downstream() / TALK, 1),
    (downstream() / TCP(sport=80, dport=1088) / Raw(bytes(150)), 2),
    (downstream() / ICMP(type=8, id=1075) / Raw(bytes(150)), 1),
    (downstream() / ICMP(type=0, id=1091) / Raw(bytes(150)), 2),
    (downstream(dst="203.0.113.1") / TALK, 3),
]
NAMES = ["udp", "tcp", "echo", "reply", "full"]


@pytest.mark.parametrize(("packet", "lwb4"), DATAGRAMS, ids=NAMES)
def test_from_the_internet_in_order(rig: Rig, packet: Packet, lwb4: int) -> None:
    """No controller trip."""
    before = fragments_of(rig)
    pieces = cut(packet)
    assert len(pieces) >= 3
    expected = [tunnelled(forwarded(piece), LWB4[lwb4]) for piece in pieces]
    plays(rig, 4, pieces, expected, times(len(pieces), DOWN))
    assert changes(rig, before) == {}


@pytest.mark.parametrize("order", list(itertools.permutations(range(3)))[1:], ids=str)
@pytest.mark.parametrize(("packet", "lwb4"), DATAGRAMS[:3], ids=NAMES[:3])
def test_from_the_internet_in_any_order(
    rig: Rig, packet: Packet, lwb4: int, order: tuple[int, ...]
) -> None:
    before = fragments_of(rig)
    pieces = cut(packet, 88)
    assert len(pieces) == 3 or len(pieces) == 2
    order = tuple(n for n in order if n < len(pieces))
    sent = [pieces[n] for n in order]
    early = order.index(0)
    expected = [tunnelled(forwarded(piece), LWB4[lwb4]) for piece in pieces]
    counters = {"from_internet": len(sent), "to_softwire": len(sent)}
    if early:
        counters["held_from_internet"] = early
    plays(rig, 4, sent, expected, counters)
    assert changes(rig, before) == ({"sent_on": early} if early else {})


UPSTREAM = [
    (upstream() / UDP(sport=1072, dport=53) / Raw(bytes(range(200))), 1),
    (upstream() / TCP(sport=1088, dport=80) / Raw(bytes(150)), 2),
    (upstream() / ICMP(type=8, id=1075) / Raw(bytes(150)), 1),
    (upstream(src="203.0.113.1") / UDP(sport=9, dport=53) / Raw(bytes(150)), 3),
]


@pytest.mark.parametrize(("packet", "lwb4"), UPSTREAM, ids=["udp", "tcp", "echo", "full"])
def test_from_an_lwb4_in_order(rig: Rig, packet: Packet, lwb4: int) -> None:
    before = fragments_of(rig)
    pieces = cut(packet)
    sent = [softwire(piece, LWB4[lwb4]) for piece in pieces]
    plays(rig, 6, sent, [forwarded(piece) for piece in pieces], times(len(pieces), UP))
    assert changes(rig, before) == {}


def test_from_an_lwb4_out_of_order(rig: Rig) -> None:
    before = fragments_of(rig)
    pieces = cut(UPSTREAM[0][0])
    sent = [softwire(piece) for piece in reversed(pieces)]
    early = len(pieces) - 1
    counters = times(len(pieces), UP) | {"held_from_softwire": early}
    plays(rig, 6, sent, [forwarded(piece) for piece in pieces], counters)
    assert changes(rig, before) == {"sent_on": early}


def test_from_one_lwb4_to_another(rig: Rig) -> None:
    pieces = cut(upstream(dst="192.0.2.1") / UDP(sport=1072, dport=1088) / Raw(bytes(150)))
    expected = [tunnelled(forwarded(piece), LWB4[2]) for piece in pieces]
    run(rig, Scenario(
        "hairpin", send6=[softwire(piece) for piece in pieces], out6=expected,
        counters=times(len(pieces), HAIRPINNED),
    ))  # fmt: skip


def test_a_fragment_with_somebody_elses_port_is_caught(rig: Rig) -> None:
    """Each of them, and not only the one that has the port."""
    pieces = cut(upstream() / UDP(sport=1088, dport=53) / Raw(bytes(150)))
    before = rig.counters()
    for piece in pieces:
        rig.wire6.send(frame_of(softwire(piece), 6))
    assert frames(rig.wire4, 1, 0.3) == []
    found = rig.counters() - before
    assert found["drop_upstream_no_binding"] == len(pieces)
    assert "to_internet" not in found
    while frames(rig.wire6, 1, 0.2):
        pass  # it is told so


def test_a_fragment_does_not_get_by_on_another_lwb4s_first(rig: Rig) -> None:
    """The same addresses and identification, but out of another softwire."""
    first, *later = cut(upstream() / UDP(sport=1072, dport=53) / Raw(bytes(100)))
    sent = [softwire(first), *(softwire(piece, LWB4[2]) for piece in later)]
    counters = {**UP, "from_softwire": 1 + len(later), "held_from_softwire": len(later)}
    plays(rig, 6, sent, [forwarded(first)], counters)


def test_a_fragment_whose_first_never_comes_goes_nowhere(rig: Rig) -> None:
    _, *later = cut(downstream() / TALK)
    counters = {"from_internet": len(later), "held_from_internet": len(later)}
    plays(rig, 4, later, [], counters)


def test_an_excluded_port_and_a_protocol_without_ports(rig: Rig) -> None:
    for packet, drop in (
        (downstream() / UDP(sport=53, dport=48) / Raw(bytes(100)), "excluded_port"),
        (downstream(proto=47) / Raw(bytes(100)), "protocol"),
        (downstream() / ICMP(type=13) / Raw(bytes(100)), "icmp"),
    ):
        pieces = cut(packet)
        before = rig.counters()
        for piece in pieces:
            rig.wire4.send(frame_of(piece, 4))
        assert frames(rig.wire6, 1, 0.3) == []
        assert (rig.counters() - before)[f"drop_downstream_{drop}"] >= 1


def raw_fragment(offset: int, size: int, more: bool, number: int) -> Packet:
    flags = "MF" if more else 0
    return downstream(proto=17, id=number, frag=offset // 8, flags=flags) / Raw(bytes(size))


def test_overlapping_fragments_that_wait_are_dropped(rig: Rig) -> None:
    before = fragments_of(rig)
    number = next(_identification)
    sent = [raw_fragment(64, 64, True, number), raw_fragment(96, 64, False, number)]
    plays(rig, 4, sent, [], {"from_internet": 2, "held_from_internet": 2})
    assert changes(rig, before) == {"held_overlapping": 2}


def test_endless_fragments_are_refused_by_the_shim(rig: Rig) -> None:
    """65,535 bytes are all that a packet has; 46 fragments of 1432 bytes are more."""
    number = next(_identification)
    first = downstream(id=number, flags="MF") / UDP(sport=53, dport=1072) / Raw(bytes(1424))
    rig.wire4.send(frame_of(first, 4))
    again = frame_of(raw_fragment(1432, 1432, True, number), 4)
    before = rig.shim_counters()
    for _ in range(60):
        rig.wire4.send(again)
    assert len(frames(rig.wire6, 45, 10)) == 45
    assert frames(rig.wire6, 1, 0.2) == []
    assert rig.shim_counters() - before == {"refused_fragment": 16}


@pytest.mark.parametrize(
    "packet",
    [
        downstream(proto=17, frag=8189, flags=0) / Raw(bytes(32)),  # ends at 65544
        downstream(proto=17, frag=8, flags="MF") / Raw(bytes(12)),
        downstream(proto=17, frag=8),
    ],
    ids=["too-far", "not-a-multiple-of-8", "empty"],
)
def test_impossible_fragments_are_refused_by_the_shim(rig: Rig, packet: Packet) -> None:
    run(rig, Scenario("impossible", send4=[packet], shim={"refused_fragment": 1}))


# --- softwire packets in IPv6 fragments, and behind other extension headers ---

LARGE = upstream() / UDP(sport=1072, dport=53) / Raw(bytes(range(256)) * 5)


def cut6(packet: Packet, size: int = 512, next_header: int = 4) -> list[Packet]:
    """What follows the IPv6 header in fragments (RFC 8200 section 4.5)."""
    number = next(_identification)
    data = bytes(packet.payload)
    outer = IPv6(src=packet.src, dst=packet.dst, hlim=packet.hlim, tc=packet.tc, nh=44)
    return [
        outer
        / IPv6ExtHdrFragment(nh=next_header, offset=at // 8, m=at + size < len(data), id=number)
        / Raw(data[at : at + size])
        for at in range(0, len(data), size)
    ]


LIMIT = bytes.fromhex("0400040104010100")
REASSEMBLED = [
    ("in order", cut6(softwire(LARGE)), LARGE),
    ("in reverse", cut6(softwire(LARGE))[::-1], LARGE),
    ("with a duplicate", [*(pieces := cut6(softwire(LARGE)))[:2], pieces[0], *pieces[2:]], LARGE),
    ("an encapsulation limit inside",
     cut6(IPv6(src=LWB4[1], dst=AFTR, nh=60, hlim=63) / Raw(LIMIT + bytes(LARGE)),
          next_header=60), LARGE),
    ("a single fragment (RFC 6946)", cut6(softwire(LARGE), 4096), LARGE),
    ("an echo", cut6(softwire(upstream() / ICMP(type=8, id=1075) / Raw(bytes(1200)))),
     upstream() / ICMP(type=8, id=1075) / Raw(bytes(1200))),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sent", "packet"), [row[1:] for row in REASSEMBLED], ids=[row[0] for row in REASSEMBLED]
)
def test_ipv6_fragments_of_a_softwire_packet(rig: Rig, sent: list[Packet], packet: Packet) -> None:
    counters = UP | {"slow_softwire": len(sent)}
    plays(rig, 6, sent, [forwarded(packet)], counters)


@pytest.mark.parametrize("marked", range(3))
def test_congestion_of_any_ipv6_fragment_is_kept(rig: Rig, marked: int) -> None:
    """RFC 3168 section 5.3, and then RFC 6040 section 4.2; whichever comes last."""
    packet = upstream(tos=2) / UDP(sport=1072, dport=53) / Raw(bytes(1200))
    congested = packet.copy()
    congested.tos = 3
    for order in ((0, 1, 2), (2, 1, 0)):
        pieces = cut6(softwire(packet, tc=2))
        pieces[marked].tc = 3
        sent = [pieces[number] for number in order]
        plays(rig, 6, sent, [forwarded(congested)], UP | {"slow_softwire": 3})


def test_congestion_that_not_all_fragments_heed(rig: Rig) -> None:
    """One is marked, and another Not-ECT: what must not be is a packet that is marked, or not."""
    before = fragments_of(rig)
    pieces = cut6(softwire(upstream(tos=2) / UDP(sport=1072, dport=53) / Raw(bytes(1200))))
    pieces[0].tc = 3
    plays(rig, 6, pieces, [], {"slow_softwire": 3})
    assert changes(rig, before) == {"reassembled": 1, "dropped_ecn": 1}


def test_more_than_the_internet_takes_is_fragmented(rig: Rig) -> None:
    """1900 bytes on a wire of 1500 (RFC 791 section 3.2)."""
    packet = upstream() / UDP(sport=1072, dport=53) / Raw(bytes(1872))
    sent = cut6(softwire(packet), 1024)
    expected = [forwarded(piece) for piece in fragments(packet, 1480)]
    plays(rig, 6, sent, expected, times(2, UP) | {"slow_softwire": 2})


def test_more_than_the_internet_takes_and_df_is_answered(rig: Rig) -> None:
    packet = upstream(flags="DF") / UDP(sport=1072, dport=53) / Raw(bytes(1872))
    error = (
        IP(src="198.51.100.1", dst="192.0.2.1", tos=0xC0, ttl=64, id=0, flags="DF")
        / ICMP(type=3, code=4, nexthopmtu=1500)
        / Raw(bytes(packet)[:548])
    )
    run(rig, Scenario(
        "too big", send6=cut6(softwire(packet), 1024), out6=[tunnelled(error, tc=0xC0)],
        counters={"slow_softwire": 2, "from_lwaftr": 1, "to_softwire": 1},
    ))  # fmt: skip


@pytest.mark.parametrize("at", [0, 512], ids=["first", "later"])
def test_an_ipv6_fragment_that_is_no_multiple_of_eight(rig: Rig, at: int) -> None:
    """Its source is told by a parameter problem: byte 4 is the payload length (RFC 8200 section
    4.5)."""
    number = next(_identification)
    lwb4 = f"2001:db8:dead:2::{number:x}"  # each is told so many times a second
    sent = (
        IPv6(src=lwb4, dst=AFTR, hlim=63, nh=44)
        / IPv6ExtHdrFragment(nh=4, offset=at // 8, m=1, id=number)
        / Raw(bytes(LARGE)[at : at + 509])
    )
    before = fragments_of(rig)
    rig.wire6.send(frame_of(sent, 6))
    (found,) = frames(rig.wire6, 1)
    problem = ICMPv6ParamProblem(code=0, ptr=4) / Raw(bytes(sent))
    # The flow label is the kernel's own choice.
    told = frame_of(IPv6(src=AFTR, dst=lwb4, hlim=64) / problem, 6, out=True)
    assert found[:14] + b"\x60\0\0\0" + found[18:] == told
    assert changes(rig, before) == {"dropped_malformed": 1}


def test_a_reassembled_packet_is_checked_like_any_other(rig: Rig) -> None:
    sent = cut6(softwire(upstream() / UDP(sport=1088, dport=53) / Raw(bytes(1200))))
    before = rig.counters()
    for packet in sent:
        rig.wire6.send(frame_of(packet, 6))
    wait_for("it is dropped", lambda: (rig.counters() - before)["drop_upstream_no_binding"])
    assert frames(rig.wire4, 1, 0.2) == []
    while frames(rig.wire6, 1, 0.2):
        pass  # it is told so


def test_overlapping_ipv6_fragments_are_dropped(rig: Rig) -> None:
    before = fragments_of(rig)
    first, second, third = cut6(softwire(LARGE), 512)
    shifted = second.copy()
    shifted[IPv6ExtHdrFragment].offset -= 1
    plays(rig, 6, [first, shifted, third], [], {"slow_softwire": 3})
    assert changes(rig, before) == {"reassembly_overlapping": 3}


@pytest.mark.parametrize(
    "headers",
    [
        IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]),
        IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 12)]),
        IPv6ExtHdrRouting(type=253, segleft=0),
        IPv6ExtHdrHopByHop(options=[HBHOptUnknown(otype=0x1E, optdata=b"1234")])
        / IPv6ExtHdrDestOpt(options=[HBHOptUnknown(otype=4, optdata=b"\4")]),
    ],
    ids=["hop-by-hop", "long-options", "routing", "two"],
)
def test_extension_headers_are_passed_over(rig: Rig, headers: Packet) -> None:
    inner = upstream() / UDP(sport=1072, dport=53) / b"behind headers"
    headers = headers.copy()
    headers.lastlayer().nh = 4
    sent = IPv6(src=LWB4[1], dst=AFTR, hlim=63) / headers / Raw(bytes(inner))
    plays(rig, 6, [sent], [forwarded(inner)], UP | {"slow_softwire": 1})


def option(kind: int) -> Packet:
    return HBHOptUnknown(otype=kind, optdata=b"1234")


# Code and pointer of the parameter problem that its source is told: byte 42 is the first option's
# type, or the routing type (RFC 8200 sections 4.2 and 4.4). None is silence.
@pytest.mark.parametrize(
    ("headers", "told"),
    [
        (IPv6ExtHdrHopByHop(options=[option(0x5E)]), None),
        (IPv6ExtHdrHopByHop(options=[option(0x9E)]), (2, 42)),
        (IPv6ExtHdrHopByHop(options=[option(0xDE)]), (2, 42)),
        (IPv6ExtHdrDestOpt(options=[option(0x9E)]), (2, 42)),
        (IPv6ExtHdrDestOpt(options=[option(0xDE), PadN(optdata=bytes(6))]), (2, 42)),
        (IPv6ExtHdrRouting(type=253, segleft=1), (0, 42)),
    ],
    ids=["skip-not", "hop-by-hop", "unless-multicast", "destination", "long", "segments-left"],
)
def test_extension_headers_that_forbid_it(
    rig: Rig, headers: Packet, told: tuple[int, int] | None
) -> None:
    before = fragments_of(rig)
    headers = headers.copy()
    headers.lastlayer().nh = 4
    inner = upstream() / UDP(sport=1072, dport=53)
    lwb4 = f"2001:db8:dead:1::{next(_identification):x}"  # each is told so many times a second
    sent = IPv6(src=lwb4, dst=AFTR, hlim=63) / headers / Raw(bytes(inner))
    expected = []
    if told is not None:
        problem = ICMPv6ParamProblem(code=told[0], ptr=told[1]) / Raw(bytes(sent))
        expected = [frame_of(IPv6(src=AFTR, dst=lwb4, hlim=64) / problem, 6, out=True)]
    rig.wire6.send(frame_of(sent, 6))
    found = frames(rig.wire6, 1, 0.3) + frames(rig.wire4, 1, 0.2)
    # The flow label is the kernel's own choice.
    assert [frame[:14] + b"\x60\0\0\0" + frame[18:] for frame in found] == expected
    assert changes(rig, before) == {"dropped_options": 1}
