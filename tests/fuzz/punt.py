"""What the controller makes of any frame, whatever the switch shows: a sound ICMP error or nothing.

``frame_is_answered`` takes bytes from Hypothesis (test_punt.py) or from atheris.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface

from openflow_rules.encode import pipeline_fields
from openflow_rules.marks import own_error_frame
from openflow_rules.tables import CookieClass, Drop, cookie
from ryu_lw4o6 import punt
from ryu_lw4o6.core.binding import Prefix
from ryu_lw4o6.core.ethernet import checksum
from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.core.settings import Instance, Ipv4Side, Ipv6Side

OWN4 = IPv4Address("198.51.100.1")
LWB4, ANYCAST = IPv6Address("2001:db8:b4::1"), IPv6Address("2001:db8:ffff::1")
INSTANCE = Instance(
    name="lwaftr1",
    datapath_id=1,
    ipv6=Ipv6Side("eth6", IPv6Interface("2001:db8:1::1/64")),
    ipv4=Ipv4Side("eth4", IPv4Interface("198.51.100.1/24"), IPv4Address("198.51.100.254")),
    aftr_addresses=(ANYCAST,),
    prefixes=(Prefix(IPv4Network("192.0.2.0/24"), PortParams(6, 6)),),
)
REASONS = [cookie(CookieClass.DROP, drop) for drop in Drop]
_OUTER = (
    struct.pack("!I", 1 << 16 | 109 << 9 | 16) + LWB4.packed
    + struct.pack("!I", 1 << 16 | 110 << 9 | 16) + ANYCAST.packed
)  # fmt: skip
"""tun_ipv6_src and tun_ipv6_dst as a packet-in has them."""


def frame_is_answered(data: bytes) -> None:
    """``data`` is the number of a reason, and a frame. Raises AssertionError for an answer that
    is none of ours to give."""
    if not data:
        return
    frame, reason = data[1:], REASONS[data[0] % len(REASONS)]
    answer = punt.icmp_answer(INSTANCE, reason, frame)
    if answer is not None:
        check_icmpv4(answer, frame)
        if punt.goes_to_lwb4(INSTANCE, answer):
            assert own_error_frame(answer)[14:] == answer
    softwire = pipeline_fields(_OUTER).softwire
    assert softwire == (LWB4, ANYCAST)
    error = punt.lwb4_answer(frame, LWB4.packed, ANYCAST.packed)
    if error is not None:
        check_icmpv6(error, frame)
    outer = pipeline_fields(data)  # fields that make no sense
    for address in (outer.tunnel_source, outer.tunnel_destination):
        assert address is None or len(address) == 16


def check_icmpv4(answer: bytes, frame: bytes) -> None:
    """RFC 792, RFC 1122 section 3.2.2, RFC 1812 section 4.3.2."""
    packet = frame[14:]
    assert len(answer) == int.from_bytes(answer[2:4], "big") <= 576
    assert answer[0] == 0x45
    assert checksum(answer[:20]) == 0
    assert checksum(answer[20:]) == 0
    assert answer[12:16] == OWN4.packed
    assert answer[16:20] == packet[12:16]
    assert (answer[20], answer[21]) in {(3, 1), (3, 2), (3, 3), (3, 4), (11, 0)}
    assert (answer[20], answer[21]) != (3, 2 if packet[9] == 17 else 3)  # RFC 1122 section 3.2.2.1
    assert packet.startswith(answer[28:])
    # A shown frame may be cut short.
    assert len(answer) - 28 == min(548, int.from_bytes(packet[2:4], "big"), len(packet))
    source = IPv4Address(packet[12:16])
    assert not any((source.is_multicast, source.is_loopback, source.is_unspecified))
    assert int.from_bytes(packet[6:8], "big") & 0x1FFF == 0  # no later fragment
    header = (packet[0] & 15) * 4
    assert packet[9] != 1 or packet[header] not in {3, 4, 5, 11, 12}


def check_icmpv6(error: bytes, frame: bytes) -> None:
    """RFC 4443 sections 2.4 and 3.1, RFC 2473 section 3."""
    assert len(error) == 40 + int.from_bytes(error[4:6], "big") <= 1280
    assert (error[6], error[40], error[41]) == (58, 1, 5)
    assert (error[8:24], error[24:40]) == (ANYCAST.packed, LWB4.packed)
    message = error[40:]
    pseudo = error[8:40] + struct.pack("!II", len(message), 58)
    assert checksum(pseudo + message) == 0
    quoted = message[8:]
    assert quoted[8:40] == LWB4.packed + ANYCAST.packed
    assert quoted[6] in (4, 60)
    inner = quoted[48:] if quoted[6] == 60 else quoted[40:]
    assert frame[14:].startswith(inner)
