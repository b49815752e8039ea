"""Packets that are wrong in themselves (RFC 1812 sections 4.2.2 and 5.2.2): right or counted."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.packet import Packet, Raw

from tests.support.rig import Rig
from tests.wire.scenario import (
    AFTR,
    DOWN,
    LWB4,
    UP,
    Scenario,
    downstream,
    forwarded,
    goes_down,
    goes_up,
    is_dropped_down,
    is_dropped_up,
    run,
    softwire,
    tunnelled,
    upstream,
)

TO_53 = UDP(sport=1072, dport=53)
FROM_53 = UDP(sport=53, dport=1072)


def refused(name: str, counter: str, **fields: int) -> list[Scenario]:
    """The same mistake in an IPv4 header on either side."""
    return [
        Scenario(f"up: {name}", send6=[softwire(upstream(**fields) / TO_53)], shim={counter: 1}),
        Scenario(f"down: {name}", send4=[downstream(**fields) / FROM_53], shim={counter: 1}),
    ]


HEADERS = [
    *refused("a wrong header checksum", "refused_checksum", chksum=0x0001),
    *refused("a header checksum of zero", "refused_checksum", chksum=0),
    *refused("version 5", "refused_not_ipv4", version=5),
    *refused("a header of 16 bytes", "refused_truncated", ihl=4),
    *refused("a header of no bytes", "refused_truncated", ihl=0),
    *refused("a header longer than the packet", "refused_truncated", ihl=15),
    *refused("total length 0", "refused_truncated", len=0),
    *refused("a total length below the header's", "refused_truncated", len=19),
    *refused("a total length beyond the frame", "refused_truncated", len=29),
    *refused("a total length of 65535", "refused_truncated", len=65535),
    Scenario("up: IPv6 in the softwire", shim={"refused_not_ipv4": 1},
             send6=[IPv6(src=LWB4[1], dst=AFTR, nh=4) / IPv6(dst=AFTR) / TO_53]),
    Scenario("up: nineteen bytes in the softwire", shim={"refused_truncated": 1},
             send6=[softwire(Raw(bytes(upstream() / TO_53)[:19]))]),
    Scenario("up: an empty softwire packet", shim={"refused_truncated": 1},
             send6=[IPv6(src=LWB4[1], dst=AFTR, nh=4, plen=0)]),
    Scenario("up: an IPv6 payload length beyond the frame", shim={"refused_truncated": 1},
             send6=[softwire(upstream() / TO_53, plen=100)]),
    Scenario("up: an IPv6 payload length below the IPv4 packet's", shim={"refused_truncated": 1},
             send6=[softwire(upstream() / TO_53, plen=27)]),
]  # fmt: skip

# What is behind an IPv4 packet is none of it (RFC 894: frames are padded).
ANSWER = downstream(len=34) / UDP(sport=53, dport=1072, len=14, chksum=0) / b"answer"
SHORT = upstream(len=28) / UDP(sport=1072, dport=53, len=8, chksum=0)
PADDING = [
    Scenario("down: Ethernet padding stays behind", counters=DOWN,
             send4=[ANSWER / bytes(12)], out6=[tunnelled(forwarded(ANSWER))]),
    Scenario("up: bytes behind the IPv4 packet are padding", counters=UP,
             send6=[softwire(SHORT / b"behind")], out4=[forwarded(SHORT) / b"behind"]),
]  # fmt: skip

# Too short for ports; a first fragment like that may hide them (RFC 1858 section 3).
NO_PORTS = [
    is_dropped_up("UDP of four bytes", upstream(proto=17) / Raw(b"\x04\x30\x00\x35"),
                  "drop_upstream_excluded_port"),
    is_dropped_up("UDP of no bytes", upstream(proto=17), "drop_upstream_excluded_port"),
    is_dropped_up("TCP of eight bytes", upstream(proto=6) / Raw(bytes(TCP(sport=1072))[:8]),
                  "drop_upstream_excluded_port"),
    is_dropped_up("TCP with a header of 12 bytes", upstream() / TCP(sport=1072, dataofs=3),
                  "drop_upstream_excluded_port"),
    is_dropped_down("UDP of seven bytes", downstream(proto=17) / Raw(bytes(FROM_53)[:7]),
                    "drop_downstream_excluded_port"),
    is_dropped_down("TCP with a header longer than the packet",
                    downstream() / TCP(dport=1072, dataofs=15), "drop_downstream_excluded_port"),
]  # fmt: skip

# What transport checksums say is for the hosts to judge.
FOR_HOSTS = [
    goes_up("a wrong UDP checksum", upstream() / UDP(sport=1072, dport=53, chksum=1)),
    goes_down("a wrong TCP checksum", downstream() / TCP(dport=1072, chksum=1)),
    goes_up("a UDP length that is wrong", upstream() / UDP(sport=1072, dport=53, len=4000) / b"x"),
    goes_up("every TCP flag", upstream() / TCP(sport=1072, dport=80, flags=0xFF)),
    goes_down("no TCP flag", downstream() / TCP(sport=80, dport=1072, flags=0)),
    goes_down("the reserved flag", downstream(flags="evil") / FROM_53),
    goes_down("port 0", downstream() / UDP(sport=0, dport=1072)),
    goes_up("to port 0", upstream() / TCP(sport=1072, dport=0)),
    goes_down("identification 0", downstream(id=0) / FROM_53),
    goes_down("identification 65535", downstream(id=65535) / FROM_53),
]  # fmt: skip


@pytest.mark.parametrize("scenario", [*HEADERS, *NO_PORTS], ids=str)
def test_dropped(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


@pytest.mark.parametrize("scenario", [*PADDING, *FOR_HOSTS], ids=str)
def test_forwarded(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


# --- IPv6 extension headers before the IPv4 packet ------------------------------------------------

INNER = upstream() / TO_53


def behind(*headers: Packet) -> Packet:
    packet: Packet = IPv6(src=LWB4[1], dst=AFTR, hlim=63)
    for header in headers:
        packet = packet / header
    return packet / INNER


GRE = [
    ("hop-by-hop", behind(IPv6ExtHdrHopByHop(nh=47))),
    ("routing", behind(IPv6ExtHdrRouting(nh=47, segleft=0))),
    ("destination options", behind(IPv6ExtHdrDestOpt(nh=47, options=[PadN(optdata=bytes(4))]))),
    ("three of them", behind(IPv6ExtHdrHopByHop(nh=60), IPv6ExtHdrDestOpt(nh=43),
                             IPv6ExtHdrRouting(nh=47, segleft=0))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "packet"), GRE, ids=[name for name, _ in GRE])
def test_gre_hidden_behind_extension_headers(rig: Rig, name: str, packet: Packet) -> None:
    run(rig, Scenario(name, send6=[packet], shim={"refused_gre_from_wire": 1}))


def test_echo_with_everything_the_header_allows(rig: Rig) -> None:
    """Sixty bytes of IPv4 header, and an identifier to find."""
    packet = downstream(options=b"\x44\x28\x29\x03" + bytes(36)) / ICMP(type=8, id=1075) / b"data"
    run(rig, goes_down("60 bytes", packet))
