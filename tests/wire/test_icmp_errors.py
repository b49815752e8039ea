"""What the controller answers by ICMP, on the wire, and what is never answered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.packet import Packet, Raw

from tests.support import evidence
from tests.support.ovs import wait_for
from tests.support.rig import CONFIG, Rig, frames
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

UNKNOWN = {"from_softwire": 1, "drop_upstream_no_binding": 1}
ANSWERED = UNKNOWN | {"answered_lwb4": 1}
TOO_BIG = {"from_internet": 1, "drop_downstream_too_big": 1}


def refused(packet: Packet, room: int = 1232) -> Packet:
    """ICMPv6 type 1 code 5 from where ``packet`` went to where it came from (RFC 7596 section
    6.2), quoting as much of it as fits into 1280 bytes (RFC 4443 section 2.4 c)."""
    quoted = bytes(packet)[:room]
    return (
        IPv6(src=packet.dst, dst=packet.src, hlim=64)
        / ICMPv6DestUnreach(code=5, length=0)
        / Raw(quoted)
    )


def is_refused(
    name: str, packet: Packet, counters: dict[str, int] = ANSWERED, **shim: int
) -> Scenario:
    answer = refused(packet)
    said = {"answered": 1, "answered_bytes": len(answer)}
    return Scenario(name, send6=[packet], out6=[answer], counters=counters, shim=said | shim)


def stranger(number: int, inner: Packet, aftr: str = AFTR) -> Packet:
    """A softwire packet of an lwB4 that is told for the first time."""
    return softwire(inner, STRANGER % number, aftr)


STRANGER = "2001:db8:dead::%x"
ANY = UDP(sport=1072, dport=53)
LIMITED = (
    IPv6(src=STRANGER % 11, dst=AFTR, nh=60, hlim=62, fl=7)
    / Raw(bytes.fromhex("0400040104010100"))
    / (upstream() / ANY)
)
ALIEN = softwire(upstream(src="192.0.9.1") / ANY, STRANGER % 12)

REFUSED = [
    is_refused("an lwB4 without a binding", stranger(1, upstream() / ANY)),
    is_refused("TCP", stranger(2, upstream() / TCP(sport=1072, dport=80, flags="S"))),
    is_refused("an echo request", stranger(3, upstream() / ICMP(type=8, id=1075) / b"data")),
    is_refused("an address that is bound to nobody", stranger(4, upstream(src="192.0.2.9") / ANY)),
    is_refused("to the second br-address", stranger(5, upstream() / ANY, SECOND_AFTR)),
    is_refused("1232 bytes are quoted whole",
               stranger(6, upstream() / ANY / bytes(1232 - 40 - 28))),
    is_refused("of more than 1232 bytes the first 1232 are quoted",
               stranger(7, upstream() / ANY / bytes(1400))),
    is_refused("traffic class, flow label and hop limit are quoted as they came",
               softwire(upstream(tos=0x28) / ANY, STRANGER % 8, hlim=1, tc=0xB9, fl=0xABCDE)),
    is_refused("those of an echo as well",
               softwire(upstream() / ICMP(type=8, id=1072), STRANGER % 9, hlim=255, fl=0xFFFFF)),
    is_refused("an odd number of bytes", stranger(13, upstream() / ANY / b"odd")),
    is_refused("the shortest there is: an IPv4 header",
               stranger(14, upstream(src="203.0.113.2", proto=59))),
    is_refused("1233 bytes, of which the first 1232 are quoted",
               stranger(15, upstream() / ANY / bytes(1233 - 40 - 28))),
    is_refused("an odd number of bytes, and all of them quoted",
               stranger(16, upstream() / ANY / bytes(1231 - 40 - 28))),
    is_refused("1500 bytes with an encapsulation limit",
               IPv6(src=STRANGER % 17, dst=AFTR, nh=60, hlim=9, fl=0x54321)
               / Raw(bytes.fromhex("0400040104010100")) / (upstream() / ANY / bytes(1424)),
               options_stripped=1),
    is_refused("with an encapsulation limit, 1232 bytes",
               IPv6(src=STRANGER % 18, dst=SECOND_AFTR, nh=60, hlim=9)
               / Raw(bytes.fromhex("0400040104010100")) / (upstream() / ANY / bytes(1232 - 76)),
               options_stripped=1),
    is_refused("an inner ICMP error is a packet like any other",
               stranger(19, upstream() / ICMP(type=3, code=3)
                        / (downstream() / UDP(sport=53, dport=1088)))),
    is_refused("a first fragment", stranger(20, upstream(flags="MF") / ANY / bytes(8))),
    is_refused("a fragment that is not the first",
               stranger(21, upstream(src="203.0.113.2", frag=9, proto=17) / Raw(bytes(24)))),
    is_refused("bytes behind the IPv4 packet are quoted, too",
               softwire(upstream(len=28) / ANY / b"trailer", STRANGER % 10)),
    is_refused("an encapsulation limit is quoted", LIMITED, options_stripped=1),
    is_refused("an inner address of another lwAFTR", ALIEN,
               {"from_softwire": 1, "drop_upstream_not_served": 1, "answered_lwb4": 1}),
    is_refused("a known lwB4 with another one's port",
               softwire(upstream() / UDP(sport=1088, dport=53), LWB4[1])),
    is_refused("a known lwB4 to the wrong br-address",
               softwire(upstream(src="198.18.0.1") / UDP(sport=61440), LWB4[4], AFTR)),
    is_refused("a known lwB4 with a full address that is not its own",
               softwire(upstream(src="203.0.113.2") / ANY, LWB4[3])),
]  # fmt: skip


def quoted_by(kind: int, code: int, packet: Packet, mtu: int = 0) -> Packet:
    """An ICMPv4 error of at most 576 bytes about ``packet`` (RFC 1812 section 4.3.2.3), with
    precedence 6 (section 4.3.2.5), and DF since all have one identification (RFC 6864)."""
    header = IP(src="198.51.100.1", dst=packet.src, tos=0xC0, ttl=64, id=0, flags="DF")
    return header / ICMP(type=kind, code=code, nexthopmtu=mtu) / Raw(bytes(packet)[:548])


BIG = downstream(flags="DF") / UDP(sport=53, dport=1072) / bytes(1433)  # 1461 bytes
BIG_TCP = downstream(flags="DF") / TCP(sport=80, dport=1087, flags="A") / bytes(1460)
BIG_ECHO = downstream(flags="DF") / ICMP(type=8, id=1075) / bytes(1472)
TOO_BIG_ANSWERED = [
    Scenario(f"too big with DF: {name}", send4=[packet],
             out4=[quoted_by(3, 4, packet, 1460)], counters=TOO_BIG)
    for name, packet in (("1461 bytes of UDP", BIG), ("TCP", BIG_TCP), ("echo", BIG_ECHO))
]  # fmt: skip

SILENT = [
    Scenario("too big and an ICMP error itself (RFC 1122 section 3.2.2)",
             send4=[downstream(flags="DF") / ICMP(type=3, code=3)
                    / (upstream() / UDP(sport=1072, dport=53)) / bytes(1433)],
             counters=TOO_BIG),
    Scenario("no binding, from the Internet",
             send4=[downstream(dst="192.0.2.77") / UDP(sport=53, dport=1072)],
             counters={"from_internet": 1, "drop_downstream_no_binding": 1}),
]  # fmt: skip


@pytest.mark.parametrize("scenario", [*REFUSED, *TOO_BIG_ANSWERED], ids=str)
def test_answered(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


@pytest.mark.parametrize("scenario", SILENT, ids=str)
def test_not_answered(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


def test_an_unknown_lwb4_is_answered_once_a_second(rig: Rig) -> None:
    packet = stranger(0x100, upstream() / ANY)
    before, shim_before = rig.all_counters()
    for _ in range(5):
        rig.wire6.send(frame_of(packet, 6))
    assert frames(rig.wire6, 1, 10) == [frame_of(refused(packet), 6, out=True)]
    assert frames(rig.wire6, 1, 0.3) == []
    after, shim_after = rig.all_counters()
    found, by_shim = after - before, shim_after - shim_before
    assert found["from_softwire"] == found["drop_upstream_no_binding"] == 5
    # Whether the shim keeps it back on its way in, or already has it on its way out.
    assert found["answered_lwb4"] + found["quiet_lwb4"] == 5
    assert by_shim["answered"] == 1
    assert by_shim["answered_lately"] == found["answered_lwb4"] - 1
    evidence.moved(["answered", "answered_bytes"])

    def answered() -> bool:
        rig.wire6.send(frame_of(packet, 6))
        return frames(rig.wire6, 1, 0.1) == [frame_of(refused(packet), 6, out=True)]

    wait_for("it is answered again", answered, 5)


# --- other policies ---

OTHER = (
    CONFIG
    + """\
    hairpinning: false
    failover: none
    icmp: {{unknown_ipv4: true, too_big: false, ttl_expired: false, inbound: false}}
"""
)


@pytest.fixture(scope="module")
def other_rig() -> Iterator[Rig]:
    rig = Rig(OTHER)
    yield rig
    rig.stop()


NOBODY = downstream(dst="192.0.2.77") / UDP(sport=53, dport=1072) / b"is anybody there?"
NO_BINDING = {"from_internet": 1, "drop_downstream_no_binding": 1}
POLICIES = [
    Scenario("host unreachable to the Internet (3/1)", send4=[NOBODY],
             out4=[quoted_by(3, 1, NOBODY)], counters=NO_BINDING),
    Scenario("not about a fragment that is not the first",
             send4=[downstream(dst="203.0.113.2", proto=17, frag=64) / Raw(bytes(40))],
             counters=NO_BINDING),
    Scenario("unknown lwB4s are not answered", send6=[stranger(1, upstream() / ANY)],
             counters=UNKNOWN),
    Scenario("too big is not answered", send4=[BIG], counters=TOO_BIG),
    Scenario("TTL 1 is not answered", send4=[downstream(ttl=1) / UDP(sport=53, dport=1072)],
             counters={"from_internet": 1, "drop_downstream_ttl_expired": 1}),
    Scenario("ICMP from the Internet is not forwarded",
             send4=[downstream() / ICMP(type=8, id=1075)],
             counters={"from_internet": 1, "drop_inbound_icmp_disabled": 1}),
    Scenario("no hairpinning",
             send6=[softwire(upstream(dst="203.0.113.1") / UDP(sport=1072, dport=9))],
             counters={"from_softwire": 1, "drop_hairpin_disabled": 1}),
    Scenario("UDP still goes down", send4=[downstream() / UDP(sport=53, dport=1072)],
             out6=[tunnelled(downstream(ttl=59) / UDP(sport=53, dport=1072))],
             counters={"from_internet": 1, "to_softwire": 1}),
]  # fmt: skip


@pytest.mark.parametrize("scenario", POLICIES, ids=str)
def test_policies(other_rig: Rig, scenario: Scenario) -> None:
    run(other_rig, scenario)
