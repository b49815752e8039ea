"""Protocols other than TCP, UDP and ICMP: to and from full addresses as they are, shared addresses
have no port set for them."""

from __future__ import annotations

import pytest
from scapy.packet import Packet, Raw

from tests.support.rig import Rig
from tests.wire.scenario import (
    Scenario,
    downstream,
    goes_down,
    goes_up,
    is_dropped_down,
    is_dropped_up,
    run,
    upstream,
)

PORTS = bytes.fromhex("0430 0050 0008 0000")
"""What would be ports 1072 and 80, both of subscriber 1's port set or nobody's."""

PROTOCOLS = {
    "IGMP": 2,
    "IPv4 in IPv4": 4,
    "IPv6 in IPv4": 41,
    "DCCP": 33,
    "GRE": 47,
    "ESP": 50,
    "AH": 51,
    "OSPF": 89,
    "SCTP": 132,
    "UDP-Lite": 136,
    "none known": 253,
    "the last": 255,
}


def full(ipv4: Packet, number: int, ours: str) -> Packet:
    ipv4 = ipv4.copy()
    setattr(ipv4, ours, "203.0.113.1")
    ipv4.proto = number
    return ipv4 / Raw(PORTS + bytes(12))


BY_NAME = [
    scenario
    for name, number in PROTOCOLS.items()
    for scenario in (
        goes_up(f"{name}: full address", full(upstream(), number, "src"), lwb4=3),
        goes_down(f"{name}: full address", full(downstream(), number, "dst"), lwb4=3),
        is_dropped_up(f"{name}: shared address", upstream(proto=number) / Raw(PORTS),
                      "drop_upstream_protocol"),
        is_dropped_down(f"{name}: shared address", downstream(proto=number) / Raw(PORTS[::-1]),
                        "drop_downstream_protocol"),
    )
]  # fmt: skip


@pytest.mark.parametrize("scenario", BY_NAME, ids=str)
def test_protocols(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


@pytest.mark.parametrize("number", range(34, 256, 17))
def test_any_number(rig: Rig, number: int) -> None:
    run(rig, goes_up("full", full(upstream(), number, "src"), lwb4=3))
    run(rig, is_dropped_down("shared", downstream(proto=number) / Raw(bytes(20)),
                             "drop_downstream_protocol"))  # fmt: skip


def test_protocol_0_does_not_travel_for_ever(rig: Rig) -> None:
    """Open vSwitch would not take a hop off its TTL; IPv4 has no such protocol (RFC 8200 has)."""
    run(rig, is_dropped_up("full", full(upstream(), 0, "src"), "drop_upstream_protocol", lwb4=3))
    run(rig, is_dropped_down("full", full(downstream(), 0, "dst"), "drop_downstream_protocol"))
