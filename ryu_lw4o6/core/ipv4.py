"""IPv4 packets as bytes, as far as the controller has to change them (RFC 791)."""

from __future__ import annotations

import struct

from ryu_lw4o6.core.ethernet import checksum

DF, MF, OFFSET = 0x4000, 0x2000, 0x1FFF
LONGEST = 65535
_CE, _ECT_1, _ECT_0 = 3, 1, 2
_LINK_LOCAL = bytes([169, 254])


def header_length(packet: bytes) -> int:
    return (packet[0] & 0xF) * 4


def is_sound(packet: bytes) -> bool:
    """Whether version, lengths and header checksum are right (RFC 1812 section 5.2.2)."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return False
    (total,) = struct.unpack_from("!H", packet, 2)
    length = header_length(packet)
    return 20 <= length <= total <= len(packet) and checksum(packet[:length]) == 0


def is_martian(address: bytes) -> bool:
    """Whether no packet may come from, or go to, an address: this network, loopback, multicast,
    limited broadcast (RFC 1812 sections 5.3.5 and 5.3.7), link-local (RFC 3927 section 7)."""
    if address[0] in (0, 127) or address[:2] == _LINK_LOCAL:
        return True
    return address[0] >> 4 == 0xE or address == b"\xff" * 4


def fragment_field(packet: bytes) -> int:
    """Flags and offset."""
    (field,) = struct.unpack_from("!H", packet, 6)
    return int(field)


def out_of_tunnel(packet: bytes, traffic_class: int, *, outer_dscp: bool) -> bytes | None:
    """The packet with the ECN field that it leaves a tunnel with (RFC 6040 section 4.2), and the
    DSCP of the inner or the outer header; None if it is to be dropped."""
    inner, outer = packet[1] & 3, traffic_class & 3
    ecn = inner
    if outer == _CE:
        if not inner:
            return None
        ecn = _CE
    elif (outer, inner) == (_ECT_1, _ECT_0):
        ecn = _ECT_1
    tos = (traffic_class if outer_dscp else packet[1]) & 0xFC | ecn
    return packet if tos == packet[1] else _with(packet, 1, bytes([tos]))


def one_hop_on(packet: bytes) -> bytes:
    """The packet with its TTL one less."""
    return _with(packet, 8, bytes([packet[8] - 1]))


def reassembled(header: bytes, data: bytes) -> bytes | None:
    """The packet that fragments make, the first of which has this ``header`` (RFC 791 section
    3.2); None if it is longer than one can be."""
    total = len(header) + len(data)
    if total > LONGEST:
        return None
    return _with(header, 2, struct.pack("!H2sH", total, header[4:6], 0)) + data


def in_fragments(packet: bytes, mtu: int) -> list[bytes]:
    """The packet in fragments of at most ``mtu`` bytes (RFC 791 section 3.2); it has no DF."""
    length = header_length(packet)
    (total,) = struct.unpack_from("!H", packet, 2)
    size = (mtu - length) & ~7
    field = fragment_field(packet)
    offset, last = field & OFFSET, not field & MF
    made = []
    header = packet[:length]
    for at in range(length, total, size):
        data = packet[at : min(at + size, total)]
        more = MF if at + size < total or not last else 0
        place = offset + (at - length) // 8
        if at > length:
            options = _copied(packet[20:length])
            header = bytes([0x40 | 5 + len(options) // 4]) + packet[1:20] + options
        header = _with(header, 2, struct.pack("!H", len(header) + len(data)))
        made.append(_with(header, 6, struct.pack("!H", more | place)) + data)
    return made


def _copied(options: bytes) -> bytes:
    """The options that every fragment has, padded (RFC 791 section 3.1)."""
    kept = b""
    while options and options[0]:
        length = 1 if options[0] == 1 else options[1] if len(options) > 1 else 0
        if length < 1 or length > len(options) or (options[0] != 1 and length < 2):
            break
        if options[0] & 0x80:
            kept += options[:length]
        options = options[length:]
    return kept + bytes(-len(kept) % 4)


def _with(packet: bytes, at: int, value: bytes) -> bytes:
    """The packet with some bytes of its header replaced, and the checksum right again."""
    length = header_length(packet)
    header = packet[:at] + value + packet[at + len(value) : length]
    header = header[:10] + b"\0\0" + header[12:]
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return header + packet[length:]
