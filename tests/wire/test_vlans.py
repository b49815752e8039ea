"""Tags on either wire, and both sides on one: scenarios of every kind, as on untagged wires."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from tests.support.rig import CONFIG, NEXT_HOP4, NIC4, ROUTER4, Rig, frames, in_vlans
from tests.wire.scenario import (
    LWB4,
    SECOND_AFTR,
    Scenario,
    downstream,
    frame_of,
    goes_down,
    goes_up,
    is_dropped_down,
    run,
    softwire,
    tunnelled,
    upstream,
)
from tests.wire.test_icmp_errors import BIG, TOO_BIG, is_refused, quoted_by
from tests.wire.test_ttl import up as expires_upstream

STICK = CONFIG.replace("port: eth4", "port: eth6")


@pytest.fixture(
    scope="module",
    params=[(100, 0, False), (0, 200, False), (7, 7, False), (100, 200, False), (100, 200, True),
            (0, 200, True)],
    ids=["ipv6", "ipv4", "same", "different", "stick", "stick-half-tagged"],
)  # fmt: skip
def tagged_rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    vlan6, vlan4, stick = request.param
    config = in_vlans(STICK if stick else CONFIG, vlan6, vlan4)
    rig = Rig(config, vlans=(vlan6, vlan4), stick=stick)
    yield rig
    rig.stop()


STRANGER = softwire(upstream() / UDP(sport=1072, dport=53), "2001:db8:dead::1")
SCENARIOS = [
    goes_up("UDP", upstream() / UDP(sport=1072, dport=53) / b"question"),
    goes_up("TCP", upstream() / TCP(sport=1087, dport=80, flags="S")),
    goes_up("echo", upstream() / ICMP(type=8, id=1075) / b"data"),
    goes_up("1460 bytes", upstream() / UDP(sport=1072, dport=53) / bytes(1432)),
    goes_up("another br-address", upstream(src="198.18.0.1") / UDP(sport=61440), 4, SECOND_AFTR),
    goes_down("UDP", downstream() / UDP(sport=53, dport=1072) / b"answer"),
    goes_down("TCP", downstream() / TCP(sport=80, dport=1087, flags="SA")),
    goes_down("echo", downstream() / ICMP(type=0, id=1075) / b"data"),
    goes_down("1460 bytes", downstream(flags="DF") / UDP(sport=53, dport=1072) / bytes(1432)),
    goes_down("full address", downstream(dst="203.0.113.1", proto=47) / Raw(bytes(8)), 3),
    is_dropped_down("no binding", downstream() / UDP(sport=53, dport=1104),
                    "drop_downstream_no_binding"),
    Scenario("hairpin", send6=[softwire(upstream(dst="203.0.113.1") / UDP(sport=1072, dport=9))],
             out6=[tunnelled(upstream(dst="203.0.113.1", ttl=63) / UDP(sport=1072, dport=9),
                             LWB4[3])],
             counters={"from_softwire": 1, "hairpinned": 1, "to_softwire": 1}),
    expires_upstream("TTL 1", upstream(ttl=1) / UDP(sport=1072, dport=33434)),
    Scenario("too big", send4=[BIG], out4=[quoted_by(3, 4, BIG, 1460)], counters=TOO_BIG),
    is_refused("an unknown lwB4", STRANGER),
]  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_as_on_untagged_wires(tagged_rig: Rig, scenario: Scenario) -> None:
    run(tagged_rig, scenario)


def test_fragments_are_tagged_one_by_one(tagged_rig: Rig) -> None:
    packet = downstream() / UDP(sport=53, dport=1072) / bytes(1472)
    tagged_rig.wire4.send(frame_of(packet, 4))
    assert [len(frame) for frame in frames(tagged_rig.wire6, 2)] == [14 + 48 + 1448, 14 + 48 + 52]


def test_arp_is_answered_in_its_vlan(tagged_rig: Rig) -> None:
    request = ARP(op=1, hwsrc=ROUTER4, psrc=NEXT_HOP4, pdst="192.0.2.77")
    tagged_rig.wire4.send(bytes(Ether(src=ROUTER4, dst="ff:ff:ff:ff:ff:ff") / request))
    while (answer := tagged_rig.wire4.receive()) is not None:
        if answer[12:14] == b"\x08\x06" and answer[20:22] == b"\x00\x02":
            break
    assert answer is not None
    assert answer[:6] == Ether(dst=ROUTER4, src=NIC4).build()[:6]
    assert answer[28:32] == bytes([192, 0, 2, 77])


def test_frames_of_other_vlans_are_nobodys(tagged_rig: Rig) -> None:
    before, shim_before = tagged_rig.counters(), tagged_rig.shim_counters()
    for wire, frame in (
        (tagged_rig.wire6, frame_of(softwire(upstream() / UDP(sport=1072, dport=53)), 6)),
        (tagged_rig.wire4, frame_of(downstream() / UDP(sport=53, dport=1072), 4)),
    ):
        wire.send(frame[:12] + bytes.fromhex("81000fff") + frame[12:])
    assert frames(tagged_rig.wire6, 1, 0.2) == []
    assert frames(tagged_rig.wire4, 1, 0.2) == []
    assert tagged_rig.counters() - before == {}
    assert tagged_rig.shim_counters() - shim_before == {"refused_vlan": 2}
