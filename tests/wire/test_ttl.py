"""TTLs that run out are answered to the source, through a softwire if it is behind an lwB4."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.packet import Packet, Raw

from tests.support.rig import CONFIG, Rig
from tests.wire.scenario import (
    AFTR,
    LWB4,
    SECOND_AFTR,
    Scenario,
    downstream,
    run,
    softwire,
    tunnelled,
    upstream,
)
from tests.wire.test_icmp_errors import quoted_by

UP = {"from_softwire": 1, "drop_upstream_ttl_expired": 1, "from_lwaftr": 1, "to_softwire": 1}
DOWN = {"from_internet": 1, "drop_downstream_ttl_expired": 1}
HAIRPIN = {"from_softwire": 1, "hairpinned": 1, "from_lwaftr": 1, "to_softwire": 1}


def to_lwb4(kind: int, code: int, packet: Packet, mtu: int = 0, lwb4: int = 1,
            aftr: str = AFTR) -> Packet:  # fmt: skip
    """An ICMPv4 error that leaves in a softwire: traffic class as precedence (RFC 2983)."""
    return tunnelled(quoted_by(kind, code, packet, mtu), LWB4[lwb4], aftr, tc=0xC0)


def up(name: str, packet: Packet, lwb4: int = 1, aftr: str = AFTR) -> Scenario:
    return Scenario(
        f"up: {name}", send6=[softwire(packet, LWB4[lwb4], aftr)],
        out6=[to_lwb4(11, 0, packet, 0, lwb4, aftr)], counters=UP,
    )  # fmt: skip


def down(name: str, packet: Packet) -> Scenario:
    return Scenario(f"down: {name}", send4=[packet], out4=[quoted_by(11, 0, packet)], counters=DOWN)


def hairpin(name: str, packet: Packet, answer: Packet, drop: str) -> Scenario:
    return Scenario(f"hairpin: {name}", send6=[softwire(packet)], out6=[answer],
                    counters={**HAIRPIN, drop: 1})  # fmt: skip


OTHER = {"dst": "203.0.113.1"}
EXPIRED = upstream(ttl=1, **OTHER) / UDP(sport=1072, dport=9)
TOO_BIG = upstream(flags="DF", **OTHER) / UDP(sport=1072, dport=9) / bytes(1433)
ERROR = ICMP(type=3, code=3) / (downstream() / UDP(sport=53, dport=1072))

ANSWERED = [
    up("UDP", upstream(ttl=1) / UDP(sport=1072, dport=33434) / b"traceroute"),
    up("TCP", upstream(ttl=1) / TCP(sport=1087, dport=80, flags="S")),
    up("an echo, by its identifier", upstream(ttl=1) / ICMP(type=8, id=1075) / b"data"),
    up("TTL 0", upstream(ttl=0) / UDP(sport=1072, dport=53)),
    up("548 bytes are quoted", upstream(ttl=1) / UDP(sport=1072, dport=53) / bytes(1000)),
    up("a full address", upstream(src="203.0.113.1", ttl=1) / UDP(sport=1, dport=2), 3),
    up("a full address: a protocol without ports",
       upstream(src="203.0.113.1", ttl=1, proto=47) / Raw(bytes(12)), 3),
    up("the other br-address",
       upstream(src="198.18.0.1", ttl=1) / UDP(sport=61440, dport=53), 4, SECOND_AFTR),
    up("DSCP is quoted, not answered", upstream(ttl=1, tos=0x28) / UDP(sport=1072, dport=53)),
    down("UDP", downstream(ttl=1) / UDP(sport=53, dport=1072) / b"x"),
    down("TCP", downstream(ttl=1) / TCP(sport=80, dport=1087, flags="A")),
    down("an echo", downstream(ttl=1) / ICMP(type=8, id=1075)),
    down("a first fragment", downstream(ttl=1, flags="MF") / UDP(sport=53, dport=1072, len=99)),
    hairpin("TTL 1", EXPIRED, to_lwb4(11, 0, EXPIRED), "drop_downstream_ttl_expired"),
    hairpin("too big", TOO_BIG, to_lwb4(3, 4, TOO_BIG, 1460), "drop_downstream_too_big"),
]  # fmt: skip

SILENT = [
    Scenario("an ICMP error (RFC 1122 section 3.2.2)", send6=[softwire(upstream(ttl=1) / ERROR)],
             counters={"from_softwire": 1, "drop_upstream_ttl_expired": 1}),
    *(Scenario(f"a source that is no single host: {source}",
               send4=[downstream(src=source, ttl=1) / UDP(sport=53, dport=1072)], counters=DOWN)
      for source in ("240.0.0.1", "198.51.100.255")),
    Scenario("a packet from the lwAFTR's own address",
             send4=[downstream(src="198.51.100.1", ttl=1) / UDP(sport=53, dport=1072)],
             counters=DOWN),
    Scenario("a fragment that is not the first",
             send4=[downstream(ttl=1, dst="203.0.113.1", proto=17, frag=5) / Raw(bytes(8))],
             counters=DOWN),
    Scenario("the last hop: TTL 1 arrives at the lwAFTR's own address",
             send4=[downstream(dst="198.51.100.1", ttl=1) / ICMP(type=0)],
             counters={"from_internet": 1, "drop_to_lwaftr": 1}),
]  # fmt: skip


@pytest.mark.parametrize("scenario", ANSWERED, ids=str)
def test_expired_and_answered(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


@pytest.mark.parametrize("scenario", SILENT, ids=str)
def test_not_answered(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


# --- ICMP from the Internet is not let in: that concerns neither lwB4s nor the lwAFTR itself ---


@pytest.fixture(scope="module")
def closed_rig() -> Iterator[Rig]:
    rig = Rig(CONFIG + "    icmp: {{unknown_ipv4: true, inbound: false}}\n")
    yield rig
    rig.stop()


NOBODY = upstream(dst="192.0.2.77") / UDP(sport=1072, dport=1072)
PING = upstream(**OTHER) / ICMP(type=8, id=1075)
CLOSED = [
    hairpin("no binding at the other end", NOBODY, to_lwb4(3, 1, NOBODY),
            "drop_downstream_no_binding"),
    up("UDP", upstream(ttl=1) / UDP(sport=1072, dport=53)),
    Scenario("hairpin: an echo", send6=[softwire(PING)],
             out6=[tunnelled(upstream(ttl=63, **OTHER) / ICMP(type=8, id=1075), LWB4[3])],
             counters={"from_softwire": 1, "hairpinned": 1, "to_softwire": 1}),
]  # fmt: skip


@pytest.mark.parametrize("scenario", CLOSED, ids=str)
def test_errors_while_icmp_is_not_let_in(closed_rig: Rig, scenario: Scenario) -> None:
    run(closed_rig, scenario)
