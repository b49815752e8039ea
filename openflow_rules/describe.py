"""The pipeline as a person reads it, from the same declarations that the rules are made of."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface

from openflow_rules.compiler import pipeline
from openflow_rules.compiler.bindings import BINDING_FLOWS
from openflow_rules.compiler.parts import (
    CONTROLLER_PORT,
    FRAG_FIRST,
    FRAG_LATER,
    IN_PORT,
    LOCAL_PORT,
    Ports,
)
from openflow_rules.flow import (
    Action,
    CheckLarger,
    DecTtl,
    Flow,
    Load,
    Match,
    Move,
    Output,
    Resubmit,
    SetField,
    ToController,
    Value,
    Var,
)
from openflow_rules.tables import (
    DROP_MEANING,
    OVER_PATH_MTU,
    OVER_PATH_MTU_MEANING,
    PUNT_MEANING,
    TABLES,
    CookieClass,
    Count,
    Mark,
    Table,
)
from ryu_lw4o6.core.binding import Prefix
from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.core.settings import Instance, Ipv4Side, Ipv6Side, Pcp

EXAMPLE = Instance(
    name="example",
    datapath_id=1,
    ipv6=Ipv6Side("eth6", IPv6Interface("2001:db8:1::1/64"), IPv6Address("2001:db8:1::fe"), 1540),
    ipv4=Ipv4Side("eth4", IPv4Interface("198.51.100.1/24"), IPv4Address("198.51.100.254")),
    aftr_addresses=(IPv6Address("2001:db8:ffff::1"),),
    prefixes=(
        Prefix(IPv4Network("192.0.2.0/24"), PortParams(6, 6)),
        Prefix(IPv4Network("203.0.113.0/29"), PortParams(0, 0)),
    ),
    pcp=Pcp(pool=()),
)
"""The instance that the pipeline page shows: a shared prefix, one of full addresses, and PCP."""

EXAMPLE_PORTS = Ports(
    ipv6=6, ipv4=4, softwire=10, ipv4_mac="02:00:00:00:04:01", local_mac="02:00:00:00:06:01"
)
EXAMPLE_NEXT_HOP = "02:00:00:00:04:fe"

_ETHERTYPES = {0x0800: "ip", 0x0806: "arp", 0x86DD: "ipv6"}
_FRAGMENTS: dict[Value, str] = {0: "no", FRAG_LATER: "later", FRAG_FIRST: "first"}
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}


def _value(value: Value) -> str:
    return value.value if isinstance(value, Var) else str(value)


class Printer:
    """Prints flows of one instance with port names in place of numbers."""

    def __init__(self, instance: Instance, ports: Ports) -> None:
        self._ports = {
            ports.ipv6: instance.ipv6.port,
            ports.ipv4: instance.ipv4.port,
            ports.softwire: instance.softwire_port,
            LOCAL_PORT: "LOCAL",
            CONTROLLER_PORT: "CONTROLLER",
            IN_PORT: "in_port",
        }

    def match(self, match: Match) -> str:
        if match.field == "eth_type" and isinstance(match.value, int):
            return _ETHERTYPES[match.value]
        if match.field == "ip_proto" and isinstance(match.value, int):
            return _PROTOCOLS.get(match.value, f"ip_proto={match.value}")
        if match.field == "in_port" and isinstance(match.value, int):
            return f"in_port={self._ports[match.value]}"
        if match.field == "ip_frag":
            return f"ip_frag={_FRAGMENTS[match.value]}"
        if match.mask is None:
            return f"{match.field}={_value(match.value)}"
        mask = hex(match.mask) if isinstance(match.mask, int) else match.mask
        return f"{match.field}={_value(match.value)}/{mask}"

    def action(self, action: Action) -> str:
        match action:
            case SetField(field, value):
                return f"set {field}={_value(value)}"
            case Load(field, bits, value, first):
                part = _bits(field, first, bits) if first else field
                return f"set {part}={value:#x}" if first else f"set {part}={value}"
            case Move(src, src_bit, dst, dst_bit, bits):
                source, target = _bits(src, src_bit, bits), _bits(dst, dst_bit, bits)
                return f"{target}={source}"
            case CheckLarger(size, register):
                return f"{register}[0]=more than {size} bytes?"
            case DecTtl():
                return "dec_ttl"
            case Output(port):
                return f"output {self._ports[port]}"
            case ToController(meter=int(meter)):
                return f"controller(meter {meter})"
            case ToController(max_len):
                return "controller" if max_len == 0xFFFF else f"controller({max_len} bytes)"
            case Resubmit(table):
                return f"look in {Table(table).name}"

    def flow(self, flow: Flow) -> str:
        matches = ",".join(self.match(m) for m in flow.match) or "any"
        steps = [self.action(a) for a in flow.actions]
        if flow.meter is not None:
            steps.insert(0, f"meter {flow.meter}")
        if flow.goto is not None:
            steps.append(f"-> {Table(flow.goto).name}")
        return f"{flow.priority:>4}  {matches}  =>  {', '.join(steps) or 'drop'}"


def _bits(field: str, first: int, count: int) -> str:
    return f"{field}[{first}..{first + count - 1}]"


def page(
    instance: Instance = EXAMPLE,
    ports: Ports = EXAMPLE_PORTS,
    next_hop_mac: str | None = EXAMPLE_NEXT_HOP,
) -> str:
    """The whole pipeline of an instance as Markdown, which reads well on a terminal too."""
    return "\n".join(_lines(instance, ports, next_hop_mac)) + "\n"


def _lines(instance: Instance, ports: Ports, next_hop_mac: str | None) -> Iterator[str]:
    printer = Printer(instance, ports)
    flows = [*pipeline(instance, ports, next_hop_mac), *BINDING_FLOWS]
    prefixes = ", ".join(
        f"{p.network} (PSID offset {p.params.psid_offset}, length {p.params.psid_length})"
        for p in instance.prefixes
    )
    yield "# The OpenFlow pipeline"
    yield ""
    yield f"As compiled for instance `{instance.name}`: {prefixes}. Each flow is shown as"
    yield "`priority  match  =>  actions`, with what it is for below it. Flows with `<...>` exist"
    yield "once for every binding."
    for table, declared in TABLES.items():
        yield ""
        yield f"## {table.value} {table.name}"
        yield ""
        yield declared.purpose
        here = [flow for flow in flows if flow.table == table]
        if declared.transient:
            yield ""
            yield "Flows here come and end by themselves; a miss continues where it came from."
        if not here:
            continue
        yield ""
        yield "```"
        for flow in sorted(here, key=lambda f: -f.priority):
            yield printer.flow(flow)
            yield f"      {flow.note}"
        yield "```"
    yield ""
    yield "## Cookies"
    yield ""
    yield "The top byte of a cookie is its class, the rest the object:"
    yield ""
    yield "| class | name | object |"
    yield "|---|---|---|"
    objects = {
        CookieClass.PIPELINE: "table",
        CookieClass.BINDING: "IPv4 address (bits 16-47) and PSID (bits 0-15)",
        CookieClass.DROP: "reason, see below",
        CookieClass.PUNT: "why the controller is shown the packet; also the meter",
        CookieClass.COUNT: "what is counted, see below",
        CookieClass.FILTER: "filter rule: its table (bits 16-31) and number",
        CookieClass.TEMPORARY: "flows with a timeout, which the controller leaves to the switch",
    }
    for kind, text in objects.items():
        yield f"| {kind.value} | {kind.name.lower()} | {text} |"
    yield ""
    yield "## Counters"
    yield ""
    yield "| counter | what it counts |"
    yield "|---|---|"
    for count, text in COUNT_MEANING.items():
        yield f"| `{count.name.lower()}` | {text} |"
    yield f"| `{OVER_PATH_MTU}` | {OVER_PATH_MTU_MEANING} |"
    for drop, text in DROP_MEANING.items():
        yield f"| `drop_{drop.name.lower()}` | dropped: {text} |"
    for punt, text in PUNT_MEANING.items():
        yield f"| `withheld_{punt.name.lower()}` | not let pass by meter {punt}: {text} |"
    yield ""
    yield "## Marks in the Ethernet header of softwire frames"
    yield ""
    yield "| bits | what the shim writes there for rules and controller |"
    yield "|---|---|"
    for bits, text in MARKS.items():
        yield f"| {bits} | {text} |"


MARKS = {
    "eth_src 0-15": "ICMP and later fragments: port on the source's side; the identifier of "
    "an echo",
    "eth_src 16-31": "ICMP errors and later fragments: port on the destination's side; others: low "
    "bits of the outer flow label",
    "eth_src 32-35": "high bits of the outer flow label",
    "eth_src 36-37, 41, 43-47": "outer hop limit",
    f"eth_src {Mark.ECHO.bit_length() - 1}": "an ICMP echo; with the next bit, a later "
    "fragment of a protocol without ports, or an ICMP error about one",
    f"eth_src {Mark.NO_PORTS.bit_length() - 1}": "ICMP that names no port; a fragment whose "
    "ports are not known yet; a first fragment that others have come before",
    f"eth_src {Mark.TOO_BIG.bit_length() - 1}": "larger than a softwire carries whole, with DF",
    "eth_dst 0-7": "outer traffic class",
    "eth_dst 8": "there was an encapsulation limit (RFC 2473 section 4.1.1)",
    f"eth_dst {Mark.ANSWERS.bit_length() - 1}": "the shim answers the lwB4 if the packet has no "
    "binding",
    f"eth_dst {Mark.NOT_NOW.bit_length() - 1}": "but not now: it has just been "
    "told, or must not be",
    "eth_dst, from the rules": "`02:4b:tt:tt:tt:tt`: the br-address, by its CRC-32",
    f"eth_dst {Mark.BR_TAG_BIT}-47, from the rules": "the same CRC-32 below the bits 0000011: "
    "refused, to be answered",
}

COUNT_MEANING: dict[Count, str] = {
    Count.FROM_SOFTWIRE: "IPv4 packets out of softwires",
    Count.FROM_INTERNET: "IPv4 packets from the Internet's side",
    Count.TO_INTERNET: "IPv4 packets forwarded to the next hop",
    Count.TO_SOFTWIRE: "IPv4 packets put into softwires",
    Count.HAIRPINNED: "IPv4 packets from one lwB4 to another",
    Count.FROM_LWAFTR: "ICMPv4 errors and echo replies of the lwAFTR itself to lwB4s",
    Count.HELD_FROM_SOFTWIRE: "fragments from lwB4s that came before the first of their packet, "
    "which the controller holds",
    Count.HELD_FROM_INTERNET: "the same from the Internet",
    Count.SLOW_SOFTWIRE: "softwire packets in IPv6 fragments, behind extension headers, or larger "
    "than the Internet's side takes, which the controller takes out; other IPv6 fragments as well",
    Count.TUNNEL_ICMP: "ICMPv6 errors about softwire packets, from routers on the way to lwB4s",
    Count.ECHO_ANSWERED: "ICMPv4 echo requests to the lwAFTR's own address",
    Count.FRAGMENTS_TO_LWAFTR: "IPv4 fragments to the lwAFTR's own address, which the controller "
    "reassembles",
    Count.ANSWERED_LWB4: "packets from lwB4s without a binding that the shim answers by ICMPv6, as "
    "far as `unknown_rate` lets it",
    Count.QUIET_LWB4: "packets from lwB4s without a binding that have been told within the last "
    "second, or must not be",
    Count.UNKNOWN_LWB4: "packets from lwB4s without a binding; the supporting system is asked",
    Count.UNKNOWN_IPV4: "packets to addresses without a binding; the supporting system is asked",
}
