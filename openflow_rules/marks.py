"""The mark that the shim writes into eth_src, for frames that the controller gives the rules."""

from __future__ import annotations

import struct

from openflow_rules.tables import Mark

_BOTH_PORTS = 0xFFFFFFFF
_ETH_IPV4 = b"\x08\x00"
_ICMP = 1
_ECHOES = {0, 8}  # ICMP types
_ERRORS = {3, 11, 12}
_WITH_PORTS = {6, 17, 33, 132, 136}  # TCP, UDP, DCCP, SCTP, UDP-Lite
_OFFSET = 0x1FFF
_MORE = 0x20  # of the byte that the flags are in
_TCP, _UDP = 6, 17


def marked_frame(packet: bytes) -> bytes:
    """An IPv4 packet in a frame as the rules expect it from a NIC with the shim."""
    return _frame(packet, mark(packet))


def own_error_frame(packet: bytes) -> bytes:
    """The same for an ICMPv4 error of the lwAFTR's own: one that quotes a protocol without ports
    is about a packet of a full address, for which no port is needed."""
    found = mark(packet)
    return _frame(packet, 0 if found & Mark.NO_PORTS else found)


def own_echo_frames(pieces: list[bytes]) -> list[bytes]:
    """The same for an echo reply of the lwAFTR's own, in fragments or in one."""
    ports = fragment_ports(pieces[0]) or 0
    later = [with_ports(own_error_frame(piece), ports) for piece in pieces[1:]]
    return [own_error_frame(pieces[0]), *later]


def _frame(packet: bytes, eth_src: int) -> bytes:
    return bytes(6) + eth_src.to_bytes(6, "big") + _ETH_IPV4 + packet


def with_ports(frame: bytes, ports: int) -> bytes:
    """The frame of a later fragment, with the ports that the first of its packet has."""
    known = int.from_bytes(frame[6:12], "big") & ~(_BOTH_PORTS | Mark.NO_PORTS | Mark.ECHO)
    return frame[:6] + (known | ports).to_bytes(6, "big") + frame[12:]


def fragment_ports(packet: bytes, *, upstream: bool = False) -> int | None:
    """What a first fragment, or a whole packet, says of the ports of those that follow; it is one
    that an lwB4 sent if it goes ``upstream``."""
    if packet[9] == _ICMP:
        found = _icmp_ports(packet, upstream)
        if found & Mark.NO_PORTS:
            return None
        if found & Mark.ECHO:
            identifier = found & 0xFFFF
            return identifier << Mark.DESTINATION_PORT_BIT | identifier << Mark.SOURCE_PORT_BIT
        return found
    upper = _upper_layer(packet)
    if packet[9] not in (_TCP, _UDP) or upper is None:
        return None
    source, destination = struct.unpack_from("!HH", upper)
    return int(destination) << Mark.DESTINATION_PORT_BIT | int(source) << Mark.SOURCE_PORT_BIT


def mark(packet: bytes, *, upstream: bool = False) -> int:
    """The ports of a sound IPv4 packet as softwire.bpf.c writes them, without an outer header."""
    if _is_later(packet):
        return Mark.NO_PORTS
    return _icmp_ports(packet, upstream) if packet[9] == _ICMP else 0


def _is_later(packet: bytes) -> bool:
    (fragment,) = struct.unpack_from("!H", packet, 6)
    return bool(fragment & _OFFSET)


def _icmp_ports(packet: bytes, upstream: bool) -> int:
    """RFC 7596 section 8.1: the identifier of an echo, or the ports that an error quotes, if it
    quotes a packet that can have been sent (RFC 5508 REQ-4, REQ-5)."""
    message = _upper_layer(packet)
    if message is None:
        return Mark.NO_PORTS
    if message[0] in _ECHOES:
        (identifier,) = struct.unpack_from("!H", message, 4)
        return Mark.ECHO | int(identifier)
    quoted = message[8:]
    if message[0] not in _ERRORS or len(quoted) < 20 or quoted[0] >> 4 != 4:
        return Mark.NO_PORTS
    upper = _upper_layer(quoted)
    if upper is None or quoted[12:16] != packet[16:20]:
        return Mark.NO_PORTS
    if upstream and quoted[16:20] != packet[12:16]:
        return Mark.NO_PORTS
    if quoted[9] in _WITH_PORTS:
        # The quoted packet went the other way: its source is our destination.
        near, far = struct.unpack_from("!HH", upper)
    elif quoted[9] == _ICMP and upper[0] in _ECHOES:
        (near,) = (far,) = struct.unpack_from("!H", upper, 4)
    elif quoted[9] == _ICMP or packet[6] & _MORE:
        return Mark.NO_PORTS
    else:
        return Mark.NO_PORTS | Mark.ECHO
    return int(near) << Mark.DESTINATION_PORT_BIT | int(far) << Mark.SOURCE_PORT_BIT


def _upper_layer(packet: bytes) -> bytes | None:
    """What follows the IPv4 header, at least 8 bytes; None if there is no such beginning."""
    header = (packet[0] & 0xF) * 4
    if header < 20 or _is_later(packet) or len(packet) < header + 8:
        return None
    return packet[header:]
