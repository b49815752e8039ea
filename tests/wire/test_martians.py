"""Addresses that no packet may have (RFC 1812 sections 5.3.5 and 5.3.7): from the Internet as a
source, from an lwB4 as a destination."""

from __future__ import annotations

import pytest
from scapy.layers.inet import UDP

from tests.support.rig import Rig
from tests.wire.scenario import Scenario, downstream, goes_down, goes_up, run, softwire, upstream
from tests.wire.test_fragments import cut6

MARTIANS = ["0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.255", "224.0.0.1", "239.255.255.255",
            "255.255.255.255"]  # fmt: skip
NEIGHBOURS = ["1.0.0.0", "126.255.255.255", "128.0.0.0", "223.255.255.255", "240.0.0.1", "10.0.0.1",
              "100.64.0.1", "192.168.0.1"]  # fmt: skip
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
