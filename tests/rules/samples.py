"""One instance with every kind of prefix, and bindings whose port sets were worked out by hand.

192.0.2.0/24 has a = 6, k = 6, m = 4. PSID 3 is binary 000011, so its ports read
``AAAAAA 000011 jjjj``: 0x0430-0x043f (A = 1) = 1072-1087, 0x0830-0x083f = 2096-2111, ...,
0xfc30-0xfc3f = 64560-64575. Ports with A = 0, that is 0-1023, belong to nobody.

198.18.0.0/24 has a = 0, k = 2, m = 14: PSID 1 owns 16384-32767.
203.0.113.0/29 has full addresses.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from openflow_rules.compiler.parts import Ports
from ryu_lw4o6.core.binding import Binding, Prefix
from ryu_lw4o6.core.filters import Direction, PortRange, Rule
from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.core.settings import Failover, IcmpPolicy, Instance, Ipv4Side, Ipv6Side

ANYCAST = IPv6Address("2001:db8:ffff::1")
SECOND_BR = IPv6Address("2001:db8:ffff::2")
A6K6, A0K2, FULL = PortParams(6, 6), PortParams(0, 2), PortParams(0, 0)
PREFIXES = (
    Prefix(IPv4Network("192.0.2.0/24"), A6K6),
    Prefix(IPv4Network("198.18.0.0/24"), A0K2),
    Prefix(IPv4Network("203.0.113.0/29"), FULL),
)
PORTS = Ports(
    ipv6=1, ipv4=2, softwire=3, ipv4_mac="02:00:00:00:04:01", local_mac="02:00:00:00:06:01"
)
NEXT_HOP_MAC = "02:00:00:00:04:fe"


def instance(
    *,
    hairpinning: bool = True,
    icmp: IcmpPolicy | None = None,
    failover: Failover = Failover.ICMPV6,
) -> Instance:
    return Instance(
        name="lwaftr1",
        datapath_id=1,
        ipv6=Ipv6Side("eth6", IPv6Interface("2001:db8:1::1/64"), IPv6Address("2001:db8:1::fe")),
        ipv4=Ipv4Side("eth4", IPv4Interface("198.51.100.1/24"), IPv4Address("198.51.100.254")),
        aftr_addresses=(ANYCAST, SECOND_BR),
        prefixes=PREFIXES,
        hairpinning=hairpinning,
        failover=failover,
        icmp=icmp or IcmpPolicy(),
    )


def with_filters(plain: Instance) -> Instance:
    """The same with a rule of every kind of match, on both sides and in both directions."""
    source, destination = IPv4Network("192.0.2.0/25"), IPv4Network("198.51.100.7/32")
    for_ipv4 = tuple(
        Rule(direction, allow, source, destination, protocol, sports, dports)
        for direction in Direction
        for allow in (True, False)
        for protocol, sports, dports in (
            (6, PortRange(1024, 65535), PortRange(25, 25)), (17, None, PortRange(135, 139)),
            (1, None, None), (47, None, None), (6, PortRange(0, 65535), None), (None, None, None),
        )
    )  # fmt: skip
    for_ipv4 += (Rule(Direction.IN, True, IPv4Network("0.0.0.0/0")),)
    for_ipv6 = tuple(replace(rule, lwb4=IPv6Network("2001:db8:b4::/48")) for rule in for_ipv4)
    return replace(
        plain,
        ipv6=replace(plain.ipv6, filters=for_ipv6), ipv4=replace(plain.ipv4, filters=for_ipv4),
    )  # fmt: skip


def binding(lwb4: str, ipv4: str, psid: int = 0, br: IPv6Address | None = None) -> Binding:
    address = IPv4Address(ipv4)
    params = next(p.params for p in PREFIXES if address in p.network)
    return Binding(IPv6Address(lwb4), address, psid, params, br)


BINDINGS = (
    binding("2001:db8:b4::1", "192.0.2.1", 3),
    binding("2001:db8:b4::2", "192.0.2.1", 4),
    binding("2001:db8:b4::3", "203.0.113.5"),
    binding("2001:db8:b4::4", "198.18.0.7", 1, SECOND_BR),
)
