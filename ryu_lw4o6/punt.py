"""What the controller says about packets the switch shows it. Pure: a frame in, a frame out."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from openflow_rules.marks import fragment_ports
from openflow_rules.outer import softwire_packet
from openflow_rules.tables import CookieClass, Drop, Mark, cookie
from ryu_lw4o6.core import icmp
from ryu_lw4o6.core.binding import Binding, BindingKey, BindingTable
from ryu_lw4o6.core.settings import Instance

UNKNOWN_IPV4 = cookie(CookieClass.DROP, Drop.DOWNSTREAM_NO_BINDING)
TOO_BIG = cookie(CookieClass.DROP, Drop.DOWNSTREAM_TOO_BIG)
_TO_LWAFTR = cookie(CookieClass.DROP, Drop.TO_LWAFTR)
_UDP = 17
_TTL_EXPIRED = {
    cookie(CookieClass.DROP, drop)
    for drop in (Drop.UPSTREAM_TTL_EXPIRED, Drop.DOWNSTREAM_TTL_EXPIRED)
}


def icmp_answer(instance: Instance, flow_cookie: int, frame: bytes) -> bytes | None:
    """The ICMPv4 error that a shown IPv4 packet deserves; None for silence.

    The policy has been applied by the rules: what is not to be answered is not shown.
    """
    packet = icmp.ipv4_packet(frame)
    if packet is None or not may_answer(instance, packet):
        return None
    if flow_cookie == UNKNOWN_IPV4:
        return ipv4_error(instance, packet, icmp.UNREACHABLE, icmp.HOST_UNREACHABLE)
    if flow_cookie in _TTL_EXPIRED:
        return ipv4_error(instance, packet, icmp.TIME_EXCEEDED, icmp.TTL_EXCEEDED)
    if flow_cookie == TOO_BIG:
        return too_big(instance, packet, instance.softwire_mtu)
    if flow_cookie == _TO_LWAFTR:
        return nobody_here(instance, packet)
    return None


def nobody_here(instance: Instance, packet: bytes) -> bytes:
    """The lwAFTR's own address has no UDP port that is open, and no other protocol but ICMP (RFC
    1122 section 3.2.2.1)."""
    code = icmp.PORT_UNREACHABLE if packet[9] == _UDP else icmp.PROTOCOL_UNREACHABLE
    return ipv4_error(instance, packet, icmp.UNREACHABLE, code)


def too_big(instance: Instance, packet: bytes, mtu: int) -> bytes | None:
    """Fragmentation needed, about a packet with DF that is larger than the next ``mtu``."""
    if not may_answer(instance, packet):
        return None
    return ipv4_error(instance, packet, icmp.UNREACHABLE, icmp.FRAGMENTATION_NEEDED, mtu)


def may_answer(instance: Instance, packet: bytes) -> bool:
    """Whether an ICMPv4 error may be sent about ``packet``: not to ourselves, nor to everybody on
    the Internet side's link, which is no single host (RFC 1122 section 3.2.2)."""
    own, source = instance.ipv4.address, IPv4Address(packet[12:16])
    everybody = own.network.broadcast_address if own.network.prefixlen < 31 else None
    return source not in (own.ip, everybody) and icmp.may_answer(packet)


def bound_to(
    instance: Instance, table: BindingTable, ipv4: IPv4Address, port: int
) -> Binding | None:
    """The binding that an address and port belong to on ``instance``."""
    prefix = instance.prefix_of(ipv4)
    psid = None if prefix is None else prefix.params.psid_of(port)
    binding = None if psid is None else table.get(BindingKey(ipv4, psid))
    return binding if binding is not None and instance.carries(binding) else None


def is_own_source(
    instance: Instance, table: BindingTable, packet: bytes, lwb4: IPv6Address
) -> bool:
    """Whether a packet's source is one that ``lwb4`` may use."""
    ports = fragment_ports(packet, upstream=True)
    port = 0 if ports is None else ports >> Mark.SOURCE_PORT_BIT & 0xFFFF
    binding = bound_to(instance, table, IPv4Address(packet[12:16]), port)
    return binding is not None and binding.lwb4 == lwb4


def ipv4_error(instance: Instance, packet: bytes, kind: int, code: int, mtu: int = 0) -> bytes:
    """An ICMPv4 error to the source of ``packet``, be it an Internet host or behind an lwB4."""
    # Into a softwire it goes by the rules, which take one hop off.
    to_lwb4 = instance.serves(IPv4Address(packet[12:16]))
    ttl = icmp.HOP_LIMIT + (1 if to_lwb4 else 0)
    return icmp.error(instance.ipv4.address.ip, packet, kind, code, mtu=mtu, ttl=ttl)


def goes_to_lwb4(instance: Instance, packet: bytes) -> bool:
    """Whether an IPv4 packet of the lwAFTR's own has to go through a softwire."""
    return instance.serves(IPv4Address(packet[16:20]))


def lwb4_answer(frame: bytes, lwb4: bytes, br_address: bytes) -> bytes | None:
    """The ICMPv6 packet for an lwB4 whose softwire packet to ``br_address`` has no binding; None
    for silence. Addresses of 16 bytes."""
    if icmp.ipv4_packet(frame) is None or not icmp.is_single_node(lwb4):
        return None
    return icmp.softwire_refused(softwire_packet(frame, lwb4, br_address))
