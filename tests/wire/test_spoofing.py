"""What an lwB4 may not say (RFC 7596 section 6.2): each part of a packet that can be forged, alone.

Subscriber 1 is 2001:db8:b4::1, with ports 1072-1087, ... of 192.0.2.1, and the softwire of
2001:db8:ffff::1. Every forgery gets ICMPv6 type 1 code 5, and is counted."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import LLC, SNAP, Dot3
from scapy.packet import Packet, Raw

from tests.support.ovs import run as sh
from tests.support.ovs import wait_for
from tests.support.rig import IPV6, NIC4, NIC6, Rig, frames
from tests.wire.scenario import (
    AFTR,
    LWB4,
    SECOND_AFTR,
    Scenario,
    downstream,
    frame_of,
    goes_up,
    run,
    softwire,
    upstream,
)
from tests.wire.test_icmp_errors import is_refused, refused

NO_BINDING = {"from_softwire": 1, "drop_upstream_no_binding": 1}
RIGHT = upstream() / UDP(sport=1072, dport=53)


# One dimension at a time. An lwB4 is told once a second, so each comes from a source of its own,
# or from an lwB4 that no other scenario forges from.
FORGED = [
    is_refused("the outer source: a neighbour of the lwB4",
               softwire(RIGHT, "2001:db8:b4::1:1")),
    is_refused("the outer source: one bit",
               softwire(RIGHT, "2001:db8:b4::8000:0:0:1")),
    is_refused("the inner address: the next one",
               softwire(upstream(src="192.0.2.2") / UDP(sport=1072), "2001:db8:b4::1:2")),
]  # fmt: skip

OTHERS = [
    ("inner address", softwire(upstream(src="192.0.2.0") / UDP(sport=1072), LWB4[1])),
    ("PSID: the next", softwire(upstream() / UDP(sport=1088), LWB4[1])),
    ("PSID: the one before", softwire(upstream() / UDP(sport=1071), LWB4[1])),
    ("PSID: of TCP", softwire(upstream() / TCP(sport=1088), LWB4[1])),
    ("PSID: of an echo", softwire(upstream() / ICMP(type=8, id=1088), LWB4[1])),
    ("PSID: of an ICMP error", softwire(
        upstream() / ICMP(type=3, code=3) / (downstream() / UDP(sport=53, dport=1088)), LWB4[1])),
    ("br-address", softwire(RIGHT, LWB4[1], SECOND_AFTR)),
    ("br-address and PSID offset 0", softwire(
        upstream(src="198.18.0.1") / UDP(sport=61440), LWB4[4], AFTR)),
    ("a full address that is another's", softwire(
        upstream(src="203.0.113.2") / UDP(sport=1072), LWB4[3])),
    ("a shared address by the owner of a full one", softwire(RIGHT, LWB4[3])),
    ("a full address by the owner of a shared one", softwire(
        upstream(src="203.0.113.1") / UDP(sport=1072), LWB4[1])),
]  # fmt: skip


@pytest.mark.parametrize("scenario", FORGED, ids=str)
def test_a_forged_outer_source_is_caught(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


@pytest.mark.parametrize(("what", "packet"), OTHERS, ids=[name for name, _ in OTHERS])
def test_what_an_lwb4_forges_is_caught(silent: Rig, what: str, packet: Packet) -> None:
    """Here nobody is told, so that one scenario need not wait for another."""
    run(silent, Scenario(what, send6=[packet], counters=NO_BINDING))


def test_an_unspecified_multicast_or_loopback_source_is_never_answered(rig: Rig) -> None:
    """RFC 4443 section 2.4 e: no error to an address that is no single node's."""
    for source in ("::", "ff02::1", "::1"):
        packet = softwire(RIGHT, source)
        counters = NO_BINDING | {"quiet_lwb4": 1}
        run(rig, Scenario(source, send6=[packet], counters=counters))


def test_a_neighbour_of_the_lwaftr_is_asked_for_first(rig: Rig) -> None:
    """An outer source in the lwAFTR's own network: no router is in between."""
    neighbour = "2001:db8:1::77"
    netns = ("ip", "-n", rig.router, "addr")
    sh(*netns, "add", f"{neighbour}/128", "dev", "wire6", "nodad")
    try:
        packet = softwire(RIGHT, neighbour)

        def answered() -> bool:
            rig.wire6.send(frame_of(packet, 6))
            return frames(rig.wire6, 1, 0.1) == [frame_of(refused(packet), 6, out=True)]

        wait_for("Open vSwitch has asked who that is", answered)
    finally:
        sh(*netns, "del", f"{neighbour}/128", "dev", "wire6")


AS_MADE = bytes.fromhex("00006558 024b00000000 000000000430 0800") + bytes(RIGHT)
"""GRE and what is in it, as the shim makes it of a softwire packet."""


@pytest.mark.parametrize("address", [AFTR, IPV6, "fe80::ff:fe00:601"])
def test_gre_from_the_wire_is_no_way_in(rig: Rig, address: str) -> None:
    """What Open vSwitch takes for a softwire comes through the shim only; it would end tunnels at
    every address that the bridge's LOCAL port has."""
    packet = IPv6(src=LWB4[1], dst=address, nh=47, hlim=63) / Raw(AS_MADE)
    run(rig, Scenario("GRE", send6=[packet], shim={"refused_gre_from_wire": 1}))


def test_nor_is_an_802_3_frame(rig: Rig) -> None:
    """In which Open vSwitch finds an Ethernet type (RFC 1042), and the shim would not look."""
    as_made = IPv6(src=LWB4[1], dst=AFTR, nh=47, hlim=63) / Raw(AS_MADE)
    unsound = downstream(chksum=1) / UDP(sport=53, dport=1072)
    for wire, nic, kind, packet in (
        (rig.wire6, NIC6, 0x86DD, as_made), (rig.wire4, NIC4, 0x0800, unsound),
    ):  # fmt: skip
        before, shim_before = rig.all_counters()
        snap = LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(code=kind)
        wire.send(bytes(Dot3(dst=nic) / snap / packet))
        assert frames(rig.wire6, 1, 0.2) == frames(rig.wire4, 1, 0.2) == []
        after, shim_after = rig.all_counters()
        assert after == before
        assert shim_after - shim_before == {"refused_gre_from_wire": 1}


def test_the_owner_is_not_hurt_by_forgeries(rig: Rig) -> None:
    for packet in (softwire(RIGHT, "2001:db8:bad::1"), softwire(RIGHT, "2001:db8:bad::2")):
        run(rig, is_refused("forged", packet))
        run(rig, goes_up("owner", RIGHT))
