"""ARP on the IPv4 side."""

from __future__ import annotations

from collections.abc import Iterator

from openflow_rules.compiler.parts import ETH_ARP, IN_PORT, Ports, drop_flow, net_match, step
from openflow_rules.flow import Flow, Match, Move, Output, SetField, ToController
from openflow_rules.tables import CookieClass, Drop, Priority, Punt, Register, Table, cookie
from ryu_lw4o6.core.settings import Instance

ARP_REQUEST = 1
ARP_REPLY = 2


def arp_flows(instance: Instance, ports: Ports) -> Iterator[Flow]:
    arp = Match("eth_type", ETH_ARP)
    next_hop = Match("arp_spa", str(instance.ipv4.next_hop))
    yield Flow(
        Table.ARP_LEARN,
        Priority.NORMAL,
        cookie(CookieClass.PUNT, Punt.ARP),
        (arp, next_hop),
        (ToController(64),),
        Table.ARP_ANSWER,
        meter=Punt.ARP,
        note="the next hop says where it is",
    )
    yield step(Table.ARP_LEARN, Priority.MISS, (), goto=Table.ARP_ANSWER, note="other ARP")
    yield step(
        Table.ARP_ANSWER, Priority.PROTOCOL, (arp, Match("arp_op", ARP_REPLY)),
        note="an answer, shown above if it is the next hop's",
    )  # fmt: skip
    request = arp, Match("arp_op", ARP_REQUEST)
    own = Match("arp_tpa", str(instance.ipv4.address.ip))
    for target in (own, *(net_match("arp_tpa", prefix.network) for prefix in instance.prefixes)):
        yield step(
            Table.ARP_ANSWER,
            Priority.NORMAL,
            (*request, target),
            Move("arp_sha", 0, "eth_dst", 0, 48),
            SetField("eth_src", ports.ipv4_mac),
            SetField("arp_op", ARP_REPLY),
            Move("arp_sha", 0, "arp_tha", 0, 48),
            SetField("arp_sha", ports.ipv4_mac),
            Move("arp_tpa", 0, Register.SCRATCH, 0, 32),
            Move("arp_spa", 0, "arp_tpa", 0, 32),
            Move(Register.SCRATCH, 0, "arp_spa", 0, 32),
            Output(IN_PORT),
            note="who has this address? We have (RFC 826)",
        )
    yield drop_flow(Drop.ARP_IGNORED, Table.ARP_ANSWER, Priority.MISS)
