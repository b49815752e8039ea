"""ICMPv6 errors of routers between lwAFTR and lwB4 about softwire packets (RFC 2473 section 8)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.packet import Packet, Raw

from tests.support.ovs import wait_for
from tests.support.rig import CONFIG, Rig, frames
from tests.wire.scenario import (
    AFTR,
    LWB4,
    SECOND_AFTR,
    Scenario,
    downstream,
    forwarded,
    frame_of,
    goes_down,
    run,
    softwire,
    tunnelled,
    upstream,
)
from tests.wire.test_icmp_errors import quoted_by

OVER = {"from_internet": 1, "over_path_mtu": 1}
ROUTER = "2001:db8:77::1"
FROM_53 = UDP(sport=53, dport=1072)


def error(message: Packet, sent: Packet, room: int = 1232, dst: str | None = None) -> Packet:
    """What a router says about a packet that we sent (RFC 4443 section 2.4 c)."""
    return IPv6(src=ROUTER, dst=dst or sent.src, hlim=60) / message / Raw(bytes(sent)[:room])


def about(packet: Packet, lwb4: int = 1, aftr: str = AFTR) -> Packet:
    """The softwire packet that an IPv4 packet became."""
    return tunnelled(forwarded(packet), LWB4[lwb4], aftr, packet.tos)


def is_told(
    name: str, message: Packet, packet: Packet, code: int, mtu: int = 0, *, lwb4: int = 1,
    aftr: str = AFTR, room: int = 1232,
) -> Scenario:  # fmt: skip
    """The Internet host learns it, about its packet as the error quotes it."""
    quoted = IP(bytes(about(packet, lwb4, aftr))[40:room])
    return Scenario(
        name, send6=[error(message, about(packet, lwb4, aftr), room)],
        out4=[quoted_by(3, code, quoted, mtu)], counters={"tunnel_icmp": 1},
    )  # fmt: skip


WHOLE = downstream(flags="DF") / TCP(sport=80, dport=1087, flags="A") / bytes(1420)
SMALL = downstream(flags="DF") / UDP(sport=53, dport=1072) / b"to nobody"
TOLD = [
    is_told("no route (1/0)", ICMPv6DestUnreach(code=0), SMALL, 1),
    is_told("prohibited (1/1)", ICMPv6DestUnreach(code=1), SMALL, 1),
    is_told("address unreachable (1/3)", ICMPv6DestUnreach(code=3), SMALL, 1),
    is_told("hop limit exceeded (3/0)", ICMPv6TimeExceeded(code=0), SMALL, 1),
    is_told("about an echo", ICMPv6DestUnreach(code=3),
            downstream() / ICMP(type=8, id=1075, seq=3) / b"data", 1),
    is_told("about a full address", ICMPv6DestUnreach(code=3),
            downstream(dst="203.0.113.1") / UDP(sport=1, dport=2), 1, lwb4=3),
    is_told("about the other br-address", ICMPv6DestUnreach(code=3),
            downstream(dst="198.18.0.1") / UDP(sport=53, dport=65535), 1, lwb4=4,
            aftr=SECOND_AFTR),
    is_told("a router that quotes as little as it may", ICMPv6DestUnreach(code=3), WHOLE, 1,
            room=40 + 28),
]  # fmt: skip


@pytest.mark.parametrize("scenario", TOLD, ids=str)
def test_the_source_is_told(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


def test_another_lwb4_is_told_through_its_softwire(rig: Rig) -> None:
    packet = upstream(dst="203.0.113.1") / UDP(sport=1072, dport=9)
    sent = tunnelled(forwarded(packet), LWB4[3])
    answer = tunnelled(quoted_by(3, 1, forwarded(packet)), tc=0xC0)
    run(rig, Scenario(
        "hairpin", send6=[error(ICMPv6DestUnreach(code=3), sent)], out6=[answer],
        counters={"tunnel_icmp": 1, "from_lwaftr": 1, "to_softwire": 1},
    ))  # fmt: skip


UNREACHABLE = ICMPv6DestUnreach(code=3)
FORGED = about(SMALL)
LIMIT_OF_ONE = bytes.fromhex("0400040101010100")  # destination options: limit 1, padding
NOT_TOLD = [
    ("an IPv6 header that is wrong", error(ICMPv6ParamProblem(code=0, ptr=4), FORGED),
     "parameter_problem"),
    ("an lwB4 that does not know next header 4", error(ICMPv6ParamProblem(code=1, ptr=6), FORGED),
     "parameter_problem"),
    ("an encapsulation limit, which we do not send", error(
        ICMPv6ParamProblem(code=0, ptr=44),
        IPv6(src=AFTR, dst=LWB4[1], nh=60, hlim=255) / Raw(LIMIT_OF_ONE + bytes(SMALL))),
     "ignored"),
    ("a parameter problem about another's packet", error(
        ICMPv6ParamProblem(code=1, ptr=6), tunnelled(forwarded(SMALL), LWB4[2])), "forged"),
    ("reassembly time exceeded: not the tunnel's", error(ICMPv6TimeExceeded(code=1), FORGED),
     "ignored"),
    ("another lwB4", error(UNREACHABLE, tunnelled(forwarded(SMALL), LWB4[2])), "forged"),
    ("no lwB4 at all", error(UNREACHABLE, tunnelled(forwarded(SMALL), "2001:db8:dead::1")),
     "forged"),
    ("a port of another lwB4", error(UNREACHABLE, about(downstream() / UDP(dport=1088))), "forged"),
    ("the wrong br-address", error(UNREACHABLE, about(SMALL, 1, SECOND_AFTR)), "forged"),
    ("not sent to who sent it", error(UNREACHABLE, FORGED, dst=SECOND_AFTR), "ignored"),
    ("quoted too short to say", error(UNREACHABLE, FORGED, 40 + 27), "ignored"),
    ("about something else",
     error(UNREACHABLE, IPv6(src=AFTR, dst=LWB4[1]) / UDP() / bytes(40)), "ignored"),
    ("about an ICMP error", error(UNREACHABLE, about(
        downstream() / ICMP(type=11) / (upstream() / UDP(sport=1072, dport=53)))), "believed"),
    ("a wrong checksum", error(ICMPv6DestUnreach(code=3, cksum=0x1234), FORGED), "ignored"),
    ("less than every link takes, which must be discarded (RFC 8201 section 4)",
     error(ICMPv6PacketTooBig(mtu=1279), about(WHOLE)), "ignored"),
    ("about our own answer to an echo", error(UNREACHABLE, tunnelled(
        IP(src="198.51.100.1", dst="192.0.2.1", ttl=64) / ICMP(type=0, id=1075))), "believed"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("packet", "counted"), [row[1:] for row in NOT_TOLD], ids=[row[0] for row in NOT_TOLD]
)
def test_nobody_is_told(rig: Rig, packet: Packet, counted: str) -> None:
    before = Counter(rig.controller.switch()["paths"]["counts"])
    run(rig, Scenario("", send6=[packet], counters={"tunnel_icmp": 1}))
    assert rig.controller.switch()["paths"]["counts"] == before + Counter([counted])


def too_big(packet: Packet, mtu: int, name: str = "too big") -> Scenario:
    quoted = IP(bytes(about(packet))[40:1232])
    return Scenario(
        name, send6=[error(ICMPv6PacketTooBig(mtu=mtu), about(packet))],
        out4=[quoted_by(3, 4, quoted, mtu - 40)], counters={"tunnel_icmp": 1},
    )  # fmt: skip


@pytest.fixture
def fresh() -> Iterator[Rig]:
    """One that has heard of no path MTU."""
    rig = Rig(CONFIG)
    yield rig
    rig.stop()


def test_the_path_mtu_is_kept(fresh: Rig) -> None:
    """1400 bytes of IPv6 are 1360 of IPv4, of which 28 are headers."""
    run(fresh, too_big(WHOLE, 1400))
    fits = downstream(flags="DF") / UDP(sport=53, dport=1072) / bytes(1332)
    run(fresh, goes_down("fits", fits))
    larger = downstream(flags="DF") / UDP(sport=53, dport=1072) / bytes(1333)
    run(fresh, Scenario("1361 bytes", send4=[larger], out4=[quoted_by(3, 4, larger, 1360)],
                        counters=OVER))  # fmt: skip
    # Others are none the worse for it.
    other = downstream(flags="DF") / UDP(sport=53, dport=1088) / bytes(1432)
    run(fresh, goes_down("another lwB4", other, lwb4=2))
    # A smaller one replaces it, a larger one does not.
    run(fresh, too_big(WHOLE, 1280))
    run(fresh, too_big(WHOLE, 1450))
    larger = downstream(flags="DF") / UDP(sport=53, dport=1072) / bytes(1240 - 27)
    run(fresh, Scenario("1241 bytes", send4=[larger], out4=[quoted_by(3, 4, larger, 1240)],
                        counters=OVER))  # fmt: skip
    assert fresh.controller.switch()["paths"]["paths"] == 1


def test_what_has_no_df_is_fragmented_for_its_path(fresh: Rig) -> None:
    run(fresh, too_big(WHOLE, 1280))
    packet = downstream(tos=0xB8) / FROM_53 / Raw(bytes(range(250)) * 5)  # 1278 bytes
    before = fresh.counters()
    fresh.wire4.send(frame_of(packet, 4))
    first, second = frames(fresh.wire6, 2)
    # 1280 - 48 = 1232, a multiple of 8
    for frame, offset, length, more in ((first, 0, 1232, 1), (second, 1232, 46, 0)):
        read = IPv6(frame[14:])
        assert (read.src, read.dst, read.hlim, read.tc) == (AFTR, LWB4[1], 255, 0xB8)
        assert read.plen == 8 + length
        fragment = read[IPv6ExtHdrFragment]
        assert (fragment.nh, fragment.offset * 8, fragment.m) == (4, offset, more)
    assert first[54:62][4:] == second[54:62][4:]
    assert first[62:] + second[62:] == bytes(forwarded(packet))
    wait_for("it is counted", lambda: fresh.counters() - before == OVER)


def test_a_path_mtu_survives_the_controller(fresh: Rig) -> None:
    """It is the switch that keeps it."""
    run(fresh, too_big(WHOLE, 1400))
    fresh.controller.kill()
    fresh.controller.start()
    wait_for("both next hops are known", fresh.neighbours_known)
    larger = downstream(flags="DF") / UDP(sport=53, dport=1072) / bytes(1333)
    run(fresh, Scenario("1361 bytes", send4=[larger], out4=[quoted_by(3, 4, larger, 1360)],
                        counters=OVER))  # fmt: skip


def test_hairpinned_packets_have_the_path_mtu_of_the_other_end(fresh: Rig) -> None:
    sent = about(downstream(dst="203.0.113.1", flags="DF") / UDP(sport=1, dport=2) / bytes(1400), 3)
    fresh.wire6.send(frame_of(error(ICMPv6PacketTooBig(mtu=1300), sent), 6))
    assert len(frames(fresh.wire4, 1)) == 1
    packet = upstream(dst="203.0.113.1", flags="DF") / UDP(sport=1072, dport=9) / bytes(1300)
    run(fresh, Scenario(
        "hairpin", send6=[softwire(packet)],
        out6=[tunnelled(quoted_by(3, 4, packet, 1260), tc=0xC0)],
        counters={"from_softwire": 1, "hairpinned": 1, "over_path_mtu": 1, "to_softwire": 1,
                  "from_lwaftr": 1},
    ))  # fmt: skip


@pytest.mark.parametrize("setting", ["zero", "hashed"])
def test_fragments_have_the_flow_label_of_their_flow(setting: str) -> None:
    """Routers send all that has one label the same way (RFC 6438 section 3), be it the shim that
    makes the fragments, or the controller."""
    rig = Rig(CONFIG.replace("ipv6: {{", f"ipv6: {{{{flow_label: {setting}, "))
    try:
        flows = [
            (downstream() / FROM_53, 1),
            (downstream() / TCP(sport=80, dport=1087), 1),
            (downstream() / ICMP(type=8, id=1075), 1),
            (downstream(dst="203.0.113.1", proto=47), 3),
        ]

        def labels(packet: Packet, size: int) -> set[int]:
            rig.wire4.send(frame_of(packet / Raw(bytes(size)), 4))
            return {IPv6(frame[14:]).fl for frame in frames(rig.wire6, 1 if size < 1000 else 2)}

        whole = [labels(packet, 8) for packet, _ in flows]
        assert [len(found) for found in whole] == [1] * 4
        assert (set.union(*whole) == {0}) == (setting == "zero")
        assert [labels(packet, 1450) for packet, _ in flows] == whole  # 1470 bytes or more
        for packet, lwb4 in (flows[0], flows[3]):
            too_big = error(ICMPv6PacketTooBig(mtu=1280), about(packet / Raw(bytes(1400)), lwb4))
            rig.wire6.send(frame_of(too_big, 6))
        wait_for("the path MTUs are known",
                 lambda: rig.controller.switch()["paths"]["paths"] == 2)  # fmt: skip
        assert [labels(packet, 1300) for packet, _ in flows] == whole
    finally:
        rig.stop()
