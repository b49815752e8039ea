"""Softwire packets without a binding that the shim answers by ICMPv6, on their way back to it.

The rules decide, the shim writes (docs/adr/0022). What it does not answer takes the way to the
controller (``unknown``): frames of an older shim, and those that the controller itself puts in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv6Address

from openflow_rules.compiler.parts import IN_PORT, counted, ip_match, step
from openflow_rules.flow import Flow, Load, Match, Move, Output, SetField
from openflow_rules.tables import Count, Mark, Priority, Punt, Table
from ryu_lw4o6.core.settings import Instance, br_tag

_SAYS = Mark.ANSWERS | Mark.NOT_NOW
_TABLE = Table.UNKNOWN_LWB4
_REFUSED_BITS = 48 - Mark.BR_TAG_BIT


def answer_flows(instance: Instance) -> Iterator[Flow]:
    quiet = step(
        _TABLE,
        Priority.NORMAL,
        ip_match(_eth_dst(_SAYS, _SAYS)),
        note="the lwB4 has just been told, or must not be (RFC 4443 section 2.4 e)",
    )
    yield counted(Count.QUIET_LWB4, quiet)
    for address in instance.aftr_addresses:
        yield _answered(address)


def _answered(br_address: IPv6Address) -> Flow:
    here = Match("tun_ipv6_dst", str(br_address))
    refused = Mark.REFUSED | br_tag(br_address)
    flow = step(
        _TABLE,
        Priority.NORMAL,
        ip_match(_eth_dst(Mark.ANSWERS, _SAYS), here),
        Move("tun_ipv6_src", 0, "tun_ipv6_dst", 0, 128),
        SetField("tun_ipv6_src", str(br_address)),
        Load("eth_dst", _REFUSED_BITS, refused, Mark.BR_TAG_BIT),
        Output(IN_PORT),
        note="back to the shim, which makes the ICMPv6 error of it",
    )
    return replace(counted(Count.ANSWERED_LWB4, flow), meter=Punt.UNKNOWN_LWB4)


def _eth_dst(value: int, mask: int) -> Match:
    return Match("eth_dst", value.to_bytes(6, "big").hex(":"), mask.to_bytes(6, "big").hex(":"))
