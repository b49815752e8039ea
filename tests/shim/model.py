"""What the shim is to do with a frame, in plain Python, written from the RFCs.

Slow and obvious where softwire.bpf.c is fast; the tests hold one against the other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

EXTENSIONS = {0, 43, 44, 51, 60}  # hop-by-hop, routing, fragment, authentication, destination
TEB = bytes.fromhex("00006558")
ECHO, NO_PORTS, TOO_BIG = 1 << 38, 1 << 39, 1 << 42  # bits of eth_src
SOFTWIRE_MTU = 1460

CONGESTION = {
    (0, 0): 0, (0, 1): 0, (0, 2): 0, (0, 3): None,
    (1, 0): 1, (1, 1): 1, (1, 2): 1, (1, 3): 3,
    (2, 0): 2, (2, 1): 1, (2, 2): 2, (2, 3): 3,
    (3, 0): 3, (3, 1): 3, (3, 2): 3, (3, 3): 3,
}  # fmt: skip
"""RFC 6040 section 4.2, figure 4: inner and outer ECN field, and the inner one that goes on."""


def with_ecn(packet: bytes, ecn: int) -> bytes:
    """An IPv4 packet with another ECN field, and its checksum changed by as much."""
    changed = packet[:1] + bytes([packet[1] & 0xFC | ecn])
    if changed == packet[:2]:
        return packet
    words = (~packet[10] << 8 | ~packet[11] & 0xFF) & 0xFFFF
    words += (~int.from_bytes(packet[:2], "big") & 0xFFFF) + int.from_bytes(changed, "big")
    while words >> 16:
        words = (words & 0xFFFF) + (words >> 16)
    return changed + packet[2:10] + (~words & 0xFFFF).to_bytes(2, "big") + packet[12:]


def wire_to_ovs(frame: bytes, addresses: Collection[bytes]) -> bytes | None:
    """The frame that Open vSwitch is to see; None for one that is refused."""
    tagged, at = False, 12
    while at < 20 and frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        tagged, at = True, at + 4
    ipv6 = frame[at + 2 : at + 42]
    if len(frame) < 54 or frame[at : at + 2] != b"\x86\xdd" or len(ipv6) < 40:
        return frame
    next_header, payload_length = ipv6[6], int.from_bytes(ipv6[4:6], "big")
    if next_header not in EXTENSIONS | {4, 47} or ipv6[24:40] not in addresses:
        return frame
    if tagged:
        return None
    rest = frame[54:]
    limited = False
    if next_header == 60:
        if len(rest) < 8 or payload_length < 8:
            return None
        if rest[0] == 4:
            if rest[1] or not _may_skip(rest[2:8]):
                return None
            limited = rest[2] == 4
            rest, next_header, payload_length = rest[8:], 4, payload_length - 8
    if next_header != 4:
        return None if _leads_to_gre(next_header, rest) else frame
    if not _is_ipv4(rest, payload_length) or payload_length > 0xFFFF - 18:
        return None
    congestion = CONGESTION[rest[1] & 3, ipv6[1] >> 4 & 3]
    if congestion is None:
        return None
    rest = with_ecn(rest, congestion)
    first, hop_limit = int.from_bytes(ipv6[:4], "big"), ipv6[7]
    ipv6 = ipv6[:4] + (payload_length + 18).to_bytes(2, "big") + bytes([47]) + ipv6[7:]
    inner = bytes.fromhex("024b0000") + bytes([limited, first >> 20 & 0xFF])
    inner += mark(rest, first & 0xFFFFF, hop_limit) + b"\x08\x00"
    return frame[:14] + ipv6 + TEB + inner + rest


def internet_to_ovs(frame: bytes) -> bytes:
    """The same on the IPv4 NIC."""
    if len(frame) < 34 or frame[12:14] != b"\x08\x00":
        return frame
    return frame[:6] + mark(frame[14:]) + frame[12:]


def ovs_to_wire(frame: bytes, br_addresses: Mapping[int, bytes]) -> bytes | None:
    """The frame that leaves by the IPv6 NIC; None for one that is refused."""
    if len(frame) < 72 or frame[12:14] != b"\x86\xdd" or frame[20] != 47:
        return frame
    if frame[54:60] != TEB + b"\x02\x4b":
        return frame
    source = br_addresses.get(int.from_bytes(frame[60:64], "big"))
    length = int.from_bytes(frame[18:20], "big")
    if source is None or length < 38 or len(frame) < 74:
        return None
    tos = frame[73]
    ipv6 = bytes([0x60 | tos >> 4, (tos & 0xF) << 4 | frame[15] & 0xF]) + frame[16:18]
    ipv6 += (length - 18).to_bytes(2, "big") + b"\x04" + frame[21:22] + source
    return frame[:14] + ipv6 + frame[38:54] + frame[72:]


def _may_skip(options: bytes) -> bool:
    """Whether these options fill their space exactly and none forbids skipping (RFC 8200 4.2)."""
    while options:
        if options[0] & 0xC0:
            return False
        if options[0] == 0:
            options = options[1:]
        elif len(options) < 2 or len(options) < 2 + options[1]:
            return False
        else:
            options = options[2 + options[1] :]
    return True


def _leads_to_gre(next_header: int, rest: bytes) -> bool:
    for _ in range(6):
        if next_header not in EXTENSIONS:
            break
        if len(rest) < 8:
            return False
        if next_header == 44:
            if int.from_bytes(rest[2:4], "big") >> 3:
                return rest[0] == 47
            length = 8
        else:
            length = (rest[1] + 2) * 4 if next_header == 51 else (rest[1] + 1) * 8
        next_header, rest = rest[0], rest[length:]
    return next_header == 47 or next_header in EXTENSIONS


def _is_ipv4(packet: bytes, payload_length: int) -> bool:
    if len(packet) < 20 or payload_length < 20 or packet[0] >> 4 != 4:
        return False
    header, total = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big")
    return 20 <= header <= total <= payload_length <= len(packet)


def mark(packet: bytes, label: int = 0, hop_limit: int = 0) -> bytes:
    """eth_src for an IPv4 packet, with the outer header's flow label and hop limit."""
    found = icmp_mark(packet) if packet[9] == 1 else 0
    if packet[9] != 1 or found & (ECHO | NO_PORTS):
        found |= (label & 0xFFFF) << 16
    found |= (label >> 16) << 32
    for bit, place in enumerate((36, 37, 41, 43, 44, 45, 46, 47)):
        found |= (hop_limit >> bit & 1) << place
    if int.from_bytes(packet[2:4], "big") > SOFTWIRE_MTU:
        found |= TOO_BIG
    return found.to_bytes(6, "big")


def icmp_mark(packet: bytes) -> int:
    """eth_src for an ICMPv4 packet: far port, near port (RFC 7596 8.1)."""
    upper = _upper_layer(packet)
    if upper is None:
        return NO_PORTS
    if upper[0] in (0, 8):
        return ECHO | int.from_bytes(upper[4:6], "big")
    if upper[0] not in (3, 11, 12):
        return NO_PORTS
    quoted = upper[8:]
    if len(quoted) < 20 or quoted[0] >> 4 != 4:
        return NO_PORTS
    ports = _upper_layer(quoted)
    if ports is None:
        return NO_PORTS
    if quoted[9] in (6, 17, 33, 132, 136):
        return int.from_bytes(ports[:4], "big")
    if quoted[9] == 1 and ports[0] in (0, 8):
        return int.from_bytes(ports[4:6] * 2, "big")
    return NO_PORTS


def _upper_layer(packet: bytes) -> bytes | None:
    """What follows the IPv4 header, at least 8 bytes of it, unless it is a later fragment."""
    header = (packet[0] & 15) * 4
    fragment_offset = int.from_bytes(packet[6:8], "big") & 0x1FFF
    if header < 20 or fragment_offset or len(packet) < header + 8:
        return None
    return packet[header:]
