"""Whatever lwB4s and routers send: the slow paths drop it, or make sound packets of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Raw

from openflow_rules.encode import PipelineFields
from ryu_lw4o6.core import ipv4
from ryu_lw4o6.core.binding import BindingTable
from ryu_lw4o6.path_mtu import Paths
from ryu_lw4o6.slow_path import SlowPath
from tests.rules.samples import ANYCAST, BINDINGS, PREFIXES, instance

LWB4 = str(BINDINGS[0].lwb4)
INNER = IP(src="192.0.2.1", dst="198.51.100.200") / UDP(sport=1072, dport=53) / bytes(64)
OUTER = IPv6(src=LWB4, dst=str(ANYCAST), nh=4)
TO_LWB4 = IPv6(src=str(ANYCAST), dst=LWB4) / IP(dst="192.0.2.1") / UDP(dport=1072)
SEEDS = [
    bytes(packet)
    for packet in (
        OUTER / INNER,
        IPv6(src=LWB4, dst=str(ANYCAST)) / IPv6ExtHdrDestOpt(nh=4) / INNER,
        IPv6(src=LWB4, dst=str(ANYCAST)) / IPv6ExtHdrFragment(nh=4, id=7) / INNER,
        IPv6(src=LWB4, dst=str(ANYCAST)) / IPv6ExtHdrFragment(nh=4, id=7, m=1)
        / Raw(bytes(INNER)[:64]),
        IPv6(src=LWB4, dst=str(ANYCAST)) / IPv6ExtHdrFragment(nh=4, id=7, offset=8)
        / Raw(bytes(INNER)[64:]),
        IPv6(src="2001:db8::1", dst=str(ANYCAST)) / ICMPv6PacketTooBig(mtu=1300) / TO_LWB4,
    )
]  # fmt: skip
LATER = bytes(IP(src="192.0.2.1", dst="192.0.2.9", proto=17, frag=3, flags="MF") / bytes(16))
SOFTWIRE = PipelineFields(BINDINGS[0].lwb4.packed, ANYCAST.packed, 0, 1260)


@st.composite
def packets(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    packet = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 3))):
        packet[draw(st.integers(0, len(packet) - 1))] = draw(st.integers(0, 255))
    return (
        bytes(packet[: draw(st.integers(0, len(packet)))]) if draw(st.booleans()) else bytes(packet)
    )


def bound() -> BindingTable:
    table = BindingTable(PREFIXES)
    for binding in BINDINGS:
        table.add(binding)
    return table


@given(st.lists(packets(SEEDS) | st.binary(max_size=120), max_size=6))
def test_softwire_packets(sent: list[bytes]) -> None:
    lwaftr, table = instance(), bound()
    slow, paths = SlowPath(lwaftr, lambda packet, lwb4: None), Paths(lwaftr, table)
    for now, packet in enumerate(sent):
        for injection in slow.softwire(bytes(12) + b"\x86\xdd" + packet, now):
            assert ipv4.is_sound(injection.frame[14:])
        paths.error(bytes(12) + b"\x86\xdd" + packet, now)
    assert slow.reassembly.bytes <= sum(map(len, sent)) + len(sent)


@given(st.lists(packets([LATER, bytes(INNER)]) | st.binary(max_size=60), max_size=6))
def test_ipv4_fragments(sent: list[bytes]) -> None:
    slow, paths = (
        SlowPath(instance(), lambda packet, lwb4: None),
        Paths(instance(), bound()),
    )
    for now, packet in enumerate(sent):
        frame = bytes(12) + b"\x08\x00" + packet
        slow.later(SOFTWIRE, frame, now)
        slow.first(SOFTWIRE, frame, now)
        paths.too_large(SOFTWIRE, frame)
