"""Outer headers as the shim reads and makes them."""

from __future__ import annotations

import struct
import sys

from openflow_rules.marks import mark as mark_of
from openflow_rules.tables import Mark
from ryu_lw4o6.core import ipv6

_ENCAPSULATION_LIMIT = bytes.fromhex("0400 0401 04 010100")
"""Destination options before IPv4 (RFC 8200 section 4.6): tunnel encapsulation limit 4, PadN, as
tunnel drivers write them (RFC 2473 sections 4.1.1 and 6.6). The limit itself is not handed on."""

_IPIP, _TCP, _UDP = 4, 6, 17
_DESTINATION_OPTIONS = 60
_MORE_FRAGMENTS, _OFFSET = 0x2000, 0x1FFF
_WORD = 0xFFFFFFFF


def softwire_packet(frame: bytes, lwb4: bytes, br_address: bytes) -> bytes:
    """The IPv6 packet with its outer header as it was on the wire (RFC 2473 section 3).

    ``frame`` is the inner Ethernet frame as the shim made it: softwire.bpf.c says which bits of
    its header are what; the addresses are 16 bytes each. Of a packet that holds an ICMP error, or a
    later fragment, the flow label is lost, and given as 0.
    """
    limited, traffic_class = frame[4], frame[5]
    mark = int.from_bytes(frame[6:12], "big")
    payload = frame[14:]
    hop_limit = mark >> 36 & 0b11 | mark >> 41 - 2 & 0b100 | mark >> 43 - 3 & 0b11111000
    label = (mark >> 32 & 0xF) << 16 | mark >> 16 & 0xFFFF
    is_later = int.from_bytes(payload[6:8], "big") & 0x1FFF
    if (is_later or payload[9:10] == b"\x01") and not mark & (Mark.ECHO | Mark.NO_PORTS):
        label = 0  # ports are where it would be
    next_header = _IPIP
    if limited:
        next_header, payload = _DESTINATION_OPTIONS, _ENCAPSULATION_LIMIT + payload
    first = 6 << 28 | traffic_class << 20 | label
    header = struct.pack("!IHBB", first, len(payload), next_header, hop_limit)
    return b"".join((header, lwb4, br_address, payload))


def softwire_frame(packet: bytes, outer: ipv6.Header, limited: bool, softwire_mtu: int) -> bytes:
    """The frame that the shim would have made of an IPv4 packet in a softwire packet."""
    own, label, hops = mark_of(packet, upstream=True), outer.label, outer.hop_limit
    if packet[9:10] != b"\x01" or own & (Mark.ECHO | Mark.NO_PORTS):
        own |= (label & 0xFFFF) << 16
    own |= label >> 16 << 32
    own |= (hops & 0b11) << 36 | (hops & 0b100) << 41 - 2 | (hops & 0b11111000) << 43 - 3
    if len(packet) > softwire_mtu and packet[6] & 0x40:
        own |= Mark.TOO_BIG
    destination = b"\x02\x4b\0\0" + bytes([limited, outer.traffic_class])
    return destination + own.to_bytes(6, "big") + b"\x08\x00" + packet


def hashed_flow_label(packet: bytes) -> int:
    """The flow label of the softwire packet that an IPv4 packet becomes (RFC 6438 section 3), as
    flow_label() in encapsulate.h has it."""
    header = (packet[0] & 0xF) * 4
    in_fragments = int.from_bytes(packet[6:8], "big") & (_MORE_FRAGMENTS | _OFFSET)
    found = _word(packet, 12) * 0x9E3779B1 & _WORD
    found = (found ^ _word(packet, 16)) * 0x85EBCA6B & _WORD
    found ^= found >> 15
    if not in_fragments and packet[9] in (_TCP, _UDP) and len(packet) >= header + 4:
        found ^= _word(packet, header)
    found = (found ^ packet[9]) * 0xC2B2AE35 & _WORD
    found ^= found >> 13
    return found & 0xFFFFF or 1  # 0 means none


def _word(packet: bytes, at: int) -> int:
    return int.from_bytes(packet[at : at + 4], sys.byteorder)
