"""The shim on real interfaces, checked byte by byte.

A pair of veths stands for each NIC: ``eth6`` and ``eth4`` are the NICs that the shim is attached
to, ``wire6`` and ``wire4`` their far ends. A raw socket on ``eth6`` is where Open vSwitch sits.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import HBHOptUnknown, IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from ryu_lw4o6.core.binding import Prefix
from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.core.settings import Datapath, FlowLabel, Instance, Ipv4Side, Ipv6Side, br_tag
from ryu_lw4o6.softwire import cli, nic, shim, source
from ryu_lw4o6.softwire.commands import ShimError
from ryu_lw4o6.softwire.nic import Hook
from tests.support import evidence
from tests.support.bpf import TC_OK, TC_STOLEN, XDP_DROP, XDP_PASS, Program
from tests.support.netns import Wire, inside, namespace
from tests.support.ovs import run

AFTR = IPv6Address("2001:db8:ffff::1")
SECOND = IPv6Address("2001:db8:ffff::2")
LWB4 = "2001:db8:b4::1"
NIC6, ROUTER6 = "02:00:00:00:06:01", "02:00:00:00:06:fe"
NIC4, ROUTER4 = "02:00:00:00:04:01", "02:00:00:00:04:fe"

INSTANCE = Instance(
    name="lwaftr1",
    datapath_id=1,
    ipv6=Ipv6Side("eth6", IPv6Interface("2001:db8:1::1/64"), None, 1500),
    ipv4=Ipv4Side("eth4", IPv4Interface("198.51.100.1/24"), IPv4Address("198.51.100.254")),
    aftr_addresses=(AFTR, SECOND),
    prefixes=(Prefix(IPv4Network("192.0.2.0/24"), PortParams(6, 6)),),
)


@pytest.fixture(scope="module")
def place() -> Iterator[str]:
    with namespace() as name:
        for nic, mac in (("6", NIC6), ("4", NIC4)):
            run(
                "ip", "-n", name, "link", "add", f"eth{nic}", "address", mac, "type", "veth",
                "peer", "name", f"wire{nic}",
            )  # fmt: skip
            for end in ("eth", "wire"):
                path = f"/proc/sys/net/ipv6/conf/{end}{nic}/disable_ipv6"
                run("ip", "netns", "exec", name, "sh", "-c", f"echo 1 > {path}")
                run("ip", "-n", name, "link", "set", f"{end}{nic}", "mtu", "1600", "up")
        with inside(name):
            yield name


@dataclasses.dataclass
class Ends:
    eth6: Wire
    wire6: Wire
    eth4: Wire
    wire4: Wire


@pytest.fixture
def ends(place: str) -> Iterator[Ends]:
    shim.attach(INSTANCE)
    wires = [Wire(name) for name in ("eth6", "wire6", "eth4", "wire4")]
    yield Ends(*wires)
    for wire in wires:
        wire.close()
    shim.detach(INSTANCE)


def softwire(inner: object, *, nh: int = 4, dst: object = AFTR, **fields: int) -> bytes:
    """A frame from the access network: Ethernet, IPv6, and what is inside."""
    body = inner if isinstance(inner, bytes) else bytes(inner)  # type: ignore[call-overload]
    header = IPv6(src=LWB4, dst=str(dst), nh=nh, hlim=63, plen=len(body), **fields)
    return bytes(Ether(src=ROUTER6, dst=NIC6, type=0x86DD) / header) + body


HOPS_63 = "3a3000000000"
"""eth_src of a packet with hop limit 63 = 0b00111111: its bits 0 and 1 are bits 36 and 37 (0x30 of
the second byte), bit 2 is bit 41 (0x02 of the first), bits 3 to 5 are bits 43 to 45 (0x38)."""


def as_gre(
    wire_frame: bytes, marks: str = HOPS_63, inner_at: int = 54, about: str = "0000"
) -> bytes:
    """The same packet as Open vSwitch is to see it, built from RFC 2784 and the mark by hand;
    ``about`` is whether there was an encapsulation limit, and the traffic class."""
    length = int.from_bytes(wire_frame[18:20], "big") - (inner_at - 54) + 18
    first = int.from_bytes(wire_frame[14:18], "big") & ~(3 << 20)  # no ECN for Open vSwitch
    ipv6 = first.to_bytes(4, "big") + length.to_bytes(2, "big") + bytes([47]) + wire_frame[21:54]
    gre = bytes.fromhex("00006558")
    ethernet = bytes.fromhex("024b0001" + about + marks + "0800")
    return wire_frame[:14] + ipv6 + gre + ethernet + wire_frame[inner_at:]


def inner(payload: object, **fields: object) -> bytes:
    return bytes(IP(src="192.0.2.1", dst="198.51.100.200", ttl=64, **fields) / payload)


def short(value: object) -> str | None:
    """Bytes in a test's name would be unreadable."""
    return f"{len(value)}B" if isinstance(value, bytes) else None


def counters() -> dict[str, int]:
    found = shim.status(INSTANCE).counters
    evidence.moved(name for name, value in found.items() if value)
    return found


SNAP = bytes.fromhex("aaaa03 000000")
UDP_PACKET = inner(UDP(sport=1072, dport=53) / b"question")


@pytest.mark.parametrize("size", [0, 8, 1412])
def test_softwire_packet_comes_in_as_gre(ends: Ends, size: int) -> None:
    frame = softwire(inner(UDP(sport=1072, dport=53) / bytes(size)), tc=0x28, fl=0x12345)
    ends.wire6.send(frame)
    # Flow label bits 16-19 are bits 32-35, its bits 0-15 are bits 16-31.
    assert ends.eth6.receive() == as_gre(frame, "3a3123450000", about="0028")
    assert counters()["translated_in"] == 1


def test_every_bit_of_the_outer_header_has_its_place(ends: Ends) -> None:
    frame = softwire(inner(UDP(), tos=3), tc=0xFF, fl=0xFFFFF)
    frame = frame[:21] + b"\xff" + frame[22:]  # hop limit
    ends.wire6.send(frame)
    assert ends.eth6.receive() == as_gre(frame, "fa3fffff0000", about="00ff")


# INSTANCE has an IPv6 MTU of 1500: 1460 bytes are carried whole, which is 1432 of UDP payload.
@pytest.mark.parametrize(
    ("size", "flags", "mark"), [(1432, "DF", "00"), (1433, "DF", "04"), (1433, "", "00")]
)
def test_what_a_softwire_does_not_carry_is_marked(
    ends: Ends, size: int, flags: str, mark: str
) -> None:
    packet = inner(UDP(sport=1072, dport=53) / bytes(size), flags=flags)
    ends.wire6.send(softwire(packet))
    first = int(HOPS_63[:2], 16) | int(mark, 16)
    assert ends.eth6.receive() == as_gre(softwire(packet), f"{first:02x}{HOPS_63[2:]}")
    plain = bytes(Ether(src=ROUTER4, dst=NIC4, type=0x0800)) + packet
    ends.wire4.send(plain)
    assert ends.eth4.receive() == plain[:6] + bytes.fromhex(mark) + bytes(5) + plain[12:]


def test_a_large_echo_is_marked_twice(ends: Ends) -> None:
    packet = inner(ICMP(type=8, id=0x0437) / bytes(1433), flags="DF")
    plain = bytes(Ether(src=ROUTER4, dst=NIC4, type=0x0800)) + packet
    ends.wire4.send(plain)
    assert ends.eth4.receive() == plain[:6] + bytes.fromhex("044000000437") + plain[12:]


def test_ethernet_padding_is_no_part_of_the_packet(ends: Ends) -> None:
    frame = softwire(inner(UDP(sport=1072, dport=53)))
    ends.wire6.send(frame + b"\xaa" * 7)
    assert ends.eth6.receive() == as_gre(frame) + b"\xaa" * 7


ECHO = inner(ICMP(type=8, id=0x0437, seq=1) / b"ping")
QUOTED_UDP = bytes(IP(src="198.51.100.200", dst="192.0.2.1") / UDP(sport=53, dport=0x0433))[:28]
QUOTED_TCP = bytes(
    IP(src="198.51.100.200", dst="192.0.2.1", options=b"\x01" * 8) / TCP(sport=80, dport=0x0431)
)[:36]
QUOTED_GRE = bytes(IP(src="198.51.100.200", dst="192.0.2.1", proto=47) / bytes(8))
QUOTED_ECHO = bytes(IP(src="198.51.100.200", dst="192.0.2.1") / ICMP(type=0, id=0x0439))[:28]


@pytest.mark.parametrize(
    ("packet", "mark"),
    [
        (ECHO, "004000000437"),
        (inner(ICMP(type=0, id=0xFFFE)), "00400000fffe"),
        # an error from the lwB4: its own port is the quoted destination, 53 the far side
        (inner(ICMP(type=3, code=3) / QUOTED_UDP), "000000350433"),
        (inner(ICMP(type=11) / QUOTED_TCP), "000000500431"),
        (inner(ICMP(type=12) / QUOTED_ECHO), "000004390439"),
        (inner(ICMP(type=8, id=0x0437) / b"x", options=b"\x01" * 4), "004000000437"),
        # no port to be had: redirect, a quote cut short, a quoted fragment or query, a fragment
        (inner(ICMP(type=5) / QUOTED_UDP), "008000000000"),
        (inner(ICMP(type=13) / bytes(12)), "008000000000"),
        (inner(ICMP(type=3) / QUOTED_UDP[:27]), "008000000000"),
        (inner(ICMP(type=3) / bytes(IP(src="1.1.1.1", dst="192.0.2.1", frag=7, proto=17)
                                   / bytes(8))), "008000000000"),
        (inner(ICMP(type=3) / bytes(IP(dst="192.0.2.1") / ICMP(type=13) / bytes(12))),
         "008000000000"),
        # what another sent; a protocol that has no ports, in a first fragment as well
        (inner(ICMP(type=3) / bytes(IP(src="1.1.1.1", dst="192.0.2.1") / UDP(dport=0x0433))),
         "008000000000"),
        (inner(ICMP(type=3) / QUOTED_GRE), "00c000000000"),
        (inner(ICMP(type=3) / QUOTED_GRE / bytes(4), flags="MF"), "008000000000"),
        # a first fragment still has its identifier
        (inner(ICMP(type=8, id=0x0437) / bytes(8), flags="MF"), "004000000437"),
    ],
    ids=short,
)  # fmt: skip
def test_icmp_names_its_ports(ends: Ends, packet: bytes, mark: str) -> None:
    frame = softwire(packet)
    ends.wire6.send(frame)
    hops = f"{int(HOPS_63, 16) | int(mark, 16):012x}"
    assert ends.eth6.receive() == as_gre(frame, hops)
    # The same packet from the Internet: only eth_src changes, and is always overwritten.
    plain = bytes(Ether(src="02:4b:11:22:33:44", dst=NIC4, type=0x0800)) + packet
    ends.wire4.send(plain)
    assert ends.eth4.receive() == plain[:6] + bytes.fromhex(mark) + plain[12:]


@pytest.mark.parametrize(
    "options",
    [
        "0400 04 01 04 01 01 00",  # encapsulation limit 4 and PadN, as Linux sends it
        "0400 01 04 00000000",  # PadN alone
        "0400 000000000000",  # Pad1 alone
        "0400 1e 04 01020304",  # an unknown option whose type says skip (RFC 8200 section 4.2)
    ],
)
def test_destination_options_are_stripped(ends: Ends, options: str) -> None:
    frame = softwire(bytes.fromhex(options) + ECHO, nh=60)
    ends.wire6.send(frame)
    about = "0100" if options.startswith("0400 04") else "0000"
    assert ends.eth6.receive() == as_gre(frame, "3a7000000437", inner_at=62, about=about)
    assert counters()["options_stripped"] == 1


def test_scapy_agrees_about_the_encapsulation_limit(ends: Ends) -> None:
    options = IPv6ExtHdrDestOpt(nh=4, options=[HBHOptUnknown(otype=4, optdata=b"\x04")])
    frame = bytes(
        Ether(src=ROUTER6, dst=NIC6) / IPv6(src=LWB4, dst=str(AFTR)) / options / Raw(UDP_PACKET)
    )
    ends.wire6.send(frame)
    received = ends.eth6.receive()
    assert received is not None
    assert received[72:] == UDP_PACKET


GRE_FRAME = as_gre(softwire(UDP_PACKET))


def in_snap(frame: bytes) -> bytes:
    """The same in an 802.3 frame, behind LLC and SNAP headers (RFC 1042)."""
    return frame[:12] + (len(frame) - 6).to_bytes(2, "big") + SNAP + frame[12:]


def in_vlan(frame: bytes, tag: int = 100) -> bytes:
    return frame[:12] + b"\x81\x00" + tag.to_bytes(2, "big") + frame[12:]


@pytest.mark.parametrize(
    ("frame", "counter"),
    [
        (GRE_FRAME, "refused_gre_from_wire"),
        (softwire(b"\x60" + UDP_PACKET[1:]), "refused_not_ipv4"),
        (softwire(b"\x44" + UDP_PACKET[1:]), "refused_truncated"),  # IHL 4
        (softwire(UDP_PACKET[:19]), "refused_truncated"),
        (softwire(UDP_PACKET)[:-1], "refused_truncated"),  # shorter than its IPv6 length
        (softwire(UDP_PACKET[:2] + b"\xff\xff" + UDP_PACKET[4:]), "refused_truncated"),
        (softwire(UDP_PACKET[:10] + b"\xab\xcd" + UDP_PACKET[12:]), "refused_checksum"),
        (softwire(UDP_PACKET, tc=0x2B), "refused_ecn"),  # CE outside, Not-ECT inside
        (softwire(bytes.fromhex("0400 43 04 00000000") + UDP_PACKET, nh=60), "refused_options"),
        (softwire(bytes.fromhex("0400 04 05 00000000") + UDP_PACKET, nh=60), "refused_options"),
        (softwire(bytes.fromhex("0400 0401"), nh=60), "refused_truncated"),
        # GRE behind extension headers: Open vSwitch and the kernel would find it there
        (softwire(bytes.fromhex("2f00 0104 00000000") + GRE_FRAME[54:], nh=60),
         "refused_gre_from_wire"),
        (softwire(bytes.fromhex("0000 6558 00000000 2f00 0104 00000000") + GRE_FRAME[58:], nh=60),
         "refused_gre_from_wire"),  # its first 4 bytes read as a GRE header
        (softwire(bytes.fromhex("2f00 0104 00000000") + GRE_FRAME[54:], nh=0),
         "refused_gre_from_wire"),
        (softwire(bytes.fromhex("2f04 0000 00000000 0000000000000000 00000000 00000000")
                  + GRE_FRAME[54:], nh=51), "refused_gre_from_wire"),
        (softwire(bytes.fromhex("2f00 0001 00000001") + GRE_FRAME[54:], nh=44),
         "refused_gre_from_wire"),  # the first fragment
        (softwire(bytes.fromhex("2f00 0009 00000001") + bytes(16), nh=44),
         "refused_gre_from_wire"),  # the second
        (softwire(bytes.fromhex("3c00 0104 00000000") * 7, nh=60), "refused_gre_from_wire"),
        # in a VLAN, or two
        (in_vlan(softwire(UDP_PACKET)), "refused_vlan"),
        (in_vlan(softwire(UDP_PACKET, dst="2001:db8:ffff::3")), "refused_vlan"),
        # to another address, at which Open vSwitch may end tunnels as well
        (as_gre(softwire(UDP_PACKET, dst="2001:db8:ffff::3")), "refused_gre_from_wire"),
        (softwire(bytes.fromhex("2f00 0104 00000000") + GRE_FRAME[54:], nh=60, dst="fe80::1"),
         "refused_gre_from_wire"),
        (in_snap(GRE_FRAME), "refused_gre_from_wire"),
        (in_snap(bytes(Ether(dst=NIC4, type=0x0800)) + UDP_PACKET), "refused_gre_from_wire"),
        (in_vlan(in_vlan(GRE_FRAME)), "refused_vlan"),
    ],
    ids=short,
)  # fmt: skip
def test_what_is_no_softwire_packet_is_refused(ends: Ends, frame: bytes, counter: str) -> None:
    ends.wire6.send(frame)
    assert ends.eth6.receive(0.2) is None
    assert {k: v for k, v in counters().items() if v and k.startswith("ref")} == {counter: 1}


@pytest.mark.parametrize(
    "frame",
    [
        softwire(UDP_PACKET, dst="2001:db8:ffff::3"),  # not an address of ours
        softwire(bytes(UDP(sport=546, dport=547)), nh=17),
        softwire(bytes.fromhex("3a00 0104 00000000") + bytes(8), nh=60),  # options, then ICMPv6
        # an option whose sender is to be told, 16 bytes of options: the controller's
        softwire(bytes.fromhex("0400 9e04 01020304") + UDP_PACKET, nh=60),
        softwire(bytes.fromhex("0401 0401040100000000000000000000") + UDP_PACKET, nh=60),
        softwire(bytes.fromhex("04000000 00000001") + UDP_PACKET, nh=44),  # an IPv6 fragment
        softwire(bytes.fromhex("3a00 0000 00000001") + bytes(8), nh=44),  # ICMPv6 in a fragment
        softwire(bytes.fromhex("3a00 0502 00000100") + bytes(8), nh=0),  # hop-by-hop, ICMPv6
        softwire(bytes.fromhex("2f00"), nh=0),  # cut short: nobody finds a header there
        bytes(Ether(src=ROUTER6, dst=NIC6, type=0x0806)) + bytes(46),
    ],
    ids=short,
)
def test_everything_else_is_left_alone(ends: Ends, frame: bytes) -> None:
    ends.wire6.send(frame)
    assert ends.eth6.receive() == frame


@pytest.mark.parametrize(
    ("outside", "inside", "becomes"),
    # Figure 4 of RFC 6040, by the numbers of the field: 1 is ECT(1), 2 ECT(0), 3 CE.
    [(2, 0, 0), (1, 0, 0), (0, 2, 2), (1, 2, 1), (2, 2, 2), (3, 2, 3), (0, 1, 1), (2, 1, 1),
     (3, 1, 3), (0, 3, 3), (1, 3, 3)],
)  # fmt: skip
def test_congestion_marks_come_out_of_the_tunnel(
    ends: Ends, outside: int, inside: int, becomes: int
) -> None:
    ends.wire6.send(softwire(inner(UDP(sport=1072, dport=53), tos=0x28 | inside), tc=outside))
    received = ends.eth6.receive()
    assert received is not None
    assert received[72:] == inner(UDP(sport=1072, dport=53), tos=0x28 | becomes)
    assert received[14:16] == b"\x60\x00"  # none of it is left for Open vSwitch to see
    assert received[63] == outside  # but the controller is told


@pytest.mark.parametrize(
    ("packet", "counter"),
    [
        (b"\x65" + UDP_PACKET[1:], "refused_not_ipv4"),
        (b"\x44" + UDP_PACKET[1:], "refused_truncated"),
        (UDP_PACKET[:-1], "refused_truncated"),
        (UDP_PACKET[:19], "refused_truncated"),
        (UDP_PACKET[:10] + b"\xab\xcd" + UDP_PACKET[12:], "refused_checksum"),
        (inner(UDP(), options=b"\x01" * 40)[:-9] + b"\x02" + bytes(8), "refused_checksum"),
    ],
    ids=short,
)
def test_what_is_no_ipv4_packet_is_refused(ends: Ends, packet: bytes, counter: str) -> None:
    ends.wire4.send(bytes(Ether(src=ROUTER4, dst=NIC4, type=0x0800)) + packet)
    assert ends.eth4.receive(0.2) is None
    assert {k: v for k, v in counters().items() if v and k.startswith("ref")} == {counter: 1}


class Marker:
    """What the shim makes of IPv4 packets, one after the other: the port bits of eth_src."""

    def __init__(self) -> None:
        self.program = Program(nic.program(Hook("eth6", "xdp", "softwire_in")) or 0)

    def __call__(self, packet: bytes, lwb4: str | None = None) -> str | None:
        """The mark as text; None if the packet is refused. From an lwB4, or the Internet."""
        if lwb4 is None:
            frame = bytes(Ether(src=ROUTER4, dst=NIC4, type=0x0800)) + packet
        else:
            outer = IPv6(src=lwb4, dst=str(AFTR), nh=4, hlim=0, plen=len(packet))
            frame = bytes(Ether(src=ROUTER6, dst=NIC6) / outer / Raw(packet))
        verdict, made = self.program.run(frame)
        if verdict == XDP_DROP:
            return None
        return (made[6:12] if lwb4 is None else made[64:70]).hex()


@pytest.fixture
def marker(ends: Ends) -> Iterator[Marker]:
    found = Marker()
    yield found
    found.program.close()


def piece(number: int, offset: int, size: int = 8, *, more: bool = True, proto: int = 17) -> bytes:
    """A fragment that is not the first, of packet ``number``."""
    flags = "MF" if more else 0
    return inner(Raw(bytes(size)), id=number, frag=offset // 8, flags=flags, proto=proto)


# Ports 0x0430 and 0x0035, wherever a packet comes from: source's side first.
FIRST_UDP = inner(UDP(sport=0x0430, dport=0x0035) / bytes(8), id=7, flags="MF")


@pytest.mark.parametrize("lwb4", [None, LWB4])
def test_later_fragments_have_the_ports_of_the_first(marker: Marker, lwb4: str | None) -> None:
    assert marker(FIRST_UDP, lwb4) == "000000000000"  # Open vSwitch sees them itself
    assert marker(piece(7, 16), lwb4) == "000000350430"
    assert marker(piece(7, 24, 3, more=False), lwb4) == "000000350430"
    # of another packet, protocol or softwire
    assert marker(piece(8, 16), lwb4) == "008000000000"
    assert marker(piece(7, 16, proto=6), lwb4) == "008000000000"
    assert marker(piece(7, 16), "2001:db8:b4::2") == "008000000000"


def test_fragments_of_an_echo_have_its_identifier(marker: Marker) -> None:
    echo = inner(ICMP(type=8, id=0x0437) / bytes(8), id=9, flags="MF")
    assert marker(echo) == "004000000437"
    assert marker(piece(9, 16, proto=1)) == "000004370437"


@pytest.mark.parametrize(
    ("first", "proto", "mark"),
    [(FIRST_UDP, 17, "008000000000"),
     (inner(ICMP(type=8, id=0x0437) / bytes(8), id=7, flags="MF"), 1, "00c000000437")],
)  # fmt: skip
def test_the_first_says_if_others_were_earlier(
    marker: Marker, first: bytes, proto: int, mark: str
) -> None:
    assert marker(piece(7, 16, proto=proto)) == "008000000000"
    assert marker(first) == mark
    assert marker(first) == f"00{int(mark[2:4], 16) & 0x7F:02x}{mark[4:]}"  # once


def test_fragments_of_a_protocol_without_ports_say_so(marker: Marker) -> None:
    assert marker(inner(Raw(bytes(16)), id=7, flags="MF", proto=47)) == "000000000000"
    assert marker(piece(7, 16, proto=47)) == "00c000000000"


@pytest.mark.parametrize(
    "packet", [piece(7, 65528), piece(7, 16, 9), piece(7, 16, 0, more=False), piece(7, 0, 0)]
)
def test_fragments_that_cannot_be_are_refused(marker: Marker, packet: bytes) -> None:
    assert marker(packet) is None
    assert counters()["refused_fragment"] == 1


def test_a_packet_ends_somewhere(marker: Marker) -> None:
    """However its fragments overlap: 16 bytes of the first, and 45 times 1448 make 65176."""
    assert marker(FIRST_UDP) is not None
    for _ in range(45):
        assert marker(piece(7, 16, 1448)) == "000000350430"
    assert marker(piece(7, 16, 1448)) is None
    assert counters()["refused_fragment"] == 1


def from_ovs(br: IPv6Address, packet: bytes, tag: int | None = None) -> bytes:
    """A frame as Open vSwitch sends it: the outer source is LOCAL's address, whatever br is."""
    mac = bytes.fromhex("024b") + (br_tag(br) if tag is None else tag).to_bytes(4, "big")
    ethernet = mac + bytes.fromhex("0204fe000001") + b"\x08\x00"
    body = bytes.fromhex("00006558") + ethernet + packet
    header = IPv6(src="2001:db8:1::1", dst=LWB4, nh=47, hlim=255, plen=len(body))
    return bytes(Ether(src=NIC6, dst=ROUTER6, type=0x86DD) / header) + body


@pytest.mark.parametrize("br", [AFTR, SECOND])
@pytest.mark.parametrize("size", [0, 1432])
def test_gre_leaves_as_a_softwire_packet(ends: Ends, br: IPv6Address, size: int) -> None:
    """1460 bytes of IPv4 fill a wire MTU of 1500: the GRE form is longer, and must pass."""
    packet = bytes(IP(src="198.51.100.200", dst="192.0.2.1", tos=0x28)
                   / UDP(sport=53, dport=1072) / bytes(size))  # fmt: skip
    ends.eth6.send(from_ovs(br, packet))
    expected = bytes(
        Ether(src=NIC6, dst=ROUTER6)
        / IPv6(src=str(br), dst=LWB4, nh=4, hlim=255, tc=0x28, plen=len(packet))
        / Raw(packet)
    )
    assert ends.wire6.receive() == expected
    assert counters()["translated_out"] == 1


def test_what_ethernet_added_is_left_out(ends: Ends) -> None:
    ends.eth6.send(from_ovs(AFTR, UDP_PACKET + b"\0" * 18))
    sent = ends.wire6.receive()
    assert sent is not None
    assert sent[18:20] == len(UDP_PACKET).to_bytes(2, "big")
    assert sent[54:] == UDP_PACKET


@pytest.mark.parametrize("size", [1433, 1472, 2000, 8000])
def test_what_does_not_fit_leaves_in_fragments(ends: Ends, size: int) -> None:
    """RFC 2473 section 7.2, RFC 8200 section 4.5. Of 1500 bytes 40 are the header, 8 the fragment
    header; what is left for the IPv4 packet is 1448 once it is a multiple of 8."""
    shim.attach(dataclasses.replace(INSTANCE, ipv4=dataclasses.replace(INSTANCE.ipv4, mtu=9000)))
    packet = bytes(IP(src="198.51.100.200", dst="192.0.2.1", tos=0x29, id=7)
                   / UDP(sport=53, dport=1072) / os.urandom(size))  # fmt: skip
    ends.eth6.send(from_ovs(SECOND, packet))
    pieces = [packet[at : at + 1448] for at in range(0, len(packet), 1448)]
    identifications = set()
    for number, piece in enumerate(pieces):
        frame = ends.wire6.receive()
        assert frame is not None
        identifications.add(frame[58:62])
        offset = number * 1448 | (number + 1 < len(pieces))
        header = bytes.fromhex("0400") + offset.to_bytes(2, "big") + frame[58:62]
        outer = IPv6(src=str(SECOND), dst=LWB4, nh=44, hlim=255, tc=0x29, plen=8 + len(piece))
        assert frame == bytes(Ether(src=NIC6, dst=ROUTER6) / outer / Raw(header + piece))
    assert ends.wire6.receive(0.1) is None
    assert len(identifications) == 1
    assert {k: counters()[k] for k in ("translated_out", "fragmented_out")} == {
        "translated_out": 1, "fragmented_out": 1,
    }  # fmt: skip


def test_what_would_make_too_many_fragments_is_refused(ends: Ends) -> None:
    run("ip", "link", "set", "eth6", "mtu", "30000")
    packet = bytes(IP(dst="192.0.2.1") / UDP(sport=53, dport=1072) / bytes(25000))
    ends.eth6.send(from_ovs(AFTR, packet))
    while ends.wire6.receive(0.2) is not None:
        pass
    assert counters()["refused_no_room"] == 1


def test_flow_labels_tell_flows_apart(ends: Ends) -> None:
    """RFC 6438 section 3: the same for all packets of a flow; for fragments, which do not all have
    the ports, the same for all fragments between two hosts."""
    side = dataclasses.replace(INSTANCE.ipv6, flow_label=FlowLabel.HASHED)
    shim.attach(dataclasses.replace(INSTANCE, ipv6=side))

    def label(packet: object) -> int:
        ends.eth6.send(from_ovs(AFTR, bytes(packet)))  # type: ignore[call-overload]
        sent = ends.wire6.receive()
        assert sent is not None
        return int.from_bytes(sent[15:18], "big") & 0xFFFFF

    ip = IP(src="198.51.100.200", dst="192.0.2.1")
    ports = [label(ip / UDP(sport=53, dport=port) / bytes(port % 7)) for port in range(1072, 1088)]
    assert len(set(ports)) == 16
    assert 0 not in ports
    assert ports[0] == label(ip / UDP(sport=53, dport=1072))
    assert ports[0] != label(ip / TCP(sport=53, dport=1072))
    first = label(IP(src="198.51.100.200", dst="192.0.2.1", flags="MF") / UDP(sport=53, dport=1072))
    later = label(IP(src="198.51.100.200", dst="192.0.2.1", proto=17, frag=1) / bytes(8))
    assert first == later


VLANS = dataclasses.replace(
    INSTANCE,
    ipv6=dataclasses.replace(INSTANCE.ipv6, vlan=100),
    ipv4=dataclasses.replace(INSTANCE.ipv4, vlan=200),
)


def tag_of(frame: bytes | None) -> int | None:
    if frame is None or frame[12:14] != b"\x81\x00":
        return None
    return int.from_bytes(frame[14:16], "big")


def test_tags_are_taken_off_and_put_on(ends: Ends) -> None:
    shim.attach(VLANS)
    program = Program(nic.program(Hook("eth6", "xdp", "softwire_in")) or 0)
    packet = bytes(Ether(src=ROUTER4, dst=NIC4, type=0x0800)) + UDP_PACKET
    marked = packet[:6] + bytes(6) + packet[12:]
    try:
        # The kernel takes tags away before a raw socket sees them: what comes in, without a wire.
        tagged = in_vlan(softwire(UDP_PACKET), 100)
        assert program.run(tagged) == (XDP_PASS, as_gre(softwire(UDP_PACKET)))
        assert program.run(in_vlan(packet, 200)) == (XDP_PASS, marked)
        priority = in_vlan(packet, 200 | 5 << 13)
        assert program.run(priority) == (XDP_PASS, marked)
        for foreign in (
            softwire(UDP_PACKET), packet, in_vlan(packet, 100), in_vlan(tagged, 100),
            in_vlan(softwire(UDP_PACKET), 200), in_vlan(in_vlan(packet, 200), 200),
        ):  # fmt: skip
            assert program.run(foreign)[0] == XDP_DROP
    finally:
        program.close()
    packet = bytes(IP(dst="192.0.2.1") / UDP(sport=53, dport=1072) / bytes(1472))
    ends.eth6.send(from_ovs(AFTR, packet))  # in two fragments
    ends.eth6.send(softwire(UDP_PACKET))
    assert [tag_of(ends.wire6.receive()) for _ in range(3)] == [100] * 3
    ends.eth4.send(bytes(Ether(src=NIC4, dst=ROUTER4, type=0x0800)) + UDP_PACKET)
    ends.eth4.send(bytes(Ether(src=NIC4, dst=ROUTER4, type=0x0806)) + bytes(46))
    assert [tag_of(ends.wire4.receive()) for _ in range(2)] == [200] * 2


def test_priority_tags_are_no_vlan(ends: Ends) -> None:
    program = Program(nic.program(Hook("eth6", "xdp", "softwire_in")) or 0)
    try:
        tagged = in_vlan(softwire(UDP_PACKET), 3 << 13)
        assert program.run(tagged) == (XDP_PASS, as_gre(softwire(UDP_PACKET)))
    finally:
        program.close()


def test_both_sides_share_a_nic(ends: Ends) -> None:
    shim.detach(INSTANCE)
    ipv4 = dataclasses.replace(INSTANCE.ipv4, port="eth6")
    stick = dataclasses.replace(INSTANCE, ipv4=ipv4)
    shim.attach(stick)
    try:
        assert shim.status(stick).attached
        ends.wire6.send(softwire(UDP_PACKET))
        assert ends.eth6.receive() == as_gre(softwire(UDP_PACKET))
        packet = bytes(Ether(src=ROUTER6, dst=NIC6, type=0x0800)) + UDP_PACKET
        ends.wire6.send(packet)
        assert ends.eth6.receive() == packet[:6] + bytes(6) + packet[12:]
        ends.eth6.send(packet[:6] + bytes(6) + packet[12:])
        assert (
            ends.wire6.receive() == packet[:6] + bytes.fromhex(NIC6.replace(":", "")) + packet[12:]
        )
        ends.eth6.send(from_ovs(SECOND, UDP_PACKET))
        sent = ends.wire6.receive()
        assert sent is not None
        assert sent[54:] == UDP_PACKET
    finally:
        shim.detach(stick)


def test_unknown_br_tag_is_refused(ends: Ends) -> None:
    """Without an error to the sender: Open vSwitch would drop what it sends along with it."""
    ends.eth6.send(from_ovs(AFTR, UDP_PACKET, tag=0x12345678))
    assert ends.wire6.receive(0.2) is None
    assert counters()["refused_unknown_br_tag"] == 1


def test_gso_packets_are_refused_whole(ends: Ends) -> None:
    program = Program(nic.program(Hook("eth6", "egress", "softwire_out")) or 0)
    try:
        assert program.run(from_ovs(AFTR, UDP_PACKET), gso_size=1200)[0] == TC_STOLEN
        assert program.run(softwire(UDP_PACKET), gso_size=1200) == (TC_OK, softwire(UDP_PACKET))
    finally:
        program.close()
    assert {k: v for k, v in counters().items() if v} == {"refused_gso": 1}


def test_other_frames_leave_untouched(ends: Ends) -> None:
    for frame in (
        softwire(UDP_PACKET),
        softwire(bytes.fromhex("00000800") + UDP_PACKET, nh=47, dst=LWB4),
        bytes(Ether(src=NIC6, dst=ROUTER6, type=0x0806)) + bytes(46),
    ):
        ends.eth6.send(frame)
        assert ends.wire6.receive() == frame


@pytest.mark.parametrize(
    "source",
    ["00:00:00:00:00:00", "3a:70:00:00:04:37", "fe:ff:ff:ff:ff:ff", "02:4a:00:00:00:00"],
)  # fmt: skip
def test_ipv4_nic_puts_its_own_address_back(ends: Ends, source: str) -> None:
    ends.eth4.send(bytes(Ether(src=source, dst=ROUTER4, type=0x0800)) + UDP_PACKET)
    assert ends.wire4.receive() == bytes(Ether(src=NIC4, dst=ROUTER4, type=0x0800)) + UDP_PACKET


def test_ipv4_nic_leaves_other_frames_alone(ends: Ends) -> None:
    out = bytes(Ether(src="02:4a:00:00:00:00", dst=ROUTER4, type=0x0806)) + bytes(46)
    ends.eth4.send(out)
    assert ends.wire4.receive() == out
    into = bytes(Ether(src="02:4b:00:00:00:00", dst=NIC4, type=0x0806)) + bytes(46)
    ends.wire4.send(into)
    assert ends.eth4.receive() == into


def test_addresses_change_while_packets_flow(ends: Ends) -> None:
    third = IPv6Address("2001:db8:ffff::3")
    ends.wire6.send(softwire(UDP_PACKET))
    assert ends.eth6.receive() == as_gre(softwire(UDP_PACKET))
    shim.attach(dataclasses.replace(INSTANCE, aftr_addresses=(SECOND, third)))
    assert shim.status(INSTANCE).addresses == (SECOND, third)
    assert counters()["translated_in"] == 1  # the same maps: nothing was loaded anew
    ends.wire6.send(softwire(UDP_PACKET))
    assert ends.eth6.receive() == softwire(UDP_PACKET)
    ends.wire6.send(softwire(UDP_PACKET, dst=third))
    assert ends.eth6.receive() == as_gre(softwire(UDP_PACKET, dst=third))


def test_a_newer_shim_replaces_an_older_one(
    ends: Ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "digest", lambda text: b"another!")
    monkeypatch.setattr(source, "CACHE", tmp_path)
    assert not shim.status(INSTANCE).current
    shim.attach(INSTANCE)
    assert shim.status(INSTANCE).current
    ends.wire6.send(softwire(UDP_PACKET))
    assert ends.eth6.receive() == as_gre(softwire(UDP_PACKET))
    assert counters()["translated_in"] == 1


def compiled(directory: Path, section: str) -> str:
    """Somebody else's program, which passes everything (XDP_PASS is 2; tc takes 2 for a drop,
    which does not matter here)."""
    source, target = directory / "other.c", directory / "other.o"
    source.write_text(f'__attribute__((section("{section}"))) int other(void *c) {{ return 2; }}')
    run("clang", "-O2", "-g", "-target", "bpf", "-c", str(source), "-o", str(target))
    return str(target)


def state() -> list[str]:
    return [
        run("ip", "link", "show", device).stdout.split("\n")[0] for device in ("eth6", "eth4")
    ] + [run("tc", "qdisc", "show", "dev", device).stdout for device in ("eth6", "eth4")]


@pytest.mark.parametrize(("mtu", "attached_mtu"), [(1480, 1558), (1500, 1558), (1600, 1600)])
def test_detach_leaves_nothing(
    place: str, mtu: int, attached_mtu: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The MTU is the one there was, not the one the configuration names; and it is only raised."""
    monkeypatch.setattr(shim, "RUN", tmp_path)
    run("ip", "link", "set", "eth6", "mtu", str(mtu))
    before = state()
    for _ in range(2):
        shim.attach(INSTANCE)
    assert shim.status(INSTANCE).attached
    assert f"mtu {attached_mtu} " in run("ip", "link", "show", "eth6").stdout
    for _ in range(2):
        shim.detach(INSTANCE)
    assert state() == before
    assert not shim.status(INSTANCE).attached
    assert not list(tmp_path.iterdir())


def test_what_is_not_ours_is_kept(place: str, tmp_path: Path) -> None:
    run("tc", "qdisc", "add", "dev", "eth4", "clsact")
    run("tc", "qdisc", "add", "dev", "eth6", "clsact")
    other = compiled(tmp_path, "tc")
    run("tc", "filter", "add", "dev", "eth6", "egress", "pref", "7", "bpf", "da", "obj", other,
        "sec", "tc")  # fmt: skip
    before = run("tc", "filter", "show", "dev", "eth6", "egress").stdout
    shim.attach(INSTANCE)
    shim.detach(INSTANCE)
    assert run("tc", "filter", "show", "dev", "eth6", "egress").stdout == before
    assert "clsact" in run("tc", "qdisc", "show", "dev", "eth4").stdout
    for device in ("eth6", "eth4"):
        run("tc", "qdisc", "del", "dev", device, "clsact")


def test_a_filter_at_our_place_is_not_replaced(place: str, tmp_path: Path) -> None:
    run("tc", "qdisc", "add", "dev", "eth6", "clsact")
    run("tc", "filter", "add", "dev", "eth6", "egress", "pref", nic.PREF, "bpf", "da", "obj",
        compiled(tmp_path, "tc"), "sec", "tc")  # fmt: skip
    try:
        with pytest.raises(ShimError, match="eth6 already has another tc filter"):
            shim.attach(INSTANCE)
    finally:
        run("tc", "qdisc", "del", "dev", "eth6", "clsact")


def test_a_failed_attach_takes_everything_back(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state()
    beyond = dataclasses.replace(INSTANCE.ipv6, mtu=65_530)  # veth takes 65535
    with pytest.raises(ShimError, match="eth6 does not take an MTU of 65548"):
        shim.attach(dataclasses.replace(INSTANCE, ipv6=beyond))
    assert state() == before
    assert not any(hook.attached for hook in shim.status(INSTANCE).hooks)


def test_what_somebody_took_off_is_put_back(ends: Ends) -> None:
    run("ip", "link", "set", "eth6", "xdp", "off")
    partly = shim.status(INSTANCE)
    assert [h.hook.program for h in partly.hooks if not h.attached] == ["softwire_in"]
    shim.attach(INSTANCE)
    assert shim.status(INSTANCE).attached
    ends.wire6.send(softwire(UDP_PACKET))
    assert ends.eth6.receive() == as_gre(softwire(UDP_PACKET))


def test_kernel_datapath_keeps_its_ingress(place: str) -> None:
    """Also when the shim served the userspace datapath before."""
    kernel = dataclasses.replace(INSTANCE, datapath=Datapath.KERNEL)
    shim.attach(INSTANCE)
    shim.attach(kernel)
    try:
        assert shim.status(kernel).attached
        for device in ("eth6", "eth4"):
            assert run("tc", "filter", "show", "dev", device, "ingress").stdout == ""
    finally:
        shim.detach(kernel)


def test_status_command(
    ends: Ends, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "instances", lambda args: [INSTANCE])
    ends.wire6.send(softwire(UDP_PACKET))
    assert ends.eth6.receive() is not None
    assert cli.run(argparse.Namespace(action="status", json=True)) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["instance"] == "lwaftr1"
    assert report["counters"]["translated_in"] == 1
    assert report["addresses"] == [str(AFTR), str(SECOND)]
    assert {hook["mode"] for hook in report["hooks"]} == {"native", ""}
    assert cli.run(argparse.Namespace(action="detach")) == 0
    assert cli.run(argparse.Namespace(action="status", json=False)) == 1
    assert "softwire_in    MISSING" in capsys.readouterr().out


def missing_interface(monkeypatch: pytest.MonkeyPatch) -> Instance:
    return dataclasses.replace(INSTANCE, ipv4=dataclasses.replace(INSTANCE.ipv4, port="eth9"))


def missing_clang(monkeypatch: pytest.MonkeyPatch) -> Instance:
    tools = Path(os.environ["PYTEST_TMP"]) / "tools"
    tools.mkdir(exist_ok=True)
    for tool in ("ip", "tc", "bpftool", "mount", "umount"):
        (tools / tool).unlink(missing_ok=True)
        (tools / tool).symlink_to(shutil.which(tool) or f"/usr/sbin/{tool}")
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setattr(source, "CACHE", tools / "cache")
    return INSTANCE


def not_root(monkeypatch: pytest.MonkeyPatch) -> Instance:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return INSTANCE


@pytest.mark.parametrize(
    ("fault", "reason", "suggestion"),
    [
        (missing_interface, "there is no interface eth9", "ip link"),
        (missing_clang, "clang is not installed", "apt-get install clang"),
        (not_root, "only root may load BPF programs", "sudo"),
    ],
)
def test_what_is_missing_is_said(
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[pytest.MonkeyPatch], Instance],
    reason: str,
    suggestion: str,
) -> None:
    monkeypatch.setenv("PYTEST_TMP", str(tmp_path))
    instance = fault(monkeypatch)
    with pytest.raises(ShimError) as caught:
        shim.attach(instance)
    assert reason in caught.value.reason
    assert suggestion in caught.value.suggestion
    monkeypatch.undo()
    assert not shim.status(INSTANCE).attached


def test_a_foreign_xdp_program_is_not_replaced(place: str, tmp_path: Path) -> None:
    run("ip", "link", "set", "eth4", "xdp", "obj", compiled(tmp_path, "xdp"), "sec", "xdp")
    try:
        with pytest.raises(ShimError, match="another XDP program"):
            shim.attach(INSTANCE)
    finally:
        run("ip", "link", "set", "eth4", "xdp", "off")
