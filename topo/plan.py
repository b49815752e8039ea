"""What the lab is made of, as values. Nothing is built here.

    host1 -- nat1 == tun1 --.
    host2 -- nat2 == tun2 ---+-- access ---- lwaftr1 ---- inet
    host3 -- nat3 == tun3 --'      IPv6        |  Open vSwitch, ryu-manager
                                               '  of its own

An lwB4 takes two namespaces: ``nat`` does NAPT44 into the port set, ``tun`` encapsulates (see
``topo.lwb4``). One that is provisioned has an agent that does the rest in both; the others have a
fixed address.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface
from typing import Any

from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.core.settings import Datapath
from topo.lwb4 import napt, softwire
from topo.lwb4.lease import Lease
from topo.lwb4.napt import Forward
from topo.lwb4.softwire import Softwire, Tunnel
from topo.provisioning import KEA, KEA_ADDRESS, KEA_IDENTIFIER, KEA_ROUTER, Provisioning

ACCESS_MTU = 1540
"""The access network carries a full-sized IPv4 packet (1500 bytes) in a softwire."""

INNER_MTU = 1500
ANYCAST = IPv6Address("2001:db8:ffff::1")
SERVER = IPv4Address("198.18.0.80")
LAN_ROUTER, LAN_HOST = IPv4Address("192.168.1.1"), IPv4Address("192.168.1.2")
SHARED = IPv4Network("192.0.2.0/28")
FULL = IPv4Network("203.0.113.0/29")
SHARED_PARAMS = PortParams(6, 6)
FULL_PARAMS = PortParams(0, 0)
INBOUND_PORT = 8007  # the host's
FORWARD = Forward(LAN_HOST, INBOUND_PORT)
"""What every lwB4 forwards from the last of its ports."""
MOST_SUBSCRIBERS = 18


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
    def lease(self) -> Lease:
        """The address and ports, if nobody else says which."""
        return Lease.of(self.ipv4, self.params, self.psid)

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
    provisioning: Provisioning = Provisioning.STATIC

    @property
    def provisioned(self) -> bool:
        """Whether lwB4s have an agent that is told their address."""
        return self.provisioning is not Provisioning.STATIC

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where there are lwAFTRs."""
        return SITES[:1]

    @property
    def links(self) -> tuple[Link, ...]:
        links = list(self._core_links())
        if self.provisioning is Provisioning.DHCP:
            links.append(Link("access", "kea", KEA, "eth0"))
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
        if self.provisioning is Provisioning.DHCP:
            yield from _kea()
        for sub in self.subscribers:
            yield from _subscriber(sub)
            if not self.provisioned:
                yield from self._static(sub)

    def _static(self, sub: Subscriber) -> Iterator[tuple[str, list[str]]]:
        for command in softwire.translator_address(None, sub.ipv4):
            yield sub.nat, command
        for command in softwire.tunnel_address(None, sub.ipv4):
            yield sub.tun, command
        for command in softwire.tunnel_commands(self.softwire(sub)):
            yield sub.tun, command

    def softwire(self, sub: Subscriber) -> Softwire:
        return Softwire(sub.lwb4, ANYCAST, self.tunnel)

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

    def options(self) -> dict[str, Any]:
        """What makes this lab differ from others, ready for JSON; ``topo.labs`` reads it."""
        return {
            "datapath": self.datapath,
            "tunnel": self.tunnel,
            "subscribers": len(self.subscribers),
            "provisioning": self.provisioning,
        }

    def napt(self, sub: Subscriber) -> str:
        """An nftables ruleset for the NAPT44 of an lwB4 with a fixed address, in the place of the
        one before."""
        return napt.ruleset(sub.lease, FORWARD)

    def softwire_rules(self, sub: Subscriber) -> str:
        """nftables for the tunnel of an lwB4 with a fixed address."""
        return softwire.tunnel_rules(self.softwire(sub))

    def agent(self, sub: Subscriber, translator: str, directory: str) -> list[str]:
        """The command that runs the agent of an lwB4 that is provisioned. ``translator`` is the
        namespace of its NAPT44."""
        return [
            "lw4o6-lwb4", "run", directory, "--provisioning", self.provisioning,
            "--lwb4", str(sub.lwb4), "--aftr", str(ANYCAST), "--translator", translator,
            "--tunnel", self.tunnel, "--dhcpv6", str(ANYCAST),
            "--forward", f"{FORWARD.host}:{FORWARD.port}",
        ]  # fmt: skip

    def config(self, site: Site, directory: str) -> str:
        """The configuration file of the lwAFTR at ``site``; ``directory`` is the lab's."""
        return (
            f"store: sqlite:///{directory}/{site.name}/bindings.sqlite\n"
            f"{self.provisioning.prefixes(((SHARED, SHARED_PARAMS), (FULL, FULL_PARAMS)))}"
            f"{'' if self.provisioned else self._bindings()}"
            f"{instance(site, self.datapath)}"
            f"{self.provisioning.instance(SHARED)}"
        )

    def _bindings(self) -> str:
        bindings = "".join(
            f'  - {{lwb4: "{sub.lwb4}", ipv4: {sub.ipv4}, psid: {sub.psid}}}\n'
            for sub in self.subscribers[1:]
        )
        return f"# The first subscriber's binding is made over REST.\nbindings:\n{bindings}"


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
    yield sub.host, ["route", "add", "default", "via", str(LAN_ROUTER)]
    yield sub.nat, ["addr", "add", f"{LAN_ROUTER}/24", "dev", "lan"]
    yield sub.tun, ["addr", "add", f"{softwire.B4_ADDRESS}/32", "dev", "v4"]
    yield sub.tun, ["addr", "add", f"{sub.lwb4}/64", "dev", "wan", "nodad"]
    yield sub.tun, ["-6", "route", "add", "default", "via", str(sub.gateway)]
    yield "access", ["addr", "add", f"{sub.gateway}/64", "dev", f"sub{sub.number}", "nodad"]


def _kea() -> Iterator[tuple[str, list[str]]]:
    yield "access", ["addr", "add", str(KEA_ROUTER), "dev", "kea", "nodad"]
    yield KEA, ["addr", "add", str(KEA_ADDRESS), "dev", "eth0", "nodad"]
    yield KEA, ["addr", "add", str(KEA_IDENTIFIER), "dev", "eth0"]
    yield KEA, ["-6", "route", "add", "default", "via", str(KEA_ROUTER.ip)]
