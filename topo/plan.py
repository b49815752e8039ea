"""What the lab is made of, as values. Nothing is built here.

    host1 -- nat1 == tun1 --.
    host2 -- nat2 == tun2 ---+-- access ---- lwaftr1 ---- inet
    host3 -- nat3 == tun3 --'      IPv6        |  Open vSwitch, ryu-manager
                                               '  of its own

An lwB4 takes two namespaces: ``nat`` does NAPT44 into the port set, ``tun`` encapsulates, in one of
two ways. Where there is no tunnel driver, the kernel's plain IPv6 encapsulation (SRv6 with one
segment and no routing header) is RFC 2473 on the wire; its route would bypass the NAPT if both were
in one namespace.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface
from typing import Any

from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.core.settings import Datapath

ACCESS_MTU = 1540
"""The access network carries a full-sized IPv4 packet (1500 bytes) in a softwire."""

INNER_MTU = 1500
ANYCAST = IPv6Address("2001:db8:ffff::1")
SERVER = IPv4Address("198.18.0.80")
B4_SOFTWIRE = "192.0.0.2"  # the well-known address of a B4 inside its softwire (RFC 6333 5.7)
LAN_ROUTER, LAN_HOST = "192.168.1.1", "192.168.1.2"
SHARED = IPv4Network("192.0.2.0/28")
FULL = IPv4Network("203.0.113.0/29")
SHARED_PARAMS = PortParams(6, 6)
FULL_PARAMS = PortParams(0, 0)
INBOUND_PORT = 8007  # the host's
MOST_SUBSCRIBERS = 18


class Tunnel(enum.StrEnum):
    """What an lwB4 encapsulates with."""

    SRV6 = "srv6"
    IPIP6 = "ipip6"  # ip -6 tunnel ... mode ipip6


@dataclass(frozen=True, slots=True)
class Subscriber:
    """One lwB4 and the host behind it."""

    number: int
    ipv4: IPv4Address
    psid: int
    params: PortParams

    @property
    def host(self) -> str:
        return f"host{self.number}"

    @property
    def nat(self) -> str:
        return f"nat{self.number}"

    @property
    def tun(self) -> str:
        return f"tun{self.number}"

    @property
    def lwb4(self) -> IPv6Address:
        return IPv6Address(f"2001:db8:b4:{self.number}::1")

    @property
    def gateway(self) -> IPv6Address:
        return IPv6Address(f"2001:db8:b4:{self.number}::fe")

    @property
    def ports(self) -> list[range]:
        return list(self.params.port_ranges(self.psid))

    @property
    def inbound_port(self) -> int:
        """The public port at which the host behind the lwB4 is reached."""
        return self.ports[-1][-1]

    def owns(self, port: int) -> bool:
        return any(port in ports for ports in self.ports)


def subscribers(count: int) -> tuple[Subscriber, ...]:
    """Every third has an address of its own, the others share one."""
    found = []
    for number in range(1, count + 1):
        whole, shared = number // 3, number - number // 3
        if number % 3 == 0:
            found.append(Subscriber(number, FULL[whole], 0, FULL_PARAMS))
        else:
            found.append(Subscriber(number, SHARED[1], 2 + shared, SHARED_PARAMS))
    return tuple(found)


SUBSCRIBERS = subscribers(3)


@dataclass(frozen=True, slots=True)
class Site:
    """An lwAFTR's place in the network: its addresses and its routers', on either side."""

    number: int
    ipv6: IPv6Interface
    router6: IPv6Address
    ipv4: IPv4Interface
    router4: IPv4Address

    @property
    def name(self) -> str:
        return f"lwaftr{self.number}"


SITES = tuple(
    Site(
        number,
        IPv6Interface(f"2001:db8:{number}::1/64"),
        IPv6Address(f"2001:db8:{number}::fe"),
        IPv4Interface((half[1], 25)),
        half[126],
    )
    for number, half in enumerate(IPv4Network("198.51.100.0/24").subnets(), 1)
)


@dataclass(frozen=True, slots=True)
class Link:
    """A veth between two nodes; ``mtu`` on both ends."""

    left: str
    left_name: str
    right: str
    right_name: str
    mtu: int = INNER_MTU


@dataclass(frozen=True, slots=True)
class Lab:
    """``name`` begins every namespace's name, so that several labs can stand side by side."""

    name: str = "lw4o6"
    subscribers: tuple[Subscriber, ...] = SUBSCRIBERS
    datapath: Datapath = Datapath.USERSPACE
    tunnel: Tunnel = Tunnel.SRV6

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where there are lwAFTRs."""
        return SITES[:1]

    @property
    def links(self) -> tuple[Link, ...]:
        links = list(self._core_links())
        for sub in self.subscribers:
            links += [
                Link(sub.host, "eth0", sub.nat, "lan"),
                Link(sub.nat, "softwire", sub.tun, "v4"),
                Link(sub.tun, "wan", "access", f"sub{sub.number}", ACCESS_MTU),
            ]
        return tuple(links)

    @property
    def nodes(self) -> tuple[str, ...]:
        found = dict.fromkeys(node for link in self.links for node in (link.left, link.right))
        return tuple(found)

    def addresses(self) -> Iterator[tuple[str, list[str]]]:
        """Commands (arguments of ``ip``) that address and route each node, as (node, command)."""
        yield from self._core_addresses()
        for sub in self.subscribers:
            yield from _subscriber(sub)
            yield from (_srv6 if self.tunnel is Tunnel.SRV6 else _ipip6)(sub)

    def _core_links(self) -> Iterator[Link]:
        yield Link("access", "core6", "lwaftr1", "eth6", ACCESS_MTU)
        yield Link("lwaftr1", "eth4", "inet", "eth0")

    def _core_addresses(self) -> Iterator[tuple[str, list[str]]]:
        (site,) = self.sites
        yield "access", ["addr", "add", f"{site.router6}/64", "dev", "core6", "nodad"]
        yield "access", ["-6", "route", "add", f"{ANYCAST}/128", "via", str(site.ipv6.ip)]
        yield "inet", ["addr", "add", f"{site.router4}/25", "dev", "eth0"]
        yield "inet", ["addr", "add", f"{SERVER}/32", "dev", "lo"]
        for prefix in (SHARED, FULL):
            yield "inet", ["route", "add", str(prefix), "via", str(site.ipv4.ip)]

    def settings(self, node: str) -> tuple[str, ...]:
        """More of a node's settings below /proc/sys/net, as ``name=value``."""
        return ()

    @property
    def rest_host(self) -> str:
        """Where controllers listen for REST."""
        return "127.0.0.1"

    def options(self) -> dict[str, Any]:
        """What makes this lab differ from others, ready for JSON; ``topo.labs`` reads it."""
        return {
            "datapath": self.datapath,
            "tunnel": self.tunnel,
            "subscribers": len(self.subscribers),
        }

    def napt(self, sub: Subscriber) -> str:
        """An nftables ruleset for the lwB4's NAPT44, in the place of the one before.

        One port is forwarded to the host, for connections from the Internet.
        """
        if sub.params.shared:
            # A map of ranges with the range as key would use the first port of each range only.
            ranges = ", ".join(
                f"{i} : {sub.ipv4} . {ports[0]}-{ports[-1]}" for i, ports in enumerate(sub.ports)
            )
            count = len(sub.ports)
            snat = (
                "meta l4proto { tcp, udp, icmp } snat ip to "
                f"numgen inc mod {count} map {{ {ranges} }}"
            )
        else:
            snat = f"snat to {sub.ipv4}"
        return (
            "table ip napt44\ndelete table ip napt44\ntable ip napt44 {\n"
            " chain post {\n  type nat hook postrouting priority srcnat;\n"
            f'  oifname "softwire" {snat}\n }}\n'
            " chain pre {\n  type nat hook prerouting priority dstnat;\n"
            f'  iifname "softwire" ip daddr {sub.ipv4} tcp dport {sub.inbound_port} '
            f"dnat to {LAN_HOST}:{INBOUND_PORT}\n }}\n}}\n"
        )

    def softwire_rules(self, sub: Subscriber) -> str:
        """nftables: only IPv4-in-IPv6 to the lwB4 is decapsulated; the rest stays local."""
        if self.tunnel is Tunnel.IPIP6:
            return ""
        return (
            "table ip6 softwire {\n chain pre {\n"
            "  type filter hook prerouting priority mangle;\n"
            f"  ip6 nexthdr 4 ip6 daddr {sub.lwb4} meta mark set 44\n }}\n}}\n"
        )

    def config(self, site: Site, directory: str) -> str:
        """The configuration file of the lwAFTR at ``site``; ``directory`` is the lab's."""
        bindings = "".join(
            f'  - {{lwb4: "{sub.lwb4}", ipv4: {sub.ipv4}, psid: {sub.psid}}}\n'
            for sub in self.subscribers[1:]
        )
        return (
            f"store: sqlite:///{directory}/{site.name}/bindings.sqlite\n"
            f"{prefixes(SHARED, FULL)}"
            "# The first subscriber's binding is made over REST.\n"
            f"bindings:\n{bindings}"
            f"{instance(site, self.datapath)}"
        )


def prefixes(shared: IPv4Network, full: IPv4Network) -> str:
    """The public addresses, in the words of a configuration file."""
    return "prefixes:\n" + "".join(
        f"  - {{prefix: {network}, psid_offset: {params.psid_offset}, "
        f"psid_length: {params.psid_length}}}\n"
        for network, params in ((shared, SHARED_PARAMS), (full, FULL_PARAMS))
    )


def instance(site: Site, datapath: Datapath) -> str:
    """The lwAFTR at ``site``, in the words of a configuration file."""
    return (
        "instances:\n"
        f"  - name: {site.name}\n"
        f"    datapath_id: {site.number}\n"
        f"    datapath: {datapath}\n"
        f"    aftr_addresses: ['{ANYCAST}']\n"
        f"    ipv6: {{port: eth6, address: '{site.ipv6}', next_hop: '{site.router6}', "
        f"mtu: {ACCESS_MTU}}}\n"
        f"    ipv4: {{port: eth4, address: {site.ipv4}, next_hop: {site.router4}}}\n"
    )


def _subscriber(sub: Subscriber) -> Iterator[tuple[str, list[str]]]:
    yield sub.host, ["addr", "add", f"{LAN_HOST}/24", "dev", "eth0"]
    yield sub.host, ["route", "add", "default", "via", LAN_ROUTER]
    yield sub.nat, ["addr", "add", f"{LAN_ROUTER}/24", "dev", "lan"]
    yield sub.nat, ["addr", "add", f"{sub.ipv4}/32", "dev", "softwire"]
    yield sub.nat, ["route", "add", "default", "via", B4_SOFTWIRE, "dev", "softwire", "onlink"]
    yield sub.tun, ["addr", "add", f"{B4_SOFTWIRE}/32", "dev", "v4"]
    yield sub.tun, ["route", "add", f"{sub.ipv4}/32", "dev", "v4"]
    yield sub.tun, ["addr", "add", f"{sub.lwb4}/64", "dev", "wan", "nodad"]
    yield sub.tun, ["-6", "route", "add", "default", "via", str(sub.gateway)]
    yield "access", ["addr", "add", f"{sub.gateway}/64", "dev", f"sub{sub.number}", "nodad"]


def _ipip6(sub: Subscriber) -> Iterator[tuple[str, list[str]]]:
    """The kernel's tunnel driver, with its encapsulation limit option as it comes."""
    yield sub.tun, [
        "-6", "tunnel", "add", "softwire", "mode", "ipip6", "local", str(sub.lwb4),
        "remote", str(ANYCAST), "dev", "wan",
    ]  # fmt: skip
    yield sub.tun, ["link", "set", "softwire", "up"]
    yield sub.tun, ["route", "add", "default", "dev", "softwire"]


def _srv6(sub: Subscriber) -> Iterator[tuple[str, list[str]]]:
    yield sub.tun, ["sr", "tunsrc", "set", str(sub.lwb4)]
    yield sub.tun, [
        "route", "add", "default", "encap", "seg6", "mode", "encap.red", "segs", str(ANYCAST),
        "dev", "wan", "mtu", str(INNER_MTU),
    ]  # fmt: skip
    # The rule for marked packets must come before the table of local addresses.
    yield sub.tun, ["-6", "rule", "add", "pref", "100", "lookup", "local"]
    yield sub.tun, ["-6", "rule", "del", "pref", "0"]
    yield sub.tun, ["-6", "rule", "add", "pref", "10", "fwmark", "44", "lookup", "44"]
    yield sub.tun, [
        "-6", "route", "add", f"{sub.lwb4}/128", "encap", "seg6local", "action", "End.DX4",
        "nh4", "0.0.0.0", "dev", "v4", "table", "44",
    ]  # fmt: skip
