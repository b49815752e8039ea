"""Every number that means something in the pipeline, declared once.

Tables, registers, cookies, priorities, drop names, meters and the marks that the softwire shim
leaves in Ethernet headers. The compiler uses these, the pipeline page prints them, and every flow
is checked against its table's declaration.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from openflow_rules.flow import Flow, Resubmit
from ryu_lw4o6.core.binding import BindingKey
from ryu_lw4o6.core.filters import Direction


class Table(enum.IntEnum):
    """The stages, in the order packets pass them."""

    CLASSIFY = 0
    NEIGHBOURS = 2
    FILTER_FROM_SOFTWIRE = 4
    FILTER_FROM_INTERNET = 5
    UPSTREAM_PORT_SET = 10
    UPSTREAM_BINDING = 20
    UPSTREAM_ROUTE = 30
    FILTER_TO_INTERNET = 34
    INTERNET_OUTPUT = 36
    DOWNSTREAM_PORT_SET = 40
    DOWNSTREAM_BINDING = 50
    DOWNSTREAM_OUTPUT = 60
    FILTER_TO_SOFTWIRE = 61
    TO_SOFTWIRE = 62
    PATH_MTU = 63
    SOFTWIRE_OUTPUT = 64
    ARP_LEARN = 70
    ARP_ANSWER = 71
    UNKNOWN_LWB4 = 80
    UNKNOWN_LWB4_QUIET = 81
    UNKNOWN_LWB4_PUNT = 82
    UNKNOWN_IPV4 = 90
    UNKNOWN_IPV4_QUIET = 91
    UNKNOWN_IPV4_PUNT = 92


class Register:
    """What each register carries, and from where to where."""

    PSID = "reg0"  # port-set stages -> binding stages
    SCRATCH = "reg1"  # within one flow
    LARGER = "reg3"  # PATH_MTU -> SOFTWIRE_OUTPUT: 1 if the packet is larger than its path takes
    MTU = "reg4"  # PATH_MTU -> the controller: the largest IPv4 packet that the path takes
    QUIET = "reg2"  # UNKNOWN_..._QUIET -> UNKNOWN_..._PUNT: 1 if there is no need to show it
    SENT_ON = "reg5"  # the controller -> itself: 1 if it has had the packet, and given it back


IP_FIELDS = frozenset({"eth_type", "ip_proto", "ipv4_src", "ipv4_dst"})
FILTER_FIELDS = IP_FIELDS | {"tcp_src", "udp_src", "tcp_dst", "udp_dst"}
PORT_FIELDS = frozenset({"tcp_src", "udp_src", "tcp_dst", "udp_dst", "eth_src"})


@dataclass(frozen=True, slots=True)
class TableDeclaration:
    """What a table is for, what its flows may match, and where they may lead.

    Flows of ``transient`` tables end by themselves, and are not reconciled.
    """

    purpose: str
    matches: frozenset[str]
    leads_to: frozenset[Table] = frozenset()
    transient: bool = False


TABLES: dict[Table, TableDeclaration] = {
    Table.CLASSIFY: TableDeclaration(
        "Sorts packets by the port they came in by. Open vSwitch terminates tunnels at LOCAL: an "
        "IPv6 packet sent there that belongs to the softwire port comes back in by that port.",
        frozenset(
            {"in_port", "eth_type", "ipv6_dst", "ip_proto", "icmpv6_type"}
            | {"ipv4_dst", "vlan_vid", "ip_frag", "eth_src", "eth_dst"}
        ),
        frozenset(
            {
                Table.UPSTREAM_PORT_SET,
                Table.DOWNSTREAM_PORT_SET,
                Table.FILTER_FROM_SOFTWIRE,
                Table.FILTER_FROM_INTERNET,
                Table.ARP_LEARN,
                Table.NEIGHBOURS,
            }
        ),
    ),
    Table.NEIGHBOURS: TableDeclaration(
        "Neighbour advertisements. It is a table of its own so that no other packet's flow in the "
        "datapath has a hop limit.",
        frozenset({"eth_type", "nw_ttl", "ip_proto", "icmpv6_type", "ipv6_nd_target"}),
    ),
    Table.FILTER_FROM_SOFTWIRE: TableDeclaration(
        "The IPv6 side's rules for what comes in; of each table's, the first that matches decides.",
        FILTER_FIELDS | {"tun_ipv6_src"},
        frozenset({Table.UPSTREAM_PORT_SET}),
    ),
    Table.FILTER_FROM_INTERNET: TableDeclaration(
        "The IPv4 side's rules for what comes in.",
        FILTER_FIELDS,
        frozenset({Table.DOWNSTREAM_PORT_SET}),
    ),
    Table.UPSTREAM_PORT_SET: TableDeclaration(
        "From an lwB4: reads the PSID out of the inner source port (the ICMP identifier, which the "
        "shim wrote into eth_src).",
        IP_FIELDS | PORT_FIELDS | {"ip_frag"},
        frozenset({Table.UPSTREAM_BINDING, Table.UNKNOWN_LWB4}),
    ),
    Table.UPSTREAM_BINDING: TableDeclaration(
        "Anti-spoofing (RFC 7596 section 6.2): outer source, outer destination, inner source "
        "address and PSID must be those of one binding.",
        IP_FIELDS | {"tun_ipv6_src", "tun_ipv6_dst", Register.PSID},
        frozenset({Table.UPSTREAM_ROUTE, Table.UNKNOWN_LWB4}),
    ),
    Table.UPSTREAM_ROUTE: TableDeclaration(
        "To the Internet's next hop, or back down another softwire (hairpinning).",
        IP_FIELDS | {"nw_ttl"},
        frozenset({Table.DOWNSTREAM_PORT_SET, Table.FILTER_TO_INTERNET, Table.INTERNET_OUTPUT}),
    ),
    Table.FILTER_TO_INTERNET: TableDeclaration(
        "The IPv4 side's rules for what goes out.",
        FILTER_FIELDS,
        frozenset({Table.INTERNET_OUTPUT}),
    ),
    Table.INTERNET_OUTPUT: TableDeclaration("To the Internet's next hop.", frozenset({"eth_type"})),
    Table.DOWNSTREAM_PORT_SET: TableDeclaration(
        "To an lwB4: reads the PSID out of the destination port (or the ICMP identifier).",
        IP_FIELDS | PORT_FIELDS | {"ip_frag", "in_port", "icmpv4_type"},
        frozenset({Table.DOWNSTREAM_BINDING, Table.UPSTREAM_ROUTE}),
    ),
    Table.DOWNSTREAM_BINDING: TableDeclaration(
        "Finds the lwB4 that owns the destination address and PSID, and addresses the softwire.",
        IP_FIELDS | {Register.PSID},
        frozenset({Table.DOWNSTREAM_OUTPUT, Table.UNKNOWN_IPV4}),
    ),
    Table.DOWNSTREAM_OUTPUT: TableDeclaration(
        "Into the softwire, if the packet fits and may travel another hop.",
        IP_FIELDS | {"nw_ttl", "eth_src"},
        frozenset({Table.FILTER_TO_SOFTWIRE, Table.TO_SOFTWIRE}),
    ),
    Table.FILTER_TO_SOFTWIRE: TableDeclaration(
        "The IPv6 side's rules for what goes out.",
        FILTER_FIELDS | {"tun_ipv6_dst"},
        frozenset({Table.TO_SOFTWIRE}),
    ),
    Table.TO_SOFTWIRE: TableDeclaration(
        "Counts what goes into softwires.", frozenset({"eth_type"}), frozenset({Table.PATH_MTU})
    ),
    Table.PATH_MTU: TableDeclaration(
        "lwB4s the way to whom takes less than a softwire carries, as routers on it have said; for "
        "ten minutes each (RFC 8201 section 5.3).",
        frozenset({"eth_type", "tun_ipv6_dst"}),
        frozenset({Table.SOFTWIRE_OUTPUT}),
    ),
    Table.SOFTWIRE_OUTPUT: TableDeclaration(
        "Out by the softwire port. What is too large for its path goes to the controller, which "
        "answers or makes fragments.",
        frozenset({"eth_type", Register.LARGER}),
    ),
    Table.ARP_LEARN: TableDeclaration(
        "Shows the controller every ARP packet of the next hop, so that a move is seen at once.",
        frozenset({"eth_type", "arp_spa"}),
        frozenset({Table.ARP_ANSWER}),
    ),
    Table.ARP_ANSWER: TableDeclaration(
        "Answers ARP for the lwAFTR's own and its shared IPv4 addresses, without the controller.",
        frozenset({"eth_type", "arp_op", "arp_tpa"}),
    ),
    Table.UNKNOWN_LWB4: TableDeclaration(
        "A softwire packet without a binding is answered by the shim, or shown to the controller, "
        "up to a rate.",
        frozenset({"eth_type", "eth_dst", "tun_ipv6_dst"}),
        frozenset({Table.UNKNOWN_LWB4_QUIET, Table.UNKNOWN_LWB4_PUNT}),
    ),
    Table.UNKNOWN_LWB4_QUIET: TableDeclaration(
        "What the controller has seen enough of for the moment: outer sources that go on sending, "
        "and the outer source, inner source and PSID that the supporting system refused.",
        frozenset({"eth_type", "tun_ipv6_src", "ipv4_src", Register.PSID}),
        transient=True,
    ),
    Table.UNKNOWN_LWB4_PUNT: TableDeclaration(
        "Shows the controller what it wants to see, and drops the rest.",
        frozenset({"eth_type", Register.QUIET}),
    ),
    Table.UNKNOWN_IPV4: TableDeclaration(
        "The same for packets from the Internet to an address and port set without a binding.",
        frozenset({"eth_type"}),
        frozenset({Table.UNKNOWN_IPV4_QUIET, Table.UNKNOWN_IPV4_PUNT}),
    ),
    Table.UNKNOWN_IPV4_QUIET: TableDeclaration(
        "Addresses and PSIDs that the supporting system refused, or that go on being asked for.",
        frozenset({"eth_type", "ipv4_dst", Register.PSID}),
        transient=True,
    ),
    Table.UNKNOWN_IPV4_PUNT: TableDeclaration(
        "Shows the controller what it wants to see, and drops the rest.",
        frozenset({"eth_type", Register.QUIET}),
    ),
}


class CookieClass(enum.IntEnum):
    """The top byte of a cookie: what kind of flow it is."""

    PIPELINE = 1
    BINDING = 2
    DROP = 3
    PUNT = 4
    COUNT = 5
    TEMPORARY = 6
    FILTER = 7


FILTER_TABLES: dict[tuple[int, Direction], tuple[Table, Table]] = {
    (6, Direction.IN): (Table.FILTER_FROM_SOFTWIRE, Table.UPSTREAM_PORT_SET),
    (6, Direction.OUT): (Table.FILTER_TO_SOFTWIRE, Table.TO_SOFTWIRE),
    (4, Direction.IN): (Table.FILTER_FROM_INTERNET, Table.DOWNSTREAM_PORT_SET),
    (4, Direction.OUT): (Table.FILTER_TO_INTERNET, Table.INTERNET_OUTPUT),
}
"""Of each side's filter rules the table, and where what they let pass goes next."""

CLASS_MASK = 0xFF << 56
"""Selects the class of a cookie, in a flow-stats request for instance."""


def cookie(kind: CookieClass, object_id: int = 0) -> int:
    """A 64-bit cookie: class in the top byte, object id in the low 48 bits."""
    return kind << 56 | object_id


def binding_cookie(key: BindingKey) -> int:
    """The cookie of a binding's flows: its IPv4 address and PSID, so the switch's flows alone
    say which binding each of them belongs to."""
    return CookieClass.BINDING << 56 | key


class Drop(enum.IntEnum):
    """Every reason for which the switch drops a packet. Each is a flow, whose counter bears the
    lower-case name; the number is the flow's object id."""

    UNCLASSIFIED = 1
    NOT_FOR_US = 2
    SOFTWIRE_NOT_IPV4 = 3
    TAGGED = 4
    ND_FROM_AFAR = 5
    UPSTREAM_NOT_SERVED = 10
    UPSTREAM_NO_BINDING = 11
    UPSTREAM_EXCLUDED_PORT = 12
    UPSTREAM_PROTOCOL = 13
    UPSTREAM_ICMP = 15
    UPSTREAM_TTL_EXPIRED = 20
    HAIRPIN_DISABLED = 21
    NEXT_HOP_UNRESOLVED = 22
    DOWNSTREAM_NOT_SERVED = 30
    DOWNSTREAM_NO_BINDING = 31
    DOWNSTREAM_EXCLUDED_PORT = 32
    DOWNSTREAM_PROTOCOL = 33
    DOWNSTREAM_ICMP = 35
    DOWNSTREAM_TTL_EXPIRED = 36
    DOWNSTREAM_TOO_BIG = 37
    INBOUND_ICMP_DISABLED = 38
    TO_LWAFTR = 39
    ARP_IGNORED = 40


DROP_MEANING: dict[Drop, str] = {
    Drop.UNCLASSIFIED: "from an unexpected port or of an unexpected Ethernet type",
    Drop.NOT_FOR_US: "to an IPv6 address, or a MAC address, that is not the lwAFTR's",
    Drop.SOFTWIRE_NOT_IPV4: "something other than IPv4 in a softwire",
    Drop.TAGGED: "in a VLAN whose tag the NIC has taken away, so that the shim did not see it",
    Drop.ND_FROM_AFAR: "neighbour advertisements from beyond the link (RFC 4861 section 7.1.2)",
    Drop.UPSTREAM_NOT_SERVED: "inner source in none of the configured IPv4 prefixes",
    Drop.UPSTREAM_NO_BINDING: "outer source, inner source and port are not those of one binding",
    Drop.UPSTREAM_EXCLUDED_PORT: "inner source port is one that belongs to nobody (A field 0)",
    Drop.UPSTREAM_PROTOCOL: "a protocol without ports from a shared address, or protocol 0",
    Drop.UPSTREAM_ICMP: "ICMP that names no port: not echo, and no error that quotes one",
    Drop.UPSTREAM_TTL_EXPIRED: "inner TTL ran out on the way to the Internet",
    Drop.HAIRPIN_DISABLED: "from one lwB4 to another while hairpinning is off",
    Drop.NEXT_HOP_UNRESOLVED: "the IPv4 next hop has not answered ARP yet",
    Drop.DOWNSTREAM_NOT_SERVED: "destination in none of the configured IPv4 prefixes",
    Drop.DOWNSTREAM_NO_BINDING: "no binding owns the destination address and port",
    Drop.DOWNSTREAM_EXCLUDED_PORT: "destination port is one that belongs to nobody (A field 0)",
    Drop.DOWNSTREAM_PROTOCOL: "a protocol without ports to a shared address, or protocol 0",
    Drop.DOWNSTREAM_ICMP: "ICMP that names no port (RFC 7596 section 8.1)",
    Drop.DOWNSTREAM_TTL_EXPIRED: "TTL ran out on the way to an lwB4",
    Drop.DOWNSTREAM_TOO_BIG: "does not fit into the softwire's MTU, and has DF",
    Drop.INBOUND_ICMP_DISABLED: "ICMP from the Internet while policy forbids it",
    Drop.TO_LWAFTR: "IPv4 to the lwAFTR's own address, but an echo request",
    Drop.ARP_IGNORED: "ARP that asks for none of our addresses",
}


class Count(enum.IntEnum):
    """Flows on the way of packets that are not dropped, whose counters bear the lower-case name."""

    FROM_SOFTWIRE = 1
    FROM_INTERNET = 2
    TO_INTERNET = 3
    TO_SOFTWIRE = 4
    HAIRPINNED = 5
    UNKNOWN_LWB4 = 6
    UNKNOWN_IPV4 = 7
    FROM_LWAFTR = 8
    HELD_FROM_SOFTWIRE = 9
    HELD_FROM_INTERNET = 10
    SLOW_SOFTWIRE = 11
    TUNNEL_ICMP = 12
    ECHO_ANSWERED = 13
    ANSWERED_LWB4 = 14
    QUIET_LWB4 = 15
    FRAGMENTS_TO_LWAFTR = 16


class Punt(enum.IntEnum):
    """Why a packet is shown to the controller; also the id of the meter that limits it."""

    ARP = 1
    UNKNOWN_LWB4 = 2
    UNKNOWN_IPV4 = 3
    TOO_BIG = 4
    NEIGHBOUR = 5
    TTL_EXPIRED = 8
    FRAGMENT = 20
    AWAITED = 25
    SLOW_SOFTWIRE = 21
    TUNNEL_ICMP = 22
    PATH_MTU = 23
    ECHO = 24  # answered by the switch itself
    TO_LWAFTR = 26
    FRAGMENT_TO_LWAFTR = 27
    PCP = 9


PUNT_MEANING: dict[Punt, str] = {
    Punt.ARP: "ARP of the next hop",
    Punt.UNKNOWN_LWB4: "a packet of an lwB4 without a binding",
    Punt.UNKNOWN_IPV4: "a packet to an address without a binding",
    Punt.TOO_BIG: "a packet too big for a softwire, which is dropped without an answer",
    Punt.TTL_EXPIRED: "a packet whose TTL ran out, which is dropped without an answer",
    Punt.PCP: "a PCP request; it is lost",
    Punt.FRAGMENT: "a fragment that came before the first of its packet; it is lost",
    Punt.AWAITED: "a copy of a first fragment that others have come before; they are lost",
    Punt.SLOW_SOFTWIRE: "an IPv6 fragment, or a packet behind extension headers; it is lost",
    Punt.TUNNEL_ICMP: "an ICMPv6 error about a softwire packet",
    Punt.PATH_MTU: "a packet larger than the way to its lwB4 takes; it is lost",
    Punt.ECHO: "an echo request to the lwAFTR, which the switch would answer; it is lost",
    Punt.TO_LWAFTR: "a packet to the lwAFTR's own address, which is dropped without an answer",
    Punt.FRAGMENT_TO_LWAFTR: "a fragment to the lwAFTR's own address; it is lost",
}
"""What each meter does not let pass to the controller, counted as ``withheld_`` and its name."""

OVER_PATH_MTU = "over_path_mtu"
OVER_PATH_MTU_MEANING = (
    "IPv4 packets larger than the way to their lwB4 takes, which the controller answers or sends "
    "in fragments"
)


class Priority:
    """Higher wins. Flows of one table that cannot both match share a priority."""

    OWN_ECHO = 150
    OWN_ICMP = 145
    OWN = 140
    FRAGMENT_EXCEPTION = 135
    FRAGMENT = 130
    EXCEPTION = 120
    EXCLUDED = 110
    NORMAL = 100
    PROTOCOL = 50
    MISS = 0


class Mark:
    """What shim and rules tell each other in the Ethernet header of softwire frames.

    The shim writes eth_src of every packet, bit by bit as softwire.bpf.c says: source-side port
    and, of an ICMP error, destination-side port; ``ECHO``, or ``NO_PORTS`` when an ICMP packet
    names no port, or both when it is an error about a protocol that has none; ``TOO_BIG`` when a
    packet with DF is larger than the softwire MTU (Open vSwitch's own check_pkt_larger would count
    each packet in the flows of both outcomes). The rest of eth_src, and eth_dst, tell the
    controller of the outer header, and whether the shim ``ANSWERS`` this lwB4, or does but
    ``NOT_NOW``. The rules write ``BR_PREFIX`` + br_tag into eth_dst of what they send into the
    softwire, and ``REFUSED`` + br_tag, from ``BR_TAG_BIT`` on, into that of what the shim is to
    answer.
    """

    ECHO = 1 << 38
    NO_PORTS = 1 << 39
    TOO_BIG = 1 << 42
    SOURCE_PORT_BIT = 0
    DESTINATION_PORT_BIT = 16
    ANSWERS = 1 << 16
    NOT_NOW = 1 << 17
    BR_PREFIX = 0x024B << 32
    BR_TAG_BIT = 9
    REFUSED = 3 << 32


QUIET_SECONDS = 1
"""How long an unknown lwB4, or address and port set, that goes on sending is not shown to the
controller, and how long one that was refused is not told so again."""


class PipelineError(AssertionError):
    """A flow breaks its table's declaration: a mistake in the compiler, never in the input."""


def check(flow: Flow) -> Flow:
    """Return ``flow`` if it keeps to its table's declaration, raise PipelineError if not."""
    table = Table(flow.table)
    declared = TABLES[table]
    alien = {m.field for m in flow.match} - declared.matches
    if alien:
        raise PipelineError(f"{table.name} does not match on {sorted(alien)}: {flow}")
    targets = {a.table for a in flow.actions if isinstance(a, Resubmit)}
    if flow.goto is not None:
        targets.add(flow.goto)
    strays = targets - {int(t) for t in declared.leads_to}
    if strays:
        raise PipelineError(f"{table.name} does not lead to {sorted(strays)}: {flow}")
    return flow
