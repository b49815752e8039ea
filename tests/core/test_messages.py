"""ARP, neighbour discovery and ICMP errors, byte by byte against the RFCs and against Scapy."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether

from ryu_lw4o6.core import arp, icmp, nd
from ryu_lw4o6.core.next_hop import NextHop, NextHopState

OWN_MAC = bytes.fromhex("020000000401")
PEER_MAC = bytes.fromhex("0200000004fe")
OWN4, PEER4 = IPv4Address("198.51.100.1"), IPv4Address("198.51.100.254")
OWN6, PEER6 = IPv6Address("2001:db8:1::1"), IPv6Address("2001:db8:1::fe")


def test_arp_request_to_the_byte() -> None:
    expected = bytes.fromhex(
        "ffffffffffff 020000000401 0806"  # everybody, from us, ARP
        "0001 0800 06 04 0001"  # Ethernet, IPv4, lengths, request
        "020000000401 c6336401"  # sender
        "000000000000 c63364fe"  # target
    ).ljust(60, b"\0")
    assert arp.solicit(OWN_MAC, OWN4, PEER4) == expected
    assert arp.solicit(OWN_MAC, OWN4, PEER4, PEER_MAC)[:6] == PEER_MAC


def test_arp_sender_is_read() -> None:
    reply = Ether(src="02:00:00:00:04:fe", dst="02:00:00:00:04:01") / ARP(
        op=2, hwsrc="02:00:00:00:04:fe", psrc="198.51.100.254"
    )
    assert arp.sender(bytes(reply)) == (PEER4, PEER_MAC)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        bytes(60),
        bytes(Ether(type=0x0806)) + bytes(28),
        bytes(Ether(type=0x0806) / ARP(hwlen=8)),
        bytes(Ether() / ARP(op=2, hwsrc="01:00:5e:00:00:01")),  # a group's address
        bytes(Ether() / ARP(op=2, hwsrc="00:00:00:00:00:00")),
        bytes(Ether() / ARP(op=2, hwsrc="02:00:00:00:00:01"))[:41],
    ],
)
def test_arp_that_makes_no_sense_is_ignored(frame: bytes) -> None:
    assert arp.sender(frame) is None


def test_neighbour_solicitation_is_what_scapy_reads() -> None:
    frame = nd.solicit(OWN_MAC, OWN6, PEER6)
    packet = Ether(frame)
    assert packet.dst == "33:33:ff:00:00:fe"
    assert packet[IPv6].dst == "ff02::1:ff00:fe"
    assert packet[IPv6].hlim == 255
    assert packet[ICMPv6ND_NS].tgt == "2001:db8:1::fe"
    assert packet[ICMPv6ND_NS].payload.lladdr == "02:00:00:00:04:01"
    sum_given = packet[ICMPv6ND_NS].cksum
    del packet[ICMPv6ND_NS].cksum
    assert Ether(bytes(packet))[ICMPv6ND_NS].cksum == sum_given
    unicast = Ether(nd.solicit(OWN_MAC, OWN6, PEER6, PEER_MAC))
    assert (unicast.dst, unicast[IPv6].dst) == ("02:00:00:00:04:fe", "2001:db8:1::fe")


def advertisement(**fields: object) -> bytes:
    return bytes(
        Ether(src="02:00:00:00:04:fe")
        / IPv6(src=str(PEER6), dst=str(OWN6), hlim=fields.pop("hlim", 255))
        / ICMPv6ND_NA(tgt=str(PEER6), **fields)
        / ICMPv6NDOptDstLLAddr(lladdr="02:00:00:00:04:fd")
    )


def test_neighbour_advertisement_is_read() -> None:
    assert nd.sender(advertisement()) == (PEER6, bytes.fromhex("0200000004fd"))


def test_neighbour_advertisement_from_off_link_or_damaged_is_ignored() -> None:
    assert nd.sender(advertisement(hlim=254)) is None
    assert nd.sender(advertisement(cksum=1)) is None
    assert nd.sender(advertisement()[:70]) is None


@given(st.binary(max_size=120))
def test_parsers_take_anything(data: bytes) -> None:
    for prefix in (b"", bytes(12) + b"\x08\x06", bytes(12) + b"\x86\xdd", bytes(12) + b"\x08\x00"):
        with contextlib.suppress(AssertionError):
            arp.sender(prefix + data)
        nd.sender(prefix + data)
        packet = icmp.ipv4_packet(prefix + data)
        if packet is not None:
            icmp.may_answer(packet)
            icmp.error(OWN4, packet, 3, 1)


INNER = bytes(IP(src="192.0.2.1", dst="198.51.100.200", tos=0x28, ttl=64) / UDP(sport=48, dport=53))
LWB4, ANYCAST = IPv6Address("2001:db8:b4::1"), IPv6Address("2001:db8:ffff::1")


def softwire(inner: bytes) -> bytes:
    """Traffic class 0x28, flow label 0x12345, hop limit 63."""
    header = bytes.fromhex("62812345") + len(inner).to_bytes(2, "big") + b"\x04\x3f"
    return header + LWB4.packed + ANYCAST.packed + inner


def test_icmpv6_error_quotes_the_softwire_packet() -> None:
    """RFC 4443 section 3.1: type 1 code 5, 4 unused bytes, the packet from its IPv6 header on."""
    packet = icmp.softwire_refused(softwire(INNER))
    read = IPv6(packet)
    assert (read.src, read.dst, read.nh) == (str(ANYCAST), str(LWB4), 58)
    assert read.plen == len(packet) - 40
    assert (read[ICMPv6DestUnreach].type, read[ICMPv6DestUnreach].code) == (1, 5)
    assert packet[44:48] == bytes(4)
    assert packet[48:] == softwire(INNER)
    given_sum = read[ICMPv6DestUnreach].cksum
    del read[ICMPv6DestUnreach].cksum
    assert IPv6(bytes(read))[ICMPv6DestUnreach].cksum == given_sum


def test_icmpv6_error_fits_the_minimum_mtu() -> None:
    big = INNER[:2] + (1500).to_bytes(2, "big") + INNER[4:] + bytes(1472)
    packet = icmp.softwire_refused(softwire(big))
    assert len(packet) == 1280
    # the quoted header keeps the length that the packet had
    assert packet[52:54] == len(big).to_bytes(2, "big")


def test_icmpv4_error_to_the_byte() -> None:
    """RFC 792: type 3, code 1, checksum, 4 unused bytes, then the IPv4 header and what follows."""
    packet = icmp.error(OWN4, INNER, 3, 1)
    read = IP(packet)
    assert (read.src, read.dst, read.tos, read.ttl) == ("198.51.100.1", "192.0.2.1", 0xC0, 64)
    assert read.len == len(packet) == 20 + 8 + len(INNER)
    assert packet[4:8] == bytes.fromhex("0000 4000")  # atomic: RFC 6864 section 4.1
    assert packet[20:22] == b"\x03\x01"
    assert packet[24:28] == bytes(4)
    assert packet[28:] == INNER
    for layer in (IP, ICMP):
        given_sum = read[layer].chksum
        del read[layer].chksum
        read = IP(bytes(read))
        assert read[layer].chksum == given_sum


def test_fragmentation_needed_names_the_mtu() -> None:
    packet = icmp.error(OWN4, INNER + bytes(2000), 3, 4, mtu=1460)
    assert packet[20:22] == b"\x03\x04"
    assert packet[24:28] == bytes.fromhex("0000 05b4")
    assert len(packet) == 576


@pytest.mark.parametrize(
    ("packet", "answered"),
    [
        (IP(src="198.51.100.9", dst="192.0.2.1") / UDP(), True),
        (IP(src="198.51.100.9", dst="192.0.2.1") / ICMP(type=8), True),
        (IP(src="198.51.100.9", dst="192.0.2.1") / ICMP(type=3), False),
        (IP(src="198.51.100.9", dst="192.0.2.1") / ICMP(type=11), False),
        (IP(src="198.51.100.9", dst="192.0.2.1", frag=2) / UDP(), False),
        (IP(src="224.0.0.1", dst="192.0.2.1") / UDP(), False),
        (IP(src="0.0.0.0", dst="192.0.2.1") / UDP(), False),
        (IP(src="240.0.0.1", dst="192.0.2.1") / UDP(), False),
        (IP(src="255.255.255.255", dst="192.0.2.1") / UDP(), False),
        (IP(src="198.51.100.9", dst="224.0.0.5") / UDP(), False),
    ],
)
def test_what_may_be_answered(packet: IP, answered: bool) -> None:
    assert icmp.may_answer(bytes(packet)) is answered


def test_next_hop_is_asked_resolved_refreshed_and_followed() -> None:
    hop = NextHop(arp, OWN4, PEER4)
    assert hop.state is NextHopState.UNRESOLVED
    assert hop.probe(0.0, OWN_MAC) == arp.solicit(OWN_MAC, OWN4, PEER4)
    assert hop.probe(0.5, OWN_MAC) is None  # too soon
    assert hop.probe(1.0, OWN_MAC) is not None  # nobody answered
    reply = bytes(Ether() / ARP(op=2, hwsrc="02:00:00:00:04:fe", psrc="198.51.100.254"))
    assert hop.learn(1.1, reply)
    assert (hop.state, hop.mac) == (NextHopState.REACHABLE, "02:00:00:00:04:fe")
    assert not hop.learn(1.2, reply)
    assert hop.probe(31.0, OWN_MAC) is None
    assert hop.probe(31.3, OWN_MAC) == arp.solicit(OWN_MAC, OWN4, PEER4, PEER_MAC)
    moved = bytes(Ether() / ARP(op=1, hwsrc="02:00:00:00:04:fd", psrc="198.51.100.254"))
    assert hop.learn(32.0, moved)
    assert hop.mac == "02:00:00:00:04:fd"
    other = bytes(Ether() / ARP(op=2, hwsrc="02:00:00:00:04:fc", psrc="198.51.100.9"))
    assert not hop.learn(33.0, other)


def test_next_hop_behind_a_new_link_is_asked_until_it_answers() -> None:
    hop = NextHop(arp, OWN4, PEER4)
    reply = bytes(Ether() / ARP(op=2, hwsrc="02:00:00:00:04:fe", psrc="198.51.100.254"))
    hop.learn(0.0, reply)
    hop.reset()
    for now in (5.0, 6.0):  # everybody: it may be another one
        assert not hop.answered
        assert hop.probe(now, OWN_MAC) == arp.solicit(OWN_MAC, OWN4, PEER4)
        assert hop.probe(now + 0.9, OWN_MAC) is None
    assert not hop.learn(6.1, reply)  # it is where it was
    assert hop.answered


def test_next_hop_that_falls_silent_is_stale_but_used() -> None:
    hop = NextHop(arp, OWN4, PEER4)
    hop.adopt("02:00:00:00:04:fe")
    now = 0.0
    for _ in range(5):
        assert hop.probe(now, OWN_MAC) is not None
        now = hop.next_probe
    assert hop.state is NextHopState.STALE
    assert hop.mac == "02:00:00:00:04:fe"
    assert hop.probe(now, OWN_MAC) == arp.solicit(OWN_MAC, OWN4, PEER4)  # everybody is asked
