"""Counters: they add up whatever comes, by instance and by binding, and outlive a change."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from ryu_lw4o6.counters import FROM_LWB4, TO_LWB4
from tests.support import evidence
from tests.support.ovs import wait_for
from tests.support.rig import CONFIG, IPV4, NEXT_HOP4, NIC4, ROUTER4, Rig, frames
from tests.wire.scenario import (
    AFTR,
    LWB4,
    Scenario,
    downstream,
    forwarded,
    frame_of,
    goes_down,
    goes_up,
    run,
    softwire,
    upstream,
)
from tests.wire.test_fragments import cut6

TO_53 = UDP(sport=1072, dport=53)


@pytest.fixture(scope="module")
def quiet() -> Iterator[Rig]:
    """Where no answer of the controller comes later than the packets it is about."""
    policy = "icmp: {{too_big: false, ttl_expired: false, to_lwaftr: false}}"
    rig = Rig(CONFIG + f"    failover: none\n    {policy}\n")
    yield rig
    rig.stop()


def counters(rig: Rig) -> dict[str, Any]:
    rig.counters()  # brought up to date
    status, body = rig.controller.rest("GET", "/v1/counters/lwaftr1")
    assert status == 200
    return dict(body)


# --- reasons that belong to no family of scenarios ------------------------------------------------

STRAYS = [
    Scenario("IPv6 on the IPv4 side", counters={"drop_unclassified": 1},
             send4=[IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=1, dport=2)]),
    Scenario("IPv4 without a softwire on the IPv6 side", send6=[upstream() / TO_53],
             counters={"drop_unclassified": 1}),
    Scenario("IPv6 to somebody else", counters={"drop_not_for_us": 1},
             send6=[IPv6(src=LWB4[1], dst="2001:db8:ffff::77") / ICMPv6EchoRequest()]),
    Scenario("a softwire to somebody else", counters={"drop_not_for_us": 1},
             send6=[softwire(upstream() / TO_53, aftr="2001:db8:ffff::77")]),
    Scenario("a softwire that holds no IPv4", shim={"refused_not_ipv4": 1},
             send6=[IPv6(src=LWB4[1], dst=AFTR, nh=4) / Raw(b"\x65" + bytes(27))]),
    Scenario("a softwire that is cut off", shim={"refused_truncated": 1},
             send6=[softwire(upstream(len=100) / TO_53)]),
]  # fmt: skip


@pytest.mark.parametrize("scenario", STRAYS, ids=str)
def test_strays(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


def test_a_next_hop_that_nobody_has() -> None:
    config = CONFIG.replace("next_hop: 198.51.100.254", "next_hop: 198.51.100.99")
    rig = Rig(config, resolved=False)
    try:
        rig.wire6.send(frame_of(softwire(upstream() / TO_53), 6))
        name = "drop_next_hop_unresolved"
        wait_for("it is counted", lambda: rig.counters()[name] == 1)
        evidence.moved([name])
    finally:
        rig.stop()


# --- they add up ----------------------------------------------------------------------------------

UP = [
    upstream() / TO_53, upstream() / TCP(sport=1087, dport=80), upstream() / ICMP(type=8, id=1075),
    upstream() / UDP(sport=1088, dport=53), upstream() / UDP(sport=5, dport=53),
    upstream(src="10.0.0.1") / TO_53, upstream(ttl=1) / TO_53, upstream(proto=47) / Raw(bytes(9)),
    upstream() / ICMP(type=13), upstream(dst="203.0.113.1") / TO_53,
    upstream(dst="192.0.2.1") / UDP(sport=1072, dport=1088),
    upstream(dst="192.0.2.1") / UDP(sport=1072, dport=9999), upstream(tos=3) / TO_53 / bytes(900),
    upstream(dst=IPV4) / ICMP(type=8, id=1075), upstream(dst=IPV4) / UDP(sport=1072, dport=5),
]  # fmt: skip
DOWN = [
    downstream() / UDP(sport=53, dport=1072), downstream() / TCP(sport=80, dport=1088),
    downstream() / ICMP(type=8, id=1075), downstream() / UDP(sport=53, dport=9),
    downstream() / UDP(sport=53, dport=1104), downstream(dst="10.0.0.1") / TO_53,
    downstream(ttl=1) / UDP(sport=53, dport=1072), downstream(proto=47) / Raw(bytes(9)),
    downstream() / ICMP(type=11) / (upstream() / TO_53), downstream() / ICMP(type=13),
    downstream(dst="203.0.113.1") / UDP(sport=1, dport=2) / bytes(1400),
    downstream(flags="DF") / UDP(sport=53, dport=1072) / bytes(1440),
    downstream(dst=IPV4) / UDP(sport=5, dport=5), downstream(dst=IPV4) / ICMP(type=8, id=5),
    downstream(dst="203.0.113.1", proto=17, frag=9) / Raw(bytes(64)),
]  # fmt: skip
MIX = st.lists(
    st.tuples(st.just(6), st.sampled_from(UP)) | st.tuples(st.just(4), st.sampled_from(DOWN)),
    min_size=20, max_size=60,
)  # fmt: skip


@settings(max_examples=8, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(mix=MIX)
def test_received_is_forwarded_and_dropped(quiet: Rig, mix: list[tuple[int, Packet]]) -> None:
    before, leaves = quiet.counters(), counters(quiet)["traffic-stat"]
    for side, packet in mix:
        wire = quiet.wire6 if side == 6 else quiet.wire4
        wire.send(frame_of(softwire(packet) if side == 6 else packet, side))
    up = [packet for side, packet in mix if side == 6]
    down = [packet for side, packet in mix if side == 4]
    wait_for("all have come in", lambda: received(quiet, before) == (len(up), len(down)))
    changes = quiet.counters() - before
    names = {drop: f"drop_{drop.name.lower()}" for drop in FROM_LWB4 | TO_LWB4}
    dropped = sum(changes[name] for name in names.values())
    forwarded = changes["to_internet"] + changes["to_softwire"]
    assert len(up) + len(down) == forwarded + dropped
    # What was counted as forwarded has come out.
    assert len(frames(quiet.wire4, changes["to_internet"])) == changes["to_internet"]
    assert len(frames(quiet.wire6, changes["to_softwire"])) == changes["to_softwire"]
    # The same by family, in packets and in bytes.
    after = counters(quiet)["traffic-stat"]
    grown = {leaf: after[leaf] - leaves[leaf] for leaf in after if leaf != "discontinuity-time"}
    for unit in ("packets", "bytes"):
        tunnel = {"packets": 0, "bytes": 40}[unit]
        came = grown[f"rcvd-ipv4-{unit}"] + grown[f"rcvd-ipv6-{unit}"] - tunnel * len(up)
        went = grown[f"sent-ipv4-{unit}"] + grown[f"sent-ipv6-{unit}"]
        went -= tunnel * changes["to_softwire"]
        lost = grown[f"dropped-ipv4-{unit}"] + grown[f"dropped-ipv6-{unit}"]
        lost -= tunnel * sum(changes[names[drop]] for drop in FROM_LWB4)
        assert came == went + lost, unit
    assert grown["rcvd-ipv4-bytes"] == sum(map(len, map(bytes, down)))
    assert grown["rcvd-ipv6-bytes"] == sum(40 + len(bytes(packet)) for packet in up)


def received(rig: Rig, before: Counter[str]) -> tuple[int, int]:
    changes = rig.counters() - before
    return changes["from_softwire"], changes["from_internet"]


# --- by binding, of the shim, of the controller ---------------------------------------------------


def test_by_binding(rig: Rig) -> None:
    def of(key: str) -> dict[str, Any]:
        rig.counters()
        status, body = rig.controller.rest("GET", f"/v1/bindings/{key}/counters")
        assert status == 200
        return dict(body["counters"]["lwaftr1"])

    before, other = of("192.0.2.1/3"), of("192.0.2.1/4")
    up, down = upstream() / TO_53 / bytes(72), downstream() / UDP(sport=53, dport=1072)
    for _ in range(2):
        run(rig, goes_up("", up))
    run(rig, goes_down("", down))
    # Each scenario ends with one packet of 28 bytes each way.
    after = of("192.0.2.1/3")
    grown = {w: {u: after[w][u] - before[w][u] for u in after[w]} for w in after}
    assert grown == {
        "upstream": {"packets": 2 + 3, "bytes": 2 * 100 + 3 * 28},
        "downstream": {"packets": 1 + 3, "bytes": 28 + 3 * 28},
    }
    assert of("192.0.2.1/4") == other


def test_those_of_the_shim(rig: Rig) -> None:
    before = counters(rig)["shim"]
    packet = IPv6(src=LWB4[1], dst=AFTR, nh=60) / Raw(bytes.fromhex("0400 4304 00000000"))
    run(rig, Scenario("refused", send6=[packet / (upstream() / TO_53)],
                      shim={"refused_options": 1}))  # fmt: skip
    after = counters(rig)["shim"]
    assert after["refused_options"] - before["refused_options"] == 1
    assert after["translated_in"] - before["translated_in"] == 1  # the one that ends a scenario
    evidence.moved(
        name for name in ("translated_in", "translated_out", "passed_in", "marked_in",
                          "source_restored", "hidden_from_kernel") if after[name]
    )  # fmt: skip


def test_fragments_that_became_packets(rig: Rig) -> None:
    packet = softwire(upstream() / TO_53 / bytes(100))
    before = counters(rig)["traffic-stat"]
    run(rig, Scenario(
        "reassembled", send6=cut6(packet, 64), out4=[forwarded(packet.payload)],
        counters={"slow_softwire": 2, "from_softwire": 1, "to_internet": 1},
    ))  # fmt: skip
    after = counters(rig)["traffic-stat"]
    for what, grown in (("", 2), ("-bytes", 128)):
        leaf = f"ipv6-fragments{what}-reassembled"
        assert after[leaf] - before[leaf] == grown, leaf


def test_icmp_errors_that_the_rate_limit_withholds() -> None:
    rig = Rig(CONFIG + "    unknown_rate: 5\n    icmp: {{rate: 5}}\n")
    try:
        started = time.monotonic()
        strangers = [softwire(upstream() / TO_53, f"2001:db8:bad::{n:x}") for n in range(1, 41)]
        for packet in strangers:
            rig.wire6.send(frame_of(packet, 6))
        wait_for("all have come in", lambda: rig.counters()["from_softwire"] == 40)
        answers: list[bytes] = []

        def all_here() -> bool:
            answers.extend(frames(rig.wire6, 40, 0.2))
            sent = int(counters(rig)["traffic-stat"]["out-icmpv6-error-packets"])
            return len(answers) == sent > 0

        wait_for("what was sent has come out", all_here)
        # 5 at once, and 5 a second
        assert 1 <= len(answers) <= 5 + 5 * (1 + time.monotonic() - started)
        expired = downstream(ttl=1) / UDP(sport=53, dport=1072)
        started = time.monotonic()
        for _ in range(40):
            rig.wire4.send(frame_of(expired, 4))
        told = frames(rig.wire4, 1, 10) + frames(rig.wire4, 40, 0.5)
        assert 1 <= len(told) <= 5 + 5 * (1 + time.monotonic() - started)
        body = counters(rig)
        assert body["traffic-stat"]["out-icmpv6-error-bytes"] == sum(len(a) - 14 for a in answers)
        assert body["icmp_errors_withheld"]["icmpv6"] == 40 - len(answers)
    finally:
        rig.stop()


def test_they_outlive_a_new_next_hop(rig: Rig) -> None:
    """The flow that has the next hop's MAC address is replaced, and goes on counting."""
    run(rig, goes_up("before", upstream() / TO_53))
    before = rig.counters()
    assert before["to_internet"]

    def says(mac: str) -> None:
        reply = ARP(op=2, hwsrc=mac, psrc=NEXT_HOP4, hwdst=NIC4, pdst="198.51.100.1")
        rig.wire4.send(bytes(Ether(src=mac, dst=NIC4) / reply))

    def goes_to(mac: str) -> bool:
        says(mac)
        rig.wire6.send(frame_of(softwire(upstream() / TO_53), 6))
        return any(
            f[:6].hex(":") == mac and f[14:] == bytes(forwarded(upstream() / TO_53))
            for f in frames(rig.wire4, 1, 0.2)
        )

    for mac in ("02:00:00:00:04:77", ROUTER4):
        wait_for(f"packets go to {mac}", functools.partial(goes_to, mac))
    assert rig.counters()["to_internet"] > before["to_internet"]
    assert (before - rig.counters()) == Counter()
    while frames(rig.wire4, 1, 0.2):
        pass
