"""What is forwarded, and what is dropped, on the wire."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from tests.support.rig import Rig
from tests.wire.scenario import (
    AFTR,
    LWB4,
    SECOND_AFTR,
    UP,
    Scenario,
    downstream,
    forwarded,
    goes_down,
    goes_up,
    is_dropped_down,
    is_dropped_up,
    run,
    softwire,
    upstream,
)

# 192.0.2.1: PSID offset 6, length 6. PSID 3 has ports 1024 n + 48 to 1024 n + 63 for n = 1 .. 63:
# 1072 to 1087, ..., 64560 to 64575. PSID 4 has the sixteen after those.
# 198.18.0.1: offset 0, length 4. PSID 15 has 61440 to 65535.
FORWARDED = [
    goes_up("UDP", upstream() / UDP(sport=1072, dport=53) / b"question"),
    goes_up("TCP", upstream() / TCP(sport=1087, dport=80, flags="S", seq=1)),
    goes_up("first port of the last range", upstream() / UDP(sport=64560, dport=53)),
    goes_up("last port of the last range", upstream() / UDP(sport=64575, dport=53)),
    goes_up("the other lwB4's ports", upstream() / UDP(sport=1088, dport=53), lwb4=2),
    goes_up("echo request by identifier", upstream() / ICMP(type=8, id=1075, seq=5) / b"data"),
    goes_up("echo reply by identifier", upstream() / ICMP(type=0, id=1075, seq=5) / b"data"),
    goes_up("full address: any port", upstream(src="203.0.113.1") / UDP(sport=1, dport=2), lwb4=3),
    goes_up("full address: any protocol",
            upstream(src="203.0.113.1", proto=47) / Raw(bytes(8)), lwb4=3),
    goes_up("full address: a fragment that is not the first",
            upstream(src="203.0.113.1", proto=17, frag=100) / Raw(bytes(8)), lwb4=3),
    goes_up("PSID offset 0", upstream(src="198.18.0.1") / UDP(sport=61440, dport=53), lwb4=4,
            aftr=SECOND_AFTR),
    goes_up("DSCP and ECN of the inner header are kept",
            upstream(tos=0xB9) / UDP(sport=1072, dport=53), tc=0xB9),
    goes_up("IPv4 options",
            upstream(options=b"\x01\x01\x01\x00") / UDP(sport=1072, dport=53)),
    goes_up("a flow label", upstream() / UDP(sport=1072, dport=53), fl=0xABCDE),
    goes_up("outer hop limit 1: the tunnel ends here",
            upstream() / UDP(sport=1072, dport=53), hlim=1),
    goes_up("inner TTL 2", upstream(ttl=2) / UDP(sport=1072, dport=53)),
    goes_up("UDP without a checksum", upstream() / UDP(sport=1072, dport=53, chksum=0) / b"x"),
    goes_up("1460 bytes", upstream() / UDP(sport=1072, dport=53) / bytes(1432)),
    Scenario(
        "up: encapsulation limit (RFC 2473 section 4.1.1)",
        send6=[IPv6(src=LWB4[1], dst=AFTR, nh=60, hlim=63)
               / Raw(bytes.fromhex("0400 040104 010100"))
               / upstream() / UDP(sport=1072, dport=53)],
        out4=[forwarded(upstream() / UDP(sport=1072, dport=53))], counters=UP,
        shim={"options_stripped": 1},
    ),
    goes_down("UDP", downstream() / UDP(sport=53, dport=1072) / b"answer"),
    goes_down("TCP", downstream() / TCP(sport=80, dport=1087, flags="SA", seq=1)),
    goes_down("a first fragment", downstream(flags="MF") / UDP(sport=53, dport=1072, len=99)),
    goes_up("a first fragment", upstream(flags="MF") / TCP(sport=1072, dport=80) / b"1234"),
    goes_down("the other lwB4's ports", downstream() / UDP(sport=53, dport=1088), lwb4=2),
    goes_down("echo request", downstream() / ICMP(type=8, id=1075, seq=5) / b"data"),
    goes_down("echo reply", downstream() / ICMP(type=0, id=1075, seq=5) / b"data"),
    goes_down("full address", downstream(dst="203.0.113.1") / UDP(sport=1, dport=2), lwb4=3),
    goes_down("full address: any protocol",
              downstream(dst="203.0.113.1", proto=50) / Raw(bytes(8)), lwb4=3),
    goes_down("from the binding's own br-address",
              downstream(dst="198.18.0.1") / UDP(sport=53, dport=65535), lwb4=4, aftr=SECOND_AFTR),
    goes_down("DSCP is copied to the outer header (RFC 2983 section 4)",
              downstream(tos=0xB8) / UDP(sport=53, dport=1072), tc=0xB8),
    goes_down("ECN is copied to the outer header (RFC 6040 section 4.1)",
              downstream(tos=0x02) / UDP(sport=53, dport=1072), tc=0x02),
    goes_down("the largest that fits: 1460 bytes",
              downstream(flags="DF") / UDP(sport=53, dport=1072) / bytes(1432)),
    goes_down("inner TTL 2", downstream(ttl=2) / UDP(sport=53, dport=1072)),
    goes_down("time exceeded, by the port of the quoted packet",
              downstream() / ICMP(type=11) / forwarded(upstream() / UDP(sport=1072, dport=53))),
    goes_down("port unreachable to the other lwB4",
              downstream() / ICMP(type=3, code=3) / (upstream() / UDP(sport=1088, dport=53)),
              lwb4=2),
    goes_down("an error about an echo request",
              downstream() / ICMP(type=3, code=1) / (upstream() / ICMP(type=8, id=1075))),
]  # fmt: skip

DROPPED = [
    is_dropped_up("PSID offset 6: a system port", upstream() / UDP(sport=48, dport=53),
                  "drop_upstream_excluded_port"),
    is_dropped_up("ICMP redirect", upstream() / ICMP(type=5, gw="192.0.2.9"), "drop_upstream_icmp"),
    is_dropped_up("a protocol without ports from a shared address",
                  upstream(proto=47) / Raw(bytes(8)), "drop_upstream_protocol"),
    is_dropped_down("a system port", downstream() / UDP(sport=53, dport=48),
                    "drop_downstream_excluded_port"),
    is_dropped_down("a port of no binding", downstream() / UDP(sport=53, dport=1104),
                    "drop_downstream_no_binding"),
    is_dropped_down("an address of no binding", downstream(dst="192.0.2.77") / UDP(dport=1072),
                    "drop_downstream_no_binding"),
    is_dropped_down("an address that is not served",
                    downstream(dst="10.0.0.1") / UDP(sport=53, dport=1072),
                    "drop_downstream_not_served"),
    is_dropped_down("ICMP that names no port (RFC 7596 section 8.1)",
                    downstream() / ICMP(type=13), "drop_downstream_icmp"),
    is_dropped_down("a protocol without ports to a shared address",
                    downstream(proto=47) / Raw(bytes(8)), "drop_downstream_protocol"),
]  # fmt: skip


@pytest.mark.parametrize("scenario", FORWARDED, ids=str)
def test_forwarded(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


@pytest.mark.parametrize("scenario", DROPPED, ids=str)
def test_dropped(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


def test_a_scenario_can_fail(rig: Rig) -> None:
    packet = upstream() / UDP(sport=1072, dport=53)
    for wrong in (
        Scenario("a frame too few", send6=[softwire(packet)], counters=UP),
        Scenario("a byte that differs", send6=[softwire(packet)], out4=[packet], counters=UP),
        Scenario("a counter", send6=[softwire(packet)], out4=[forwarded(packet)]),
        Scenario("a frame that never comes", out4=[packet]),
    ):
        with pytest.raises(AssertionError):
            run(rig, wrong)
