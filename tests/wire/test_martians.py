"""Addresses that no packet may have (RFC 1812 sections 5.3.5 and 5.3.7, RFC 3927 section 7): from
the Internet as a source, from an lwB4 as a destination."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach
from scapy.layers.l2 import Ether

from tests.support.rig import IPV4, ROUTER4, ROUTER6, Rig, frames
from tests.wire.scenario import (
    Scenario,
    downstream,
    forwarded,
    goes_down,
    goes_up,
    run,
    softwire,
    tunnelled,
    upstream,
)
from tests.wire.test_fragments import cut6
from tests.wire.test_tunnel_icmp import error

MARTIANS = ["0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.255", "169.254.0.0", "169.254.255.255",
            "224.0.0.1", "239.255.255.255", "255.255.255.255"]  # fmt: skip
NEIGHBOURS = ["1.0.0.0", "126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0",
              "223.255.255.255", "240.0.0.1", "10.0.0.1", "100.64.0.1",
              "192.168.0.1"]  # fmt: skip
"""Just beside them, or for operators to filter (RFC 6598, RFC 1918)."""


@pytest.mark.parametrize("address", MARTIANS)
def test_martians_are_dropped(rig: Rig, address: str) -> None:
    up = softwire(upstream(dst=address) / UDP(sport=1072, dport=53))
    run(rig, Scenario("to", send6=[up], shim={"refused_martian": 1}))
    down = downstream(src=address) / UDP(sport=53, dport=1072)
    run(rig, Scenario("from", send4=[down], shim={"refused_martian": 1}))


def test_nor_in_ipv6_fragments(rig: Rig) -> None:
    """Where the controller takes the packet out of its softwire."""
    packet = upstream(dst="127.0.0.1") / UDP(sport=1072, dport=53) / bytes(100)
    before = rig.controller.switch()["slow_path"]["packets"].get("dropped_martian", 0)
    run(rig, Scenario("in fragments", send6=cut6(softwire(packet), 64),
                      counters={"slow_softwire": 2}))  # fmt: skip
    assert rig.controller.switch()["slow_path"]["packets"]["dropped_martian"] == before + 1


@pytest.mark.parametrize("address", NEIGHBOURS)
def test_others_are_forwarded(rig: Rig, address: str) -> None:
    run(rig, goes_up("to", upstream(dst=address) / UDP(sport=1072, dport=53)))
    run(rig, goes_down("from", downstream(src=address) / UDP(sport=53, dport=1072)))


OTHERS = ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "33:33:00:00:00:01", "02:00:00:00:04:99"]


@pytest.mark.parametrize("mac", OTHERS)
def test_frames_to_others_go_nowhere(rig: Rig, mac: str) -> None:
    """Neither forwarded nor answered (RFC 1812 sections 5.3.4 and 4.3.2.7): broadcast, multicasts,
    and what a switch on the link has flooded."""
    before = rig.counters()
    for packet in (
        downstream() / UDP(sport=53, dport=1072),
        downstream(ttl=1) / UDP(sport=53, dport=1072),
        downstream(flags="MF") / UDP(sport=53, dport=1072) / bytes(8),
        downstream(dst=IPV4) / ICMP(type=8, id=9),
    ):
        rig.wire4.send(bytes(Ether(src=ROUTER4, dst=mac) / packet))
    whole = upstream() / UDP(sport=1072, dport=53) / bytes(100)
    sent = tunnelled(forwarded(downstream() / UDP(sport=53, dport=1072)))
    for packet in (
        softwire(whole), *cut6(softwire(whole), 64), error(ICMPv6DestUnreach(code=3), sent),
    ):  # fmt: skip
        rig.wire6.send(bytes(Ether(src=ROUTER6, dst=mac) / packet))
    assert frames(rig.wire6, 1, 0.2) == frames(rig.wire4, 1, 0.2) == []
    assert rig.counters() - before == {"drop_not_for_us": 4 + 4}
