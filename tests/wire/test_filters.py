"""Filter rules on the wire: the first that matches decides, and each has a counter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.packet import Packet

from tests.support.rig import CONFIG, Rig
from tests.wire.scenario import (
    HAIRPINNED,
    LWB4,
    Scenario,
    downstream,
    goes_down,
    goes_up,
    run,
    softwire,
    tunnelled,
    upstream,
)

IPV6 = """filters: [
      {{direction: in, action: allow, lwb4: "2001:db8:b4::1/128", protocol: udp,
        destination_port: 123}},
      {{direction: in, action: deny, protocol: udp, destination_port: 120-130}},
      {{direction: out, action: deny, lwb4: "2001:db8:b4::2/128", protocol: icmp}}], """
IPV4 = """filters: [
      {{direction: in, action: allow, source: 198.51.100.200/32, protocol: tcp, source_port: 80}},
      {{direction: in, action: deny, protocol: tcp}},
      {{direction: out, action: deny, destination: 198.51.100.128/25, protocol: tcp,
        destination_port: 25}}], """  # fmt: skip


@pytest.fixture(scope="module")
def filtering() -> Iterator[Rig]:
    config = CONFIG.replace("ipv6: {{", "ipv6: {{" + IPV6)
    config = config.replace("ipv4: {{p", "ipv4: {{" + IPV4 + "p")
    rig = Rig(config)
    yield rig
    rig.stop()


def counted(scenario: Scenario, **rules: int) -> Scenario:
    return Scenario(scenario.name, scenario.send6, scenario.send4, scenario.out6, scenario.out4,
                    {**scenario.counters, **rules}, scenario.shim)  # fmt: skip


def denied_up(name: str, packet: Packet, rule: str, lwb4: int = 1) -> Scenario:
    return Scenario(name, send6=[softwire(packet, LWB4[lwb4])],
                    counters={"from_softwire": 1, rule: 1})  # fmt: skip


def denied_down(name: str, packet: Packet, rule: str) -> Scenario:
    return Scenario(name, send4=[packet], counters={"from_internet": 1, rule: 1})


SCENARIOS = [
    counted(goes_up("allowed before it is denied", upstream() / UDP(sport=1072, dport=123)),
            filter_ipv6_in_1=1),
    denied_up("another lwB4", upstream() / UDP(sport=1088, dport=123), "filter_ipv6_in_2", 2),
    denied_up("the last port", upstream() / UDP(sport=1072, dport=130), "filter_ipv6_in_2"),
    goes_up("a port behind the last", upstream() / UDP(sport=1072, dport=131)),
    goes_up("another protocol", upstream() / TCP(sport=1072, dport=125)),
    denied_up("mail", upstream() / TCP(sport=1072, dport=25), "filter_ipv4_out_1"),
    goes_up("mail elsewhere", upstream(dst="198.51.100.5") / TCP(sport=1072, dport=25)),
    counted(goes_down("the web's answer", downstream() / TCP(sport=80, dport=1072)),
            filter_ipv4_in_1=1),
    denied_down("no other TCP", downstream() / TCP(sport=81, dport=1072), "filter_ipv4_in_2"),
    denied_down("nor from others", downstream(src="198.51.100.201") / TCP(sport=80, dport=1072),
                "filter_ipv4_in_2"),
    goes_down("echo to one", downstream() / ICMP(type=8, id=1075)),
    denied_down("but not to the other", downstream() / ICMP(type=8, id=1088), "filter_ipv6_out_1"),
    Scenario("rules of the IPv4 side are not for hairpins",
             send6=[softwire(upstream(dst="203.0.113.1") / TCP(sport=1072, dport=25))],
             out6=[tunnelled(upstream(dst="203.0.113.1", ttl=63) / TCP(sport=1072, dport=25),
                             LWB4[3])], counters=HAIRPINNED),
]  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_filters(filtering: Rig, scenario: Scenario) -> None:
    run(filtering, scenario)
