"""ICMP errors as bytes: what the lwAFTR says about packets it cannot forward.

Both kinds quote the packet they are about, as much of it as the RFCs allow.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

from ryu_lw4o6.core.ethernet import checksum

HOP_LIMIT = 64
ECHO_REPLY, ECHO_REQUEST = 0, 8
UNREACHABLE, TIME_EXCEEDED = 3, 11
HOST_UNREACHABLE, PROTOCOL_UNREACHABLE = 1, 2  # codes of UNREACHABLE
PORT_UNREACHABLE, FRAGMENTATION_NEEDED = 3, 4
TTL_EXCEEDED, REASSEMBLY_TIME_EXCEEDED = 0, 1  # codes of TIME_EXCEEDED
_IPV6_MIN_MTU = 1280  # an ICMPv6 error is no longer than that (RFC 4443 section 2.4 c)
_ICMPV4_LIMIT = 576  # nor an ICMPv4 error than that (RFC 1812 section 4.3.2.3)
_NO_ERROR_ABOUT = {3, 4, 5, 11, 12}  # ICMPv4 errors (RFC 1122 section 3.2.2)
_DF, _OFFSET = 0x4000, 0x1FFF
_MULTICAST = 0xFF  # the first byte of such an address (RFC 4291 section 2.7)
_UNSPECIFIED, _LOOPBACK = bytes(16), (1).to_bytes(16, "big")
_PSEUDO = struct.Struct("!II")
_IPV6 = struct.Struct("!IHBB")


def icmpv6(
    source: bytes,
    destination: bytes,
    kind: int,
    code: int,
    body: bytes,
    *,
    hop_limit: int = HOP_LIMIT,
) -> bytes:
    """An IPv6 packet with an ICMPv6 message between two addresses of 16 bytes each; ``body`` is
    what follows the checksum."""
    length = 4 + len(body)
    start = bytes((kind, code))
    # The pseudo-header (RFC 8200 section 8.1), in another order: a sum does not mind.
    total = checksum(b"".join((source, destination, _PSEUDO.pack(length, 58), start, body)))
    header = _IPV6.pack(6 << 28, length, 58, hop_limit)
    return b"".join((header, source, destination, start, total.to_bytes(2, "big"), body))


def is_single_node(source: bytes) -> bool:
    """Whether an ICMPv6 error may be sent to ``source``, of 16 bytes (RFC 4443 section 2.4 e.6)."""
    return source[0] != _MULTICAST and source not in (_UNSPECIFIED, _LOOPBACK)


def softwire_refused(packet: bytes) -> bytes:
    """ICMPv6 destination unreachable, source address failed ingress/egress policy (type 1 code 5,
    RFC 7596 section 6.2, RFC 4443 section 3.1), about a softwire packet, from the address it was
    sent to."""
    return _icmpv6_error(packet, 1, 5)


def softwire_reassembly_timed_out(fragment: bytes) -> bytes:
    """ICMPv6 time exceeded, fragment reassembly time exceeded (RFC 4443 section 3.3), about the
    first fragment of a softwire packet."""
    return _icmpv6_error(fragment, 3, 1)


def _icmpv6_error(packet: bytes, kind: int, code: int) -> bytes:
    """About an IPv6 packet, from where it was sent to (RFC 4443 section 2.2)."""
    room = _IPV6_MIN_MTU - 40 - 8
    return icmpv6(packet[24:40], packet[8:24], kind, code, bytes(4) + packet[:room])


def ipv4_packet(frame: bytes) -> bytes | None:
    """The IPv4 packet in an untagged frame, without padding; None if there is no sound one."""
    packet = frame[14:]
    if frame[12:14] != b"\x08\x00" or len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    (total,) = struct.unpack_from("!H", packet, 2)
    header = (packet[0] & 0xF) * 4
    return packet[:total] if header >= 20 and total >= header else None


def may_answer(packet: bytes) -> bool:
    """Whether an ICMPv4 error may be sent about ``packet`` (RFC 1122 section 3.2.2): not about an
    ICMP error, a fragment that is not the first, or a packet no single host sent (class E, which
    is 240.0.0.0/4, included)."""
    (fragment,) = struct.unpack_from("!H", packet, 6)
    source = IPv4Address(packet[12:16])
    destination = IPv4Address(packet[16:20])
    if fragment & _OFFSET or source.is_multicast or source.is_unspecified or source.is_loopback:
        return False
    if source.is_reserved or destination.is_multicast:
        return False
    header = (packet[0] & 0xF) * 4
    return packet[9] != 1 or (len(packet) > header and packet[header] not in _NO_ERROR_ABOUT)


def error(
    own: IPv4Address,
    packet: bytes,
    kind: int,
    code: int,
    *,
    mtu: int = 0,
    ttl: int = HOP_LIMIT,
) -> bytes:
    """An ICMPv4 error about ``packet`` (RFC 792), as it was received (RFC 1812 section 4.3.2.3).
    ``mtu`` is the next hop's, for fragmentation needed (RFC 1191 section 4). With DF, no two need
    different identifications (RFC 6864 section 4.1)."""
    quoted = packet[: _ICMPV4_LIMIT - 20 - 8]
    message = struct.pack("!BBHHH", kind, code, 0, 0, mtu) + quoted
    message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    # Precedence 6, internetwork control (RFC 1812 section 4.3.2.5).
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0xC0, 20 + len(message), 0, _DF, ttl, 1, 0,
        own.packed, packet[12:16],
    )  # fmt: skip
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return header + message


def echo_reply(packet: bytes, ttl: int) -> bytes | None:
    """The answer to a whole IPv4 packet, if it is an echo request whose checksum is right (RFC 1122
    section 3.2.2.6): with its header, but for addresses and ``ttl``, and its data."""
    length = (packet[0] & 0xF) * 4
    message = packet[length:]
    if packet[9] != 1 or len(message) < 8 or message[0] != ECHO_REQUEST or checksum(message):
        return None
    message = bytes((ECHO_REPLY, message[1], 0, 0)) + message[4:]
    message = message[:2] + struct.pack("!H", checksum(message)) + message[4:]
    options = packet[20:length]
    header = packet[:8] + bytes((ttl, 1, 0, 0)) + packet[16:20] + packet[12:16] + options
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return header + message
