"""Echo requests to the lwAFTR's own IPv4 address; neighbours' tests have those to its IPv6 ones."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.packet import Packet

from tests.support.rig import IPV4, Rig
from tests.wire.scenario import (
    Scenario,
    downstream,
    run,
    softwire,
    tunnelled,
    upstream,
)


def asked(**fields: object) -> Packet:
    return downstream(dst=IPV4, **fields)


def answer(dst: str, **fields: object) -> Packet:
    return IP(**{"src": IPV4, "dst": dst, "ttl": 64} | fields)


FROM_LWB4 = {"from_softwire": 1, "echo_answered": 1, "from_lwaftr": 1, "to_softwire": 1}
PING, PONG = ICMP(type=8, id=9, seq=3) / b"are you there?", ICMP(type=0, id=9, seq=3)
ECHOES = [
    Scenario("from the Internet", send4=[asked() / PING],
             out4=[answer("198.51.100.200", id=9) / PONG / b"are you there?"],
             counters={"from_internet": 1, "echo_answered": 1, "to_internet": 1}),
    Scenario("with TTL 1: it is the last hop", send4=[asked(ttl=1) / PING],
             out4=[answer("198.51.100.200", id=9) / PONG / b"are you there?"],
             counters={"from_internet": 1, "echo_answered": 1, "to_internet": 1}),
    Scenario("as many bytes as the wire takes", send4=[asked() / ICMP(type=8, id=1) / bytes(1472)],
             out4=[answer("198.51.100.200", id=9) / ICMP(type=0, id=1) / bytes(1472)],
             counters={"from_internet": 1, "echo_answered": 1, "to_internet": 1}),
    Scenario("from an lwB4, through its softwire",
             send6=[softwire(upstream(dst=IPV4) / ICMP(type=8, id=1075, seq=1) / b"ping")],
             out6=[tunnelled(answer("192.0.2.1", id=7) / ICMP(type=0, id=1075, seq=1) / b"ping")],
             counters=FROM_LWB4),
    Scenario("an echo reply is not answered", send4=[asked() / ICMP(type=0, id=9)],
             counters={"from_internet": 1, "drop_to_lwaftr": 1}),
    Scenario("nor a timestamp request", send4=[asked() / ICMP(type=13, id=9)],
             counters={"from_internet": 1, "drop_to_lwaftr": 1}),
]  # fmt: skip


@pytest.mark.parametrize("scenario", ECHOES, ids=str)
def test_echo(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


def test_an_lwb4_is_answered_whatever_the_policy_on_hairpinning(silent: Rig) -> None:
    """Its echo is for the lwAFTR, not for another lwB4."""
    ping, pong = (ICMP(type=kind, id=1075, seq=1) / b"ping" for kind in (8, 0))
    run(silent, Scenario("", send6=[softwire(upstream(dst=IPV4) / ping)],
                         out6=[tunnelled(answer("192.0.2.1", id=7) / pong)],
                         counters=FROM_LWB4))  # fmt: skip
