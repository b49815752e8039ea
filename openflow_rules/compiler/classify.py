"""Where a packet goes by the port it came in by."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Network

from openflow_rules.compiler.filters import through
from openflow_rules.compiler.parts import (
    CONTROLLER_PORT,
    ETH_ARP,
    ETH_IPV4,
    ETH_IPV6,
    FRAG_FIRST,
    ICMPV6,
    LOCAL_PORT,
    QUOTE_LENGTH,
    Ports,
    copied,
    counted,
    drop_flow,
    eth_src_match,
    ip_match,
    net_match,
    punted,
    step,
)
from openflow_rules.flow import Flow, Match, Output, ToController
from openflow_rules.tables import CookieClass, Count, Drop, Mark, Priority, Punt, Table, cookie
from ryu_lw4o6.core.settings import Instance

LINK_LOCAL = IPv6Network("fe80::/10")
MULTICAST = IPv6Network("ff00::/8")
ND_ADVERTISEMENT = 136
HOP_LIMIT_OF_ND = 255
IPIP, FRAGMENT = 4, 44
ICMPV6_ERRORS = (1, 2, 3, 4)  # unreachable, too big, time exceeded, parameter problem (RFC 4443)
VLAN_PRESENT = 0x1000  # OFPVID_PRESENT


def classify_flows(instance: Instance, ports: Ports) -> Iterator[Flow]:
    upstream = through(instance, Table.FILTER_FROM_SOFTWIRE, Table.UPSTREAM_PORT_SET)
    downstream = through(instance, Table.FILTER_FROM_INTERNET, Table.DOWNSTREAM_PORT_SET)
    in_vlan = Match("vlan_vid", VLAN_PRESENT, VLAN_PRESENT)
    yield drop_flow(Drop.TAGGED, Table.CLASSIFY, Priority.OWN, in_vlan)
    ipv6 = Match("in_port", ports.ipv6), Match("eth_type", ETH_IPV6)
    # What a link's switch floods, or everybody on it is sent, is not for us (RFC 1812 section
    # 5.3.4, RFC 4443 section 2.4 e.4).
    to_us = *ipv6, Match("eth_dst", ports.local_mac)
    own = {instance.ipv6.address.ip, *instance.aftr_addresses}
    for address in sorted(own):
        yield step(
            Table.CLASSIFY,
            Priority.NORMAL,
            (*to_us, Match("ipv6_dst", str(address))),
            Output(LOCAL_PORT),
            note="to the lwAFTR: softwires end here, ND is answered here",
        )
    for network in (LINK_LOCAL, MULTICAST):
        yield step(
            Table.CLASSIFY,
            Priority.NORMAL,
            (*ipv6, _net6(network)),
            Output(LOCAL_PORT),
            note="neighbour discovery",
        )
    # Open vSwitch believes whoever says where a neighbour is, and does not look whether it comes
    # from the link itself (RFC 4861 section 7.1.2).
    advertisement = Match("ip_proto", ICMPV6), Match("icmpv6_type", ND_ADVERTISEMENT)
    yield step(
        Table.CLASSIFY,
        Priority.EXCEPTION,
        (*ipv6, *advertisement),
        goto=Table.NEIGHBOURS,
        note="somebody says where a neighbour is",
    )
    from_link = Match("eth_type", ETH_IPV6), Match("nw_ttl", HOP_LIMIT_OF_ND)
    if instance.ipv6.next_hop is not None:
        yield Flow(
            Table.NEIGHBOURS,
            Priority.EXCEPTION,
            cookie(CookieClass.PUNT, Punt.NEIGHBOUR),
            (*from_link, *advertisement, Match("ipv6_nd_target", str(instance.ipv6.next_hop))),
            (Output(LOCAL_PORT), ToController(QUOTE_LENGTH)),
            note="the IPv6 next hop says where it is, to Open vSwitch as well",
        )
    yield step(
        Table.NEIGHBOURS,
        Priority.NORMAL,
        from_link,
        Output(LOCAL_PORT),
        note="a neighbour says where it is",
    )
    yield drop_flow(Drop.ND_FROM_AFAR, Table.NEIGHBOURS, Priority.MISS)
    for address in instance.aftr_addresses:
        about_tunnel = *to_us, Match("ipv6_dst", str(address)), Match("ip_proto", ICMPV6)
        # What is about the lwAFTR's own traffic is the kernel's.
        to_kernel = (Output(LOCAL_PORT),) if address == instance.ipv6.address.ip else ()
        for kind in ICMPV6_ERRORS:
            error = step(
                Table.CLASSIFY,
                Priority.EXCEPTION,
                (*about_tunnel, Match("icmpv6_type", kind)),
                *to_kernel,
                note="an error about a softwire packet (RFC 2473 section 8)",
            )
            yield punted(Count.TUNNEL_ICMP, Punt.TUNNEL_ICMP, error)
        # Open vSwitch looks behind extension headers, but not into a fragment that is not the
        # first: that may be one of the kernel's as well.
        for protocol, actions, what in (
            (IPIP, (), "a softwire packet that the shim leaves to the controller"),
            (FRAGMENT, (Output(LOCAL_PORT),), "an IPv6 fragment, of a softwire packet or another"),
        ):
            match = *to_us, Match("ipv6_dst", str(address)), Match("ip_proto", protocol)
            slow = step(Table.CLASSIFY, Priority.EXCEPTION, match, *actions, note=what)
            yield punted(Count.SLOW_SOFTWIRE, Punt.SLOW_SOFTWIRE, slow)
    yield drop_flow(Drop.NOT_FOR_US, Table.CLASSIFY, Priority.PROTOCOL, *ipv6)
    yield step(
        Table.CLASSIFY,
        Priority.NORMAL,
        (Match("in_port", LOCAL_PORT), Match("eth_type", ETH_IPV6)),
        Output(ports.ipv6),
        note="from the lwAFTR: softwire packets, ND, routing protocols",
    )
    yield counted(
        Count.FROM_SOFTWIRE,
        step(
            Table.CLASSIFY,
            Priority.NORMAL,
            (Match("in_port", ports.softwire), Match("eth_type", ETH_IPV4)),
            goto=upstream,
            note="out of a softwire",
        ),
    )
    yield drop_flow(
        Drop.SOFTWIRE_NOT_IPV4, Table.CLASSIFY, Priority.PROTOCOL, Match("in_port", ports.softwire)
    )
    ipv4 = Match("in_port", ports.ipv4)
    to_us4 = Match("eth_dst", ports.ipv4_mac)
    yield counted(
        Count.FROM_INTERNET,
        step(
            Table.CLASSIFY,
            Priority.NORMAL,
            (ipv4, *ip_match(to_us4)),
            goto=downstream,
            note="from the Internet",
        ),
    )
    yield drop_flow(Drop.NOT_FOR_US, Table.CLASSIFY, Priority.PROTOCOL, ipv4, *ip_match())
    yield step(
        Table.CLASSIFY,
        Priority.NORMAL,
        (ipv4, Match("eth_type", ETH_ARP)),
        goto=Table.ARP_LEARN,
        note="ARP on the IPv4 side",
    )
    for prefix in instance.prefixes:
        yield counted(
            Count.FROM_LWAFTR,
            step(
                Table.CLASSIFY,
                Priority.NORMAL,
                (
                    Match("in_port", CONTROLLER_PORT),
                    *ip_match(net_match("ipv4_dst", prefix.network)),
                ),
                goto=Table.DOWNSTREAM_PORT_SET,
                note=f"an ICMPv4 error of our own to an lwB4 in {prefix.network}",
            ),
        )
    # Others of its packet have come before it, and wait at the controller for its ports.
    awaited = Match("ip_frag", FRAG_FIRST), eth_src_match(Mark.NO_PORTS, Mark.NO_PORTS)
    for count, came, goto in (
        (Count.FROM_SOFTWIRE, (Match("in_port", ports.softwire),), upstream),
        (Count.FROM_INTERNET, (ipv4, to_us4), downstream),
    ):
        first = step(
            Table.CLASSIFY,
            Priority.EXCEPTION,
            (*came, *ip_match(*awaited)),
            goto=goto,
            note="the first fragment of a packet whose others the controller holds",
        )
        yield copied(count, Punt.AWAITED, first)
    yield drop_flow(Drop.UNCLASSIFIED, Table.CLASSIFY, Priority.MISS)


def _net6(network: IPv6Network) -> Match:
    return Match("ipv6_dst", str(network.network_address), str(network.netmask))
