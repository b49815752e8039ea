"""The fields of both headers: TTL, traffic class (RFC 2983, RFC 6040), options, flow label."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from tests.support.rig import CONFIG, Rig
from tests.wire.scenario import (
    AFTR,
    DOWN,
    LWB4,
    UP,
    Scenario,
    downstream,
    forwarded,
    goes_down,
    goes_up,
    is_dropped_down,
    run,
    softwire,
    tunnelled,
    upstream,
)

TO_53 = UDP(sport=1072, dport=53)
FROM_53 = UDP(sport=53, dport=1072)

DSCP = [0x00, 0x20, 0x28, 0x48, 0x88, 0xB8, 0xC0, 0xFC]  # default, CS1, AF11, AF21, AF41, EF, ...

# RFC 2983 section 4: the outer header says what the inner does. What comes back keeps the inner
# DSCP: lwB4s on Linux send traffic class 0 unless told otherwise.
TRAFFIC_CLASS = [
    *(goes_down(f"DSCP {tos >> 2}", downstream(tos=tos) / FROM_53, tc=tos) for tos in DSCP),
    *(goes_up(f"DSCP {tos >> 2}", upstream(tos=tos) / TO_53, tc=tos) for tos in DSCP),
    goes_up("an outer DSCP that was changed on the way", upstream(tos=0x28) / TO_53, tc=0xB8),
]

NOT_ECT, ECT_1, ECT_0, CE = range(4)
NAMES = ("Not-ECT", "ECT(1)", "ECT(0)", "CE")

# RFC 6040 section 4.1, normal mode: the outer field is a copy.
ENCAPSULATED = [
    goes_down(f"ECN {NAMES[ecn]}", downstream(tos=0xB8 | ecn) / FROM_53, tc=0xB8 | ecn)
    for ecn in range(4)
]

# RFC 6040 section 4.2, figure 4: inner, outer, what is forwarded; None is a packet dropped.
DECAPSULATED = [
    (NOT_ECT, NOT_ECT, NOT_ECT), (NOT_ECT, ECT_0, NOT_ECT), (NOT_ECT, ECT_1, NOT_ECT),
    (NOT_ECT, CE, None),
    (ECT_0, NOT_ECT, ECT_0), (ECT_0, ECT_0, ECT_0), (ECT_0, ECT_1, ECT_1), (ECT_0, CE, CE),
    (ECT_1, NOT_ECT, ECT_1), (ECT_1, ECT_0, ECT_1), (ECT_1, ECT_1, ECT_1), (ECT_1, CE, CE),
    (CE, NOT_ECT, CE), (CE, ECT_0, CE), (CE, ECT_1, CE), (CE, CE, CE),
]  # fmt: skip


def ecn_scenario(inner: int, outer: int, result: int | None) -> Scenario:
    name = f"ECN: inner {NAMES[inner]}, outer {NAMES[outer]}"
    send6 = [softwire(upstream(tos=0x28 | inner) / TO_53, tc=0x28 | outer)]
    if result is None:
        return Scenario(name + ": dropped", send6=send6, shim={"refused_ecn": 1})
    out = forwarded(upstream(tos=0x28 | result) / TO_53)
    return Scenario(f"{name}: {NAMES[result]}", send6=send6, out4=[out], counters=UP)


TTL = [
    *(goes_up(f"TTL {ttl}", upstream(ttl=ttl) / TO_53) for ttl in (2, 3, 64, 128, 255)),
    *(goes_down(f"TTL {ttl}", downstream(ttl=ttl) / FROM_53) for ttl in (2, 3, 64, 128, 255)),
    # RFC 2473 section 3.1: the tunnel is one hop, however long it is.
    *(goes_up(f"outer hop limit {hops}", upstream() / TO_53, hlim=hops) for hops in (0, 1, 2, 255)),
]  # fmt: skip

OPTIONS = [
    *(goes_up(f"IP option {name}", upstream(options=option) / TO_53) for name, option in (
        ("no operation", b"\x01\x01\x01\x00"),
        ("record route", b"\x07\x07\x04\x00\x00\x00\x00\x00"),
        ("router alert (RFC 2113)", b"\x94\x04\x00\x00"),
        ("timestamp", b"\x44\x08\x05\x00" + bytes(4)),
        ("forty bytes", b"\x01" * 40))),
    *(goes_down(f"IP option {name}", downstream(options=option) / FROM_53) for name, option in (
        ("no operation", b"\x01\x01\x01\x00"), ("router alert (RFC 2113)", b"\x94\x04\x00\x00"),
        ("forty bytes", b"\x01" * 40))),
    goes_down("IP options before an echo",
              downstream(options=b"\x94\x04\x00\x00") / ICMP(type=8, id=1075)),
    goes_up("IP options before TCP", upstream(options=b"\x01" * 8) / TCP(sport=1072, dport=80)),
]  # fmt: skip

LABELS = [
    goes_up(f"flow label {label:#07x}", upstream() / TO_53, fl=label)
    for label in (0, 1, 0x10000, 0xFFFFF)
]

# --- an encapsulation limit and other destination options (RFC 2473 section 4.1.1, RFC 8200) ------


def with_options(options: str, inner: Packet | None = None) -> Packet:
    """A softwire packet with destination options, written with their next header and length."""
    inner = inner if inner is not None else upstream() / TO_53
    header = IPv6(src=LWB4[1], dst=AFTR, nh=60, hlim=63)
    return header / Raw(bytes.fromhex(options)) / inner


ACCEPTED = {
    "encapsulation limit 4, PadN": "0400 040104 010100",
    "encapsulation limit 0": "0400 040100 010100",
    "encapsulation limit 255": "0400 0401ff 010100",
    "encapsulation limit behind padding": "0400 010100 040104",
    "encapsulation limit among single bytes of padding": "0400 0004 0104 0000",
    "padding only": "0400 0104 00000000",
    "padding by single bytes": "0400 000000000000",
    "an unknown option that may be skipped": "0400 1e04 01020304",
}
REFUSED = {
    "an unknown option that may not be skipped": "0400 5e04 01020304",
    "an option that is longer than the header": "0400 0405 04010100",
    "an option without a length": "0400 0103 0000001e",
}
EXTENSIONS = [
    *(Scenario(f"accepted: {name}", send6=[with_options(options)],
               out4=[forwarded(upstream() / TO_53)], counters=UP, shim={"options_stripped": 1})
      for name, options in ACCEPTED.items()),
    Scenario("accepted: an encapsulation limit before 1452 bytes",
             send6=[with_options("0400 040104 010100", upstream() / TO_53 / bytes(1424))],
             out4=[forwarded(upstream() / TO_53 / bytes(1424))], counters=UP,
             shim={"options_stripped": 1}),
]  # fmt: skip
REFUSED_EXTENSIONS = [
    Scenario(f"refused: {name}", send6=[with_options(options)], shim={"refused_options": 1})
    for name, options in REFUSED.items()
]


@pytest.mark.parametrize(
    "scenario", [*TRAFFIC_CLASS, *ENCAPSULATED, *TTL, *OPTIONS, *LABELS, *EXTENSIONS], ids=str
)
def test_forwarded(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


@pytest.mark.parametrize("scenario", [ecn_scenario(*row) for row in DECAPSULATED], ids=str)
def test_congestion_is_passed_on(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


@pytest.mark.parametrize("scenario", REFUSED_EXTENSIONS, ids=str)
def test_refused(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


def test_the_outer_header_of_what_is_sent(rig: Rig) -> None:
    """Version 6, flow label 0, next header 4, hop limit 255, the length of the IPv4 packet."""
    inner = downstream(tos=0x28) / FROM_53 / b"twelve bytes"
    out = tunnelled(forwarded(inner), tc=0x28)
    assert bytes(out)[:8] == bytes.fromhex("62800000 0028 04 ff")
    run(rig, Scenario("outer", send4=[inner], out6=[out], counters=DOWN))


@pytest.mark.parametrize("ttl", [0, 1])
def test_a_ttl_that_has_run_out_is_not_forwarded(silent: Rig, ttl: int) -> None:
    """Nobody is told here; what the sender is told is a scenario of its own."""
    run(silent, is_dropped_down(f"TTL {ttl}", downstream(ttl=ttl) / FROM_53,
                                "drop_downstream_ttl_expired"))  # fmt: skip
    counters = {"from_softwire": 1, "drop_upstream_ttl_expired": 1}
    run(silent, Scenario("up", send6=[softwire(upstream(ttl=ttl) / TO_53)], counters=counters))


# --- the uniform model in both directions ---------------------------------------------------------


@pytest.fixture(scope="module")
def uniform() -> Iterator[Rig]:
    rig = Rig(CONFIG.replace("ipv6: {{", "ipv6: {{dscp: outer, "))
    yield rig
    rig.stop()


@pytest.mark.parametrize(("inner", "outer"), [(0, 0xB8), (0xB8, 0), (0x28, 0x48), (0xFC, 0xFC)])
def test_the_outer_dscp_comes_in(uniform: Rig, inner: int, outer: int) -> None:
    """RFC 2983 section 4.2, the uniform model. Congestion is a matter of its own (RFC 6040)."""
    for ecn, came, leaves in ((NOT_ECT, NOT_ECT, NOT_ECT), (ECT_0, CE, CE), (ECT_1, ECT_0, ECT_1)):
        send6 = [softwire(upstream(tos=inner | ecn) / TO_53, tc=outer | came)]
        out4 = [forwarded(upstream(tos=outer | leaves) / TO_53)]
        run(uniform, Scenario("uniform", send6=send6, out4=out4, counters=UP))
