"""What the shim is to do with a frame, in plain Python, written from the RFCs.

Slow and obvious where softwire.bpf.c is fast; the tests hold one against the other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from ipaddress import IPv4Address, IPv4Network

EXTENSIONS = {0, 43, 44, 51, 60}  # hop-by-hop, routing, fragment, authentication, destination
TEB = bytes.fromhex("00006558")
SNAP = bytes.fromhex("aaaa03 000000")
ECHO, NO_PORTS, TOO_BIG = 1 << 38, 1 << 39, 1 << 42  # bits of eth_src
SOFTWIRE_MTU, IPV4_MTU = 1460, 1500


def into_ovs(
    frame: bytes, addresses: Collection[bytes], vlan6: int = 0, vlan4: int = 0
) -> bytes | None:
    """The frame that Open vSwitch is to see; None for one that is refused."""
    if len(frame) < 18:
        return frame
    if (untagged := _without_tag(frame, vlan6, vlan4)) is None:
        return None
    if untagged[12:14] == b"\x86\xdd":
        return wire_to_ovs(untagged, addresses)
    if int.from_bytes(untagged[12:14], "big") < 1536 and untagged[14:20] == SNAP:
        return None  # Open vSwitch would find the Ethernet type behind it (RFC 1042)
    return internet_to_ovs(untagged) if untagged[12:14] == b"\x08\x00" else untagged


def _without_tag(frame: bytes, vlan6: int, vlan4: int) -> bytes | None:
    """The frame without the tag that its side has; None if it is of another VLAN (802.1Q)."""
    tags = (b"\x81\x00", b"\x88\xa8")
    vlan, kind = 0, frame[12:14]
    if tagged := kind in tags:
        vlan, kind = int.from_bytes(frame[14:16], "big") & 0xFFF, frame[16:18]
    if kind in tags or vlan != (vlan6 if kind == b"\x86\xdd" else vlan4):
        return None
    return frame[:12] + frame[16:] if tagged else frame


def wire_to_ovs(frame: bytes, addresses: Collection[bytes]) -> bytes | None:
    """The same for an IPv6 packet in an untagged frame."""
    ipv6 = frame[14:54]
    if len(ipv6) < 40:
        return frame
    next_header, payload_length = ipv6[6], int.from_bytes(ipv6[4:6], "big")
    rest = frame[54:]
    if next_header not in EXTENSIONS | {4, 47}:
        return frame
    if ipv6[24:40] not in addresses:  # it may still be one of LOCAL's, where tunnels end
        return None if _leads_to_gre(next_header, rest) else frame
    limited = False
    if next_header == 60:
        if len(rest) < 8 or payload_length < 8:
            return None
        if rest[0] == 4 and not rest[1]:  # what is longer, the controller takes away
            if (may_skip := _may_skip(rest[2:8])) is None:
                return frame
            if not may_skip:
                return None
            limited = rest[2] == 4
            rest, next_header, payload_length = rest[8:], 4, payload_length - 8
    if next_header != 4:
        return None if _leads_to_gre(next_header, rest) else frame
    if not is_sound(rest, payload_length) or payload_length > 0xFFFF - 18:
        return None
    if is_martian(rest[16:20]):
        return None
    first, hop_limit = int.from_bytes(ipv6[:4], "big"), ipv6[7]
    ecn = ECN_AT_THE_END[rest[1] & 3][first >> 20 & 3]
    if ecn is None:
        return None
    if int.from_bytes(rest[2:4], "big") > IPV4_MTU:  # what is to be done, the controller knows
        outer = ipv6[:4] + payload_length.to_bytes(2, "big") + bytes([4]) + ipv6[7:]
        return frame[:14] + outer + rest
    if ecn != rest[1] & 3:
        header = bytearray(rest[: (rest[0] & 15) * 4])
        header[1] = header[1] & 0xFC | ecn
        header[10:12] = bytes(2)
        header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
        rest = bytes(header) + rest[len(header) :]
    outer = (first & ~(3 << 20)).to_bytes(4, "big")
    ipv6 = outer + (payload_length + 18).to_bytes(2, "big") + bytes([47]) + ipv6[7:]
    # Bit 0: the shim answers; bit 1: but not this one (RFC 4443 section 2.4 e.6).
    source = int.from_bytes(ipv6[8:24], "big")
    answers = 3 if source in (0, 1) or source >> 120 == 0xFF else 1
    inner = bytes.fromhex("024b00") + bytes([answers, limited, first >> 20 & 0xFF])
    inner += mark(rest, first & 0xFFFFF, hop_limit, upstream=True) + b"\x08\x00"
    return frame[:14] + ipv6 + TEB + inner + rest


ECN_AT_THE_END = {
    0b00: (0b00, 0b00, 0b00, None),
    0b10: (0b10, 0b01, 0b10, 0b11),
    0b01: (0b01, 0b01, 0b01, 0b11),
    0b11: (0b11, 0b11, 0b11, 0b11),
}
"""RFC 6040 section 4.2, figure 4: for each inner field what becomes of it, by the outer field 00,
01 (ECT(1)), 10 (ECT(0)), 11 (CE). None: the packet is dropped."""


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def holds_fragment(frame: bytes) -> bool:
    """Whether there is an IPv4 fragment in it: what the shim makes of that depends on what it has
    seen before."""
    at = {(b"\x08\x00", 0): 14, (b"\x86\xdd", 4): 54, (b"\x86\xdd", 60): 62}
    kind = frame[12:14]
    place = at.get((kind, frame[20] if kind == b"\x86\xdd" and len(frame) > 20 else 0))
    return place is not None and bool(int.from_bytes(frame[place + 6 : place + 8], "big") & 0x3FFF)


def internet_to_ovs(frame: bytes) -> bytes | None:
    """The same for an IPv4 packet in an untagged frame."""
    packet = frame[14:]
    if not is_sound(packet, len(packet)) or is_martian(packet[12:16]):
        return None
    return frame[:6] + mark(packet) + frame[12:]


def is_martian(address: bytes) -> bool:
    """RFC 1812 sections 5.3.5 and 5.3.7, RFC 3927 section 7."""
    martians = "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32"
    return any(IPv4Address(address) in IPv4Network(network) for network in martians)


def ovs_to_wire(frame: bytes, br_addresses: Mapping[int, bytes]) -> bytes | None:
    """The frame that leaves by the IPv6 NIC, untagged and whole; None for one that is refused."""
    if len(frame) < 92 or frame[12:14] != b"\x86\xdd" or frame[20] != 47:
        return frame
    if frame[54:58] == TEB and frame[58] >> 1 == 3:
        return answer(frame, br_addresses)
    if frame[54:60] != TEB + b"\x02\x4b":
        return frame
    source = br_addresses.get(int.from_bytes(frame[60:64], "big"))
    length, total = int.from_bytes(frame[18:20], "big"), int.from_bytes(frame[74:76], "big")
    if source is None or not 20 <= total <= min(length - 18, len(frame) - 72):
        return None
    tos = frame[73]
    ipv6 = bytes([0x60 | tos >> 4, (tos & 15) << 4, 0, 0]) + total.to_bytes(2, "big") + b"\x04"
    # What Ethernet put behind a short packet is left out.
    return frame[:14] + ipv6 + frame[21:22] + source + frame[38:54] + frame[72 : 72 + total]


def answer(frame: bytes, br_addresses: Mapping[int, bytes]) -> bytes | None:
    """Type 1 code 5 (RFC 4443 section 3.1) to an lwB4 that has not been told yet, about the packet
    in a frame that the rules have refused; None if there is none."""
    to, marks = int.from_bytes(frame[58:64], "big"), int.from_bytes(frame[64:70], "big")
    source, length = br_addresses.get(to >> 9 & 0xFFFFFFFF), int.from_bytes(frame[18:20], "big")
    if source is None or length < 18 + 20 or 54 + length > len(frame):
        return None
    lwb4, packet = frame[38:54], frame[72 : 54 + length]
    ports = packet[9] == 1 or int.from_bytes(packet[6:8], "big") & 0x1FFF
    label = 0 if ports and not marks & (ECHO | NO_PORTS) else marks >> 16 & 0xFFFFF
    hops = sum((marks >> p & 1) << n for n, p in enumerate((36, 37, 41, 43, 44, 45, 46, 47)))
    options = bytes.fromhex("0400040104010100") if to & 0x100 else b""
    first = 6 << 28 | (to & 0xFF) << 20 | label
    quoted = first.to_bytes(4, "big") + len(options + packet).to_bytes(2, "big")
    quoted += bytes([60 if options else 4, hops]) + lwb4 + source + options + packet
    message = bytes.fromhex("0105 0000 00000000") + quoted[: 1280 - 48]
    size = len(message).to_bytes(4, "big")
    padding = bytes(len(message) % 2)
    total = checksum(source + lwb4 + size + bytes([0, 0, 0, 58]) + message + padding)
    message = message[:2] + total.to_bytes(2, "big") + message[4:]
    return frame[:14] + bytes.fromhex("60000000") + size[2:] + b"\x3a\x40" + source + lwb4 + message


def _may_skip(options: bytes) -> bool | None:
    """Whether these options fill their space exactly and none forbids skipping (RFC 8200 4.2);
    None if its sender is to be told so."""
    while options:
        if options[0] & 0x80:
            return None
        if options[0] & 0x40:
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


def is_sound(packet: bytes, payload_length: int) -> bool:
    """RFC 1812 section 5.2.2."""
    if len(packet) < 20 or payload_length < 20 or packet[0] >> 4 != 4:
        return False
    header, total = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big")
    if not 20 <= header <= total <= payload_length <= len(packet):
        return False
    return checksum(packet[:header]) == 0


def mark(packet: bytes, label: int = 0, hop_limit: int = 0, *, upstream: bool = False) -> bytes:
    """eth_src for an IPv4 packet, with the outer header's flow label and hop limit."""
    found = icmp_mark(packet, upstream=upstream) if packet[9] == 1 else 0
    if packet[9] != 1 or found & (ECHO | NO_PORTS):
        found |= (label & 0xFFFF) << 16
    found |= (label >> 16) << 32
    for bit, place in enumerate((36, 37, 41, 43, 44, 45, 46, 47)):
        found |= (hop_limit >> bit & 1) << place
    if int.from_bytes(packet[2:4], "big") > SOFTWIRE_MTU and packet[6] & 0x40:
        found |= TOO_BIG
    return found.to_bytes(6, "big")


def icmp_mark(packet: bytes, *, upstream: bool = False) -> int:
    """eth_src for an ICMPv4 packet: far port, near port (RFC 7596 8.1). An error is about a packet
    that came from where it goes, and of an lwB4 about one that went where it comes from."""
    upper = _upper_layer(packet)
    if upper is None:
        return NO_PORTS
    if upper[0] in (0, 8):
        return ECHO | int.from_bytes(upper[4:6], "big")
    if upper[0] not in (3, 11, 12):
        return NO_PORTS
    quoted = upper[8:]
    if len(quoted) < 20 or quoted[0] >> 4 != 4 or quoted[12:16] != packet[16:20]:
        return NO_PORTS
    if upstream and quoted[16:20] != packet[12:16]:
        return NO_PORTS
    ports = _upper_layer(quoted)
    if ports is None:
        return NO_PORTS
    if quoted[9] in (6, 17, 33, 132, 136):
        return int.from_bytes(ports[:4], "big")
    if quoted[9] == 1 and ports[0] in (0, 8):
        return int.from_bytes(ports[4:6] * 2, "big")
    if quoted[9] == 1 or packet[6] & 0x20:
        return NO_PORTS
    return ECHO | NO_PORTS  # a protocol that has none, which is a full address's


def _upper_layer(packet: bytes) -> bytes | None:
    """What follows the IPv4 header, at least 8 bytes of it, unless it is a later fragment."""
    header = (packet[0] & 15) * 4
    fragment_offset = int.from_bytes(packet[6:8], "big") & 0x1FFF
    if header < 20 or fragment_offset or len(packet) < header + 8:
        return None
    return packet[header:]
