"""From one lwB4 to another through the lwAFTR (RFC 7596 section 6.2), checked at both ends."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.packet import Packet, Raw

from tests.support.rig import Rig
from tests.wire.scenario import (
    AFTR,
    HAIRPINNED,
    LWB4,
    SECOND_AFTR,
    Scenario,
    forwarded,
    run,
    softwire,
    tunnelled,
    upstream,
)
from tests.wire.test_icmp_errors import is_refused

# 1: 192.0.2.1 PSID 3 (1072 ...). 2: 192.0.2.1 PSID 4 (1088 ...). 3: 203.0.113.1.
# 4: 198.18.0.1 PSID 15 (61440 ...), by the second br-address.
FULL, FOURTH = "203.0.113.1", "198.18.0.1"


def hairpin(
    name: str, packet: Packet, sender: int, receiver: int, tc: int = 0, aftr: str = AFTR
) -> Scenario:
    to = SECOND_AFTR if receiver == 4 else AFTR
    return Scenario(
        name,
        send6=[softwire(packet, LWB4[sender], aftr, tc=tc)],
        out6=[tunnelled(forwarded(packet), LWB4[receiver], to, tc)],
        counters=HAIRPINNED,
    )


def to(destination: str, **fields: object) -> Packet:
    return upstream(dst=destination, **fields)


QUOTED_1 = to(FULL, ttl=63) / UDP(sport=1072, dport=9)  # as it arrived at subscriber 3
QUOTED_2 = to("192.0.2.1", ttl=63) / UDP(sport=1072, dport=1088)  # at subscriber 2

FORWARDED = [
    hairpin("UDP", to(FULL) / UDP(sport=1072, dport=9), 1, 3),
    hairpin("TCP", to(FULL) / TCP(sport=1072, dport=22, flags="S"), 1, 3),
    hairpin("between two lwB4s of one address",
            to("192.0.2.1") / UDP(sport=1072, dport=1088), 1, 2),
    hairpin("and back", to("192.0.2.1") / UDP(sport=1088, dport=1072), 2, 1),
    hairpin("to oneself", to("192.0.2.1") / UDP(sport=1072, dport=1087), 1, 1),
    hairpin("echo request", to(FULL) / ICMP(type=8, id=1075), 1, 3),
    hairpin("echo reply: by one identifier at both ends",
            upstream(src=FULL, dst="192.0.2.1") / ICMP(type=0, id=1075), 3, 1),
    hairpin("a protocol without ports between full addresses",
            upstream(src=FULL, dst=FULL, proto=47) / Raw(bytes(8)), 3, 3),
    hairpin("from one br-address to another", to(FOURTH) / UDP(sport=1072, dport=65535), 1, 4),
    hairpin("and back", upstream(src=FOURTH, dst="192.0.2.1") / UDP(sport=65535, dport=1072),
            4, 1, aftr=SECOND_AFTR),
    hairpin("traffic class", to(FULL, tos=0xBA) / UDP(sport=1072, dport=9), 1, 3, tc=0xBA),
    hairpin("TTL 2", to(FULL, ttl=2) / UDP(sport=1072, dport=9), 1, 3),
    hairpin("1460 bytes", to(FULL, flags="DF") / UDP(sport=1072, dport=9) / bytes(1432), 1, 3),
    hairpin("a port unreachable: the sender by its own port, the receiver by the other",
            upstream(src=FULL, dst="192.0.2.1") / ICMP(type=3, code=3) / QUOTED_1, 3, 1),
    hairpin("the same between two lwB4s of one address",
            to("192.0.2.1") / ICMP(type=3, code=3) / QUOTED_2, 2, 1),
    hairpin("an error about an echo request",
            upstream(src=FULL, dst="192.0.2.1") / ICMP(type=11)
            / (to(FULL, ttl=63) / ICMP(type=8, id=1075)), 3, 1),
    hairpin("a later fragment between full addresses",
            upstream(src=FULL, dst=FULL, proto=17, frag=64) / Raw(bytes(40)), 3, 3),
]  # fmt: skip


def is_dropped(name: str, packet: Packet, counter: str, lwb4: int = 1) -> Scenario:
    return Scenario(
        name,
        send6=[softwire(packet, LWB4[lwb4])],
        counters={"from_softwire": 1, "hairpinned": 1, counter: 1},
    )


DROPPED = [
    is_dropped("to a port of nobody", to("192.0.2.1") / UDP(sport=1072, dport=1104),
               "drop_downstream_no_binding"),
    is_dropped("to an address of nobody", to("192.0.2.200") / UDP(sport=1072, dport=1072),
               "drop_downstream_no_binding"),
    is_dropped("to a system port", to("192.0.2.1") / UDP(sport=1072, dport=53),
               "drop_downstream_excluded_port"),
    is_dropped("echo to a shared address, identifier of nobody there",
               to(FOURTH) / ICMP(type=8, id=1075), "drop_downstream_no_binding"),
    is_dropped("a protocol without ports to a shared address",
               upstream(src=FULL, dst="192.0.2.1", proto=47) / Raw(bytes(8)),
               "drop_downstream_protocol", lwb4=3),
]  # fmt: skip


@pytest.mark.parametrize("scenario", FORWARDED, ids=str)
def test_hairpin(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


@pytest.mark.parametrize("scenario", DROPPED, ids=str)
def test_hairpin_to_nobody(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


def test_hairpin_is_checked_at_the_senders_end(rig: Rig) -> None:
    forged = softwire(to(FULL) / UDP(sport=1088, dport=9), LWB4[1])
    run(rig, is_refused("forged", forged))


OFF = [
    ("UDP", to(FULL) / UDP(sport=1072, dport=9), 1),
    ("echo", to(FULL) / ICMP(type=8, id=1075), 1),
    ("between lwB4s of one address", to("192.0.2.1") / UDP(sport=1072, dport=1088), 1),
    ("an error", upstream(src=FULL, dst="192.0.2.1") / ICMP(type=3, code=3) / QUOTED_1, 3),
    ("to nobody", to("192.0.2.200") / UDP(sport=1072, dport=1072), 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "packet", "lwb4"), OFF, ids=[name for name, _, _ in OFF])
def test_hairpinning_is_off(silent: Rig, name: str, packet: Packet, lwb4: int) -> None:
    run(silent, Scenario(name, send6=[softwire(packet, LWB4[lwb4])],
                         counters={"from_softwire": 1, "drop_hairpin_disabled": 1}))  # fmt: skip
