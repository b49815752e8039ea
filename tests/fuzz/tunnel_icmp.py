"""What the controller makes of any ICMPv6 error about a softwire: what is reported was quoted, and
whoever is told of it is the source of a packet that we could have sent."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from ryu_lw4o6.core import ipv6, tunnel_icmp
from ryu_lw4o6.core.binding import Binding, BindingTable
from ryu_lw4o6.core.ethernet import checksum
from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.path_mtu import Paths
from tests.fuzz.punt import ANYCAST, INSTANCE, LWB4, check_icmpv4

ROUTER = IPv6Address("2001:db8:7::1").packed
SMALLER = replace(INSTANCE, ipv6=replace(INSTANCE.ipv6, mtu=1540))
TABLE = BindingTable(INSTANCE.prefixes)
TABLE.add(Binding(LWB4, IPv4Address("192.0.2.1"), 3, PortParams(6, 6)))
ETHERNET = bytes(12) + b"\x86\xdd"
# From a server to a port of the lwB4's: UDP, DF, 28 bytes and whatever follows.
INNER = bytes.fromhex("4500 05b0 0007 4000 3e11 0000 cb00 7150 c000 0201 0035 0430 0008 0000")


def error_is_read(data: bytes) -> None:
    """The bytes as an IPv6 packet; and as what differs from an error about a softwire packet: type,
    code and MTU, 68 bytes of the packet quoted, and more of it."""
    paths = Paths(SMALLER, TABLE)
    for packet in (data, error(data)):
        report = tunnel_icmp.read(packet)
        outcome = paths.error(ETHERNET + packet, 0.0)
        if report is None:
            assert (outcome.answer, outcome.flow) == (None, None)
            continue
        assert report.packet in packet
        assert packet[24:40] == report.br_address.packed
        assert report.mtu is None or report.mtu >= tunnel_icmp.MIN_MTU
        if outcome.answer is not None:
            assert (report.br_address, report.lwb4) == (ANYCAST, LWB4)
            assert report.packet[16:20] == INNER[16:20]
            check_icmpv4(outcome.answer, bytes(14) + report.packet)
        if outcome.flow is not None:
            assert report.mtu is not None
            assert report.mtu < SMALLER.ipv6.mtu
    assert sum(paths.counts.values()) == 2


def error(change: bytes) -> bytes:
    """An error with a checksum that is right, to the address that has sent what it quotes."""
    head, change = change[:6].ljust(6, b"\0"), change[6:]
    quoted = b"\x60\0\0\0" + len(INNER).to_bytes(2, "big") + bytes([ipv6.IPIP, 255])
    quoted = _differing(quoted + ANYCAST.packed + LWB4.packed + INNER, change)
    kinds = (1, 2, 3, 4)
    message = bytes([kinds[head[0] % 4], head[1] % 4, 0, 0]) + head[2:6] + quoted
    pseudo = ROUTER + quoted[8:24] + len(message).to_bytes(4, "big") + bytes([0, 0, 0, ipv6.ICMPV6])
    message = message[:2] + checksum(pseudo + message).to_bytes(2, "big") + message[4:]
    header = b"\x60\0\0\0" + len(message).to_bytes(2, "big") + bytes([ipv6.ICMPV6, 64])
    return header + ROUTER + quoted[8:24] + message


def _differing(packet: bytes, change: bytes) -> bytes:
    size = max(len(packet), len(change))
    number = int.from_bytes(packet.ljust(size, b"\0"), "big")
    return (number ^ int.from_bytes(change.ljust(size, b"\0"), "big")).to_bytes(size, "big")
