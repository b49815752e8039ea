"""What the controller says about packets the switch shows it. Pure: a frame in, a frame out."""

from __future__ import annotations

from openflow_rules.encode import tunnel_addresses
from openflow_rules.tables import CookieClass, Drop, Punt, cookie
from ryu_lw4o6.core import ethernet, icmp
from ryu_lw4o6.core.recent import Recent
from ryu_lw4o6.core.settings import Instance

UNKNOWN_LWB4 = cookie(CookieClass.PUNT, Punt.UNKNOWN_LWB4)
UNKNOWN_IPV4 = cookie(CookieClass.DROP, Drop.DOWNSTREAM_NO_BINDING)
TOO_BIG = cookie(CookieClass.DROP, Drop.DOWNSTREAM_TOO_BIG)


def icmp_answer(
    instance: Instance, flow_cookie: int, fields: bytes, frame: bytes, recent: Recent, now: float
) -> bytes | None:
    """The ICMP packet, IPv4 or IPv6, that a shown packet deserves; None for silence.

    ``fields`` are the packet-in's match fields. ``recent`` are the lwB4s answered of late: the
    switch shows each once an interval, but packets that come at once all get through. The policy
    has been applied by the rules: what is not to be answered is not shown.
    """
    packet = icmp.ipv4_packet(frame)
    if packet is None:
        return None
    if flow_cookie == UNKNOWN_LWB4:
        outer = tunnel_addresses(fields)
        if outer is None or not recent.add(outer[0], now):
            return None
        return icmp.softwire_refused(*outer, packet)
    if not icmp.may_answer(packet):
        return None
    own = instance.ipv4.address.ip
    if flow_cookie == UNKNOWN_IPV4:
        return icmp.unreachable(own, packet, code=1)
    if flow_cookie == TOO_BIG and icmp.dont_fragment(packet):
        return icmp.unreachable(own, packet, code=4, mtu=instance.softwire_mtu)
    return None


def is_ipv6(packet: bytes) -> bool:
    return packet[0] >> 4 == 6


def to_frame(packet: bytes, destination: str, source: str) -> bytes:
    """The packet in a frame between two MAC addresses."""
    kind = ethernet.ETH_IPV6 if is_ipv6(packet) else ethernet.ETH_IPV4
    return ethernet.frame(ethernet.mac_bytes(destination), ethernet.mac_bytes(source), kind, packet)
