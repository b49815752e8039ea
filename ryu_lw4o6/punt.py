"""What the controller says about packets the switch shows it. Pure: a frame in, a frame out."""

from __future__ import annotations

from ipaddress import IPv6Address

from openflow_rules.encode import pipeline_fields
from openflow_rules.outer import softwire_packet
from openflow_rules.tables import CookieClass, Drop, cookie
from ryu_lw4o6.core import ethernet, icmp
from ryu_lw4o6.core.failover import Question
from ryu_lw4o6.core.settings import Instance

UNKNOWN_IPV4 = cookie(CookieClass.DROP, Drop.DOWNSTREAM_NO_BINDING)
TOO_BIG = cookie(CookieClass.DROP, Drop.DOWNSTREAM_TOO_BIG)


def icmp_answer(instance: Instance, flow_cookie: int, frame: bytes) -> bytes | None:
    """The ICMPv4 packet that a shown packet from the Internet deserves; None for silence.

    The policy has been applied by the rules: what is not to be answered is not shown.
    """
    packet = icmp.ipv4_packet(frame)
    if packet is None or not icmp.may_answer(packet):
        return None
    own = instance.ipv4.address.ip
    if flow_cookie == UNKNOWN_IPV4:
        return icmp.unreachable(own, packet, code=1)
    if flow_cookie == TOO_BIG and icmp.dont_fragment(packet):
        return icmp.unreachable(own, packet, code=4, mtu=instance.softwire_mtu)
    return None


def unknown_lwb4(fields: bytes, frame: bytes) -> tuple[IPv6Address, bytes] | None:
    """The lwB4 of a softwire packet without a binding, and the ICMPv6 error for it."""
    outer = pipeline_fields(fields)
    lwb4, br_address = outer.tunnel_source, outer.tunnel_destination
    if lwb4 is None or br_address is None or icmp.ipv4_packet(frame) is None:
        return None
    return lwb4, icmp.softwire_refused(softwire_packet(frame, lwb4, br_address))


def refused(instance: Instance, question: Question, frame: bytes) -> bytes | None:
    """The ICMP error about a packet whose question was answered with no, as the policy wants it;
    None for silence."""
    if question.lwb4 is None:
        if not instance.icmp.unknown_ipv4:
            return None
        return icmp_answer(instance, UNKNOWN_IPV4, frame)
    if question.br_address is None or not instance.failover.answers:
        return None
    return icmp.softwire_refused(softwire_packet(frame, question.lwb4, question.br_address))


def is_ipv6(packet: bytes) -> bool:
    return packet[0] >> 4 == 6


def to_frame(packet: bytes, destination: str, source: str) -> bytes:
    """The packet in a frame between two MAC addresses."""
    kind = ethernet.ETH_IPV6 if is_ipv6(packet) else ethernet.ETH_IPV4
    return ethernet.frame(ethernet.mac_bytes(destination), ethernet.mac_bytes(source), kind, packet)
