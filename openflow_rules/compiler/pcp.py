"""PCP requests, which come before there is a binding: out of the softwire, to the controller."""

from __future__ import annotations

from collections.abc import Iterator

from openflow_rules.compiler.parts import ETH_IPV4, UDP
from openflow_rules.flow import Flow, Match, ToController
from openflow_rules.tables import CookieClass, Priority, Punt, Table, cookie
from ryu_lw4o6.core.pcp import SERVER_PORT
from ryu_lw4o6.core.settings import Instance


def pcp_flows(instance: Instance) -> Iterator[Flow]:
    if instance.pcp is None:
        return
    yield Flow(
        Table.UPSTREAM_PORT_SET,
        Priority.OWN,
        cookie(CookieClass.PUNT, Punt.PCP),
        (
            Match("eth_type", ETH_IPV4),
            Match("ipv4_dst", str(instance.pcp.server)),
            Match("ip_proto", UDP),
            Match("udp_dst", SERVER_PORT),
        ),
        (ToController(0xFFFF),),
        meter=Punt.PCP,
        note="to the PCP server, which is the controller (RFC 6887)",
    )
