"""Errors about softwire packets as values, and path MTUs that are kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    PadN,
)
from scapy.packet import Packet, Raw

from ryu_lw4o6.core.tunnel_icmp import PathMtus, read

AFTR, LWB4 = "2001:db8:ffff::1", "2001:db8:b4::1"
INNER = IP(src="198.51.100.200", dst="192.0.2.1") / UDP(sport=53, dport=1072) / bytes(1400)
SENT = IPv6(src=AFTR, dst=LWB4, nh=4) / INNER


def error(message: Packet, sent: Packet = SENT, room: int = 1232) -> bytes:
    return bytes(IPv6(src="2001:db8:77::1", dst=AFTR) / message / Raw(bytes(sent)[:room]))


def test_what_it_says() -> None:
    report = read(error(ICMPv6PacketTooBig(mtu=1400)))
    assert report is not None
    assert (str(report.br_address), str(report.lwb4), report.mtu) == (AFTR, LWB4, 1400)
    assert report.packet == bytes(INNER)[: 1232 - 40]
    unreachable = read(error(ICMPv6DestUnreach(code=3)))
    assert unreachable is not None
    assert unreachable.mtu is None


def test_behind_extension_headers() -> None:
    """Which any node has to pass over (RFC 8200 section 4)."""
    plain = error(ICMPv6PacketTooBig(mtu=1400))
    options = IPv6ExtHdrHopByHop(nh=58, options=[PadN(optdata=bytes(4))])
    behind = IPv6(src="2001:db8:77::1", dst=AFTR) / options / Raw(plain[40:])
    assert read(bytes(behind)) == read(plain)


def test_about_a_fragment_that_we_made() -> None:
    """Of the first, the ports can be seen (RFC 8200 section 4.5)."""
    for offset, understood in ((0, True), (181, False)):
        header = IPv6(src=AFTR, dst=LWB4) / IPv6ExtHdrFragment(nh=4, offset=offset, m=1, id=7)
        report = read(error(ICMPv6PacketTooBig(mtu=1300), header / Raw(bytes(INNER))))
        assert (report is not None) == understood


@pytest.mark.parametrize("mtu", [0, 68, 1279])
def test_no_path_takes_less_than_1280_bytes(mtu: int) -> None:
    """Who says so is not believed at all (RFC 8201 section 4)."""
    assert read(error(ICMPv6PacketTooBig(mtu=mtu))) is None
    report = read(error(ICMPv6PacketTooBig(mtu=1280)))
    assert report is not None
    assert report.mtu == 1280


@given(st.binary(max_size=200), st.integers(0, 200), st.integers(0, 255))
def test_anything_may_come(data: bytes, at: int, value: int) -> None:
    read(data)
    packet = bytearray(error(ICMPv6DestUnreach(code=3), room=160))
    packet[at % len(packet)] = value
    read(bytes(packet))
    read(bytes(packet[:at]))


def test_paths_are_kept_for_a_while() -> None:
    paths = PathMtus(600, 2)
    assert paths.learn("a", 1400, 0)
    assert not paths.learn("a", 1400, 1)  # nothing new: a flood of errors changes nothing
    assert not paths.learn("a", 1450, 2)
    assert paths.learn("a", 1300, 3)
    assert paths.learn("b", 1300, 4)
    assert not paths.learn("c", 1300, 5)  # full
    assert paths.learn("c", 1300, 603)  # a's time was over
    assert paths.learn("a", 1450, 1204)
    assert len(paths) == 1
