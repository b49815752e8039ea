"""ICMPv4 to and from lwB4s (RFC 7596 section 8.1, RFC 5508 REQ-3): echo by its identifier, errors
by the port in the packet they quote, everything else dropped, nothing ever answered."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Packet, Raw

from tests.support.rig import Rig
from tests.wire.scenario import (
    INTERNET,
    Scenario,
    downstream,
    forwarded,
    goes_down,
    goes_up,
    is_dropped_down,
    is_dropped_up,
    run,
    upstream,
)

SPEAKS = bytes.fromhex("0430 0050 0000 0001")
"""The first eight bytes of a transport header: ports 1072 and 80."""
ROUTER = "203.0.113.250"


def sent(**fields: object) -> Packet:
    """The header of a packet that lwB4 1 sent, as the Internet saw it."""
    return forwarded(upstream(**fields))


def error(quoted: Packet | bytes, kind: int = 3, code: int = 1, **fields: object) -> Packet:
    """An ICMPv4 error from a router in the Internet about a packet of 192.0.2.1."""
    return downstream(src=ROUTER, **fields) / ICMP(type=kind, code=code) / Raw(bytes(quoted))


def about_other(quoted: Packet | bytes, kind: int = 3, code: int = 3) -> Packet:
    """An ICMPv4 error from lwB4 1 about a packet that came from the Internet."""
    return upstream() / ICMP(type=kind, code=code) / Raw(bytes(quoted))


UDP_1072 = sent() / UDP(sport=1072, dport=53) / bytes(20)
CAME = downstream(ttl=59) / UDP(sport=53, dport=1072) / bytes(20)

DOWN = [
    *(goes_down(f"type {kind} code {code}", error(UDP_1072, kind, code))
      for kind, codes in ((3, (0, 1, 2, 3, 4, 13)), (11, (0, 1)), (12, (0,))) for code in codes),
    goes_down("about TCP", error(sent() / TCP(sport=1087, dport=80, seq=9))),
    goes_down("about TCP, of which eight bytes are quoted (RFC 792)",
              error(bytes(sent() / TCP(sport=1072, dport=80))[:28])),
    goes_down("about an echo request", error(sent() / ICMP(type=8, id=1075))),
    goes_down("about an echo reply", error(sent() / ICMP(type=0, id=1075))),
    *(goes_down(f"about {name}", error(sent(proto=number) / Raw(SPEAKS)))
      for name, number in (("DCCP", 33), ("SCTP", 132), ("UDP-Lite", 136))),
    goes_down("about a packet with IP options",
              error(sent(options=b"\x07\x07\x04\x00\x00\x00\x00\x00") / UDP(sport=1072, dport=53))),
    goes_down("with IP options of its own",
              error(UDP_1072, options=b"\x94\x04\x00\x00")),
    goes_down("with IP options inside and outside",
              error(sent(options=b"\x01" * 40) / UDP(sport=1072, dport=53), options=b"\x01" * 40)),
    goes_down("about a first fragment",
              error(sent(flags="MF") / UDP(sport=1072, dport=53, len=3000) / bytes(32))),
    goes_down("with an RFC 4884 extension",
              downstream(src=ROUTER)
              / ICMP(type=11, code=0, length=32)
              / Raw(bytes(UDP_1072).ljust(128, b"\0")
                    + bytes.fromhex("2000 0000 0008 0101 0001 0140"))),
    goes_down("to the other lwB4", error(sent() / UDP(sport=1088, dport=53)), lwb4=2),
    goes_down("to a full address, any port",
              error(sent(src="203.0.113.1") / UDP(sport=7, dport=9), dst="203.0.113.1"), lwb4=3),
    *(goes_down(f"to a full address, about protocol {number}, which has no ports",
                error(sent(src="203.0.113.1", proto=number) / Raw(SPEAKS), 3, 4, dst="203.0.113.1"),
                lwb4=3)
      for number in (41, 47, 50)),
    goes_down("an echo request with an empty body", downstream() / ICMP(type=8, id=1087)),
    goes_down("an echo request to the other lwB4",
              downstream() / ICMP(type=8, id=1088) / b"ping", lwb4=2),
    goes_down("an echo reply whose checksum is wrong: hosts check it",
              downstream() / ICMP(type=0, id=1075, chksum=0x1234)),
    goes_down("echo to a full address: any identifier",
              downstream(dst="203.0.113.1") / ICMP(type=8, id=0), lwb4=3),
]  # fmt: skip

DOWN_DROPPED = [
    *(is_dropped_down(f"ICMP type {kind}", downstream() / ICMP(type=kind),
                      "drop_downstream_icmp")
      for kind in (4, 5, 9, 10, 13, 14, 15, 16, 17, 18, 30, 42, 255)),
    is_dropped_down("a redirect, even about one's own port",
                    error(UDP_1072, 5, 1), "drop_downstream_icmp"),
    is_dropped_down("an error about a port of nobody",
                    error(sent() / UDP(sport=1104, dport=53)), "drop_downstream_no_binding"),
    is_dropped_down("an error about a system port",
                    error(sent() / UDP(sport=53, dport=53)), "drop_downstream_excluded_port"),
    is_dropped_down("echo with an identifier of nobody",
                    downstream() / ICMP(type=8, id=1104), "drop_downstream_no_binding"),
    is_dropped_down("echo with an identifier that is excluded",
                    downstream() / ICMP(type=8, id=1023), "drop_downstream_excluded_port"),
    is_dropped_down("echo to an address that is not served",
                    downstream(dst="10.0.0.1") / ICMP(type=8, id=1075),
                    "drop_downstream_not_served"),
    is_dropped_down("a quote that ends in the IP header",
                    error(bytes(UDP_1072)[:19]), "drop_downstream_icmp"),
    is_dropped_down("a quote of a header alone",
                    error(bytes(UDP_1072)[:20]), "drop_downstream_icmp"),
    is_dropped_down("a quote with seven bytes of transport header",
                    error(bytes(UDP_1072)[:27]), "drop_downstream_icmp"),
    is_dropped_down("a quote whose options are cut off",
                    error(bytes(sent(options=b"\x01" * 8) / UDP(sport=1072))[:24]),
                    "drop_downstream_icmp"),
    is_dropped_down("a quote of IPv6", error(b"\x60" + bytes(UDP_1072)[1:]),
                    "drop_downstream_icmp"),
    is_dropped_down("a quote with a header of 16 bytes", error(b"\x44" + bytes(UDP_1072)[1:]),
                    "drop_downstream_icmp"),
    is_dropped_down("a quote of a later fragment",
                    error(sent(frag=100, proto=17) / Raw(SPEAKS)), "drop_downstream_icmp"),
    is_dropped_down("a quote of a protocol without ports",
                    error(sent(proto=47) / Raw(SPEAKS)), "drop_downstream_icmp"),
    is_dropped_down("a quote of what another address has sent (RFC 5508 REQ-4)",
                    error(sent(src="203.0.113.1") / UDP(sport=1072, dport=53)),
                    "drop_downstream_icmp"),
    is_dropped_down("the same to a full address",
                    error(UDP_1072, dst="203.0.113.1"), "drop_downstream_icmp"),
    is_dropped_down("a quote of a protocol without ports in a first fragment",
                    error(sent(proto=47) / Raw(SPEAKS + bytes(4)), flags="MF"),
                    "drop_downstream_icmp"),
    is_dropped_down("a quote of an ICMP error",
                    error(sent() / ICMP(type=3, code=1) / CAME), "drop_downstream_icmp"),
    is_dropped_down("ICMP of seven bytes", downstream(proto=1) / Raw(bytes(7)),
                    "drop_downstream_icmp"),
]  # fmt: skip

UP = [
    *(goes_up(f"type {kind} code {code}", about_other(CAME, kind, code))
      for kind, code in ((3, 3), (3, 4), (11, 1), (12, 0))),
    goes_up("about TCP", about_other(downstream(ttl=59) / TCP(sport=80, dport=1087))),
    goes_up("about an echo request",
            about_other(downstream(ttl=59) / ICMP(type=8, id=1075))),
    goes_up("about a packet with IP options",
            about_other(downstream(options=b"\x01" * 4) / UDP(sport=53, dport=1072))),
    goes_up("from a full address",
            upstream(src="203.0.113.1") / ICMP(type=3, code=3)
            / (downstream(dst="203.0.113.1") / UDP(sport=53, dport=9)), lwb4=3),
    goes_up("from a full address about a protocol without ports",
            upstream(src="203.0.113.1") / ICMP(type=3, code=2)
            / (downstream(dst="203.0.113.1", proto=47) / Raw(SPEAKS)), lwb4=3),
]  # fmt: skip

UP_DROPPED = [
    *(is_dropped_up(f"ICMP type {kind}", upstream() / ICMP(type=kind), "drop_upstream_icmp")
      for kind in (4, 5, 9, 10, 13, 14, 15, 16, 17, 18)),
    is_dropped_up("an error about what went to another address (RFC 5508 REQ-5)",
                  about_other(downstream(dst="203.0.113.1") / UDP(sport=53, dport=1072)),
                  "drop_upstream_icmp"),
    is_dropped_up("an error to another than whose packet it quotes",
                  about_other(downstream(src="198.51.100.9") / UDP(sport=53, dport=1072)),
                  "drop_upstream_icmp"),
    is_dropped_up("an error about a protocol without ports from a shared address",
                  about_other(downstream(proto=47) / Raw(SPEAKS)), "drop_upstream_icmp"),
    is_dropped_up("an error that quotes too little",
                  about_other(bytes(CAME)[:27]), "drop_upstream_icmp"),
    is_dropped_up("an error about a system port",
                  about_other(downstream() / UDP(sport=53, dport=53)),
                  "drop_upstream_excluded_port"),
    is_dropped_up("echo with an identifier that is excluded",
                  upstream() / ICMP(type=8, id=48), "drop_upstream_excluded_port"),
    is_dropped_up("ICMP of seven bytes", upstream(proto=1) / Raw(bytes(7)), "drop_upstream_icmp"),
    is_dropped_up("ICMP without ports from a full address",
                  upstream(src="203.0.113.1") / ICMP(type=13), "drop_upstream_icmp", lwb4=3),
]  # fmt: skip


@pytest.mark.parametrize("scenario", [*DOWN, *UP], ids=str)
def test_forwarded(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


@pytest.mark.parametrize("scenario", [*DOWN_DROPPED, *UP_DROPPED], ids=str)
def test_dropped_and_not_answered(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


def test_an_error_speaks_for_the_port_it_quotes_whoever_sent_it(rig: Rig) -> None:
    """Not for what its own source says: any router on the way may send it."""
    quoted = IP(src="192.0.2.1", dst=INTERNET, ttl=3) / UDP(sport=1072, dport=33434)
    for router in ("10.1.1.1", "198.51.100.254", "1.2.3.4"):
        packet = downstream(src=router) / ICMP(type=11) / quoted
        run(rig, goes_down(router, packet))
