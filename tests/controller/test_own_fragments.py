"""Fragments that are given up: who sent the first of them is told (RFC 1122 section 3.3.2, RFC 8200
section 4.5), and nobody else."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6TimeExceeded, IPv6, IPv6ExtHdrFragment
from scapy.packet import Packet, Raw

from openflow_rules.encode import PipelineFields
from ryu_lw4o6.own_fragments import OwnFragments
from ryu_lw4o6.slow_path import SlowPath
from tests.rules.samples import ANYCAST, instance

OWN, HOST = "198.51.100.1", "198.51.100.200"
FROM_INTERNET = PipelineFields(None, None, 0)
LWB4 = "2001:db8:b4::1"


def told_after_a_minute(*fragments: Packet) -> list[bytes]:
    told: list[bytes] = []
    own = OwnFragments(instance(), told.append)
    for now, fragment in enumerate(fragments):
        assert own.add(FROM_INTERNET, bytes(12) + b"\x08\x00" + bytes(fragment), now) == []
    own.expire(59.9)
    assert told == []
    own.expire(60)
    assert own.dropped[0] == len(fragments)
    return told


def piece(offset: int, *, more: bool = True, kind: int = 8, src: str = HOST) -> Packet:
    header = IP(src=src, dst=OWN, id=7, proto=1, frag=offset // 8, flags="MF" if more else 0)
    return header / Raw(bytes([kind]) + bytes(63))


def test_the_source_of_the_first_fragment_is_told() -> None:
    """ICMPv4 time exceeded, fragment reassembly time exceeded."""
    first = piece(0)
    expected = IP(src=OWN, dst=HOST, tos=0xC0, ttl=64, id=0, flags="DF") / ICMP(type=11, code=1)
    assert told_after_a_minute(piece(128, more=False), first) == [bytes(expected / bytes(first))]


@pytest.mark.parametrize(
    "fragments",
    [
        [piece(64), piece(128, more=False)],
        [piece(0, kind=3)],
        [piece(0, src="240.0.0.1")],
        [piece(0), piece(8)],
    ],
    ids=["no-first", "an-error", "no-single-host", "overlapping"],
)
def test_nobody_else_is(fragments: list[Packet]) -> None:
    assert told_after_a_minute(*fragments) == []


def test_a_whole_packet_is_not_given_up() -> None:
    told: list[bytes] = []
    own = OwnFragments(instance(), told.append)
    echo = bytes(ICMP(type=8, id=7) / Raw(bytes(120)))
    for at in (0, 64):
        fragment = IP(src=HOST, dst=OWN, proto=1, frag=at // 8, flags=0 if at else "MF")
        frame = bytes(12) + b"\x08\x00" + bytes(fragment / Raw(echo[at : at + 64]))
        answers = own.add(FROM_INTERNET, frame, 0)
    assert len(answers) == 1
    own.expire(100)
    assert told == []


def softwire_fragment(offset: int, size: int, src: str = LWB4) -> Packet:
    inner = bytes(IP(src="192.0.2.1", dst=HOST) / UDP(sport=1072, dport=53) / bytes(1400))
    return (
        IPv6(src=src, dst=str(ANYCAST), tc=0x28, fl=5, hlim=60)
        / IPv6ExtHdrFragment(nh=4, offset=offset // 8, m=1, id=9)
        / Raw(inner[offset : offset + size])
    )


def errors_after_a_minute(fragment: Packet) -> list[bytes]:
    path = SlowPath(instance(), lambda packet, lwb4: None)
    # Whatever Ethernet put behind it is no part of it.
    assert path.softwire(bytes(12) + b"\x86\xdd" + bytes(fragment) + b"padding", 0) == []
    assert path.late(59.9) == []
    errors = path.late(60)
    assert path.late(120) == []
    return errors


@pytest.mark.parametrize("size", [64, 1184, 1192])
def test_an_lwb4_is_told_about_its_softwire_packet(size: int) -> None:
    """ICMPv6 time exceeded, of at most 1280 bytes: 1232 of the fragment (RFC 4443 section 2.4 c),
    which are 1184 behind its headers."""
    fragment = softwire_fragment(0, size)
    error = IPv6(src=str(ANYCAST), dst=LWB4, hlim=64) / ICMPv6TimeExceeded(code=1)
    assert errors_after_a_minute(fragment) == [bytes(error / Raw(bytes(fragment)[:1232]))]


def test_without_the_first_fragment_or_a_single_source_it_is_not() -> None:
    assert errors_after_a_minute(softwire_fragment(64, 64)) == []
    assert errors_after_a_minute(softwire_fragment(0, 64, src="::1")) == []
