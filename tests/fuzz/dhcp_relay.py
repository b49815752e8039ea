"""What the DHCP relay makes of any datagrams, from clients and from the server: messages and
counts, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Address, IPv6Network

from ryu_lw4o6.core import dhcpv6
from ryu_lw4o6.core.binding import BindingTable
from ryu_lw4o6.core.dhcpv6 import Kind, Relayed
from ryu_lw4o6.core.settings import DhcpRelay as Settings
from ryu_lw4o6.provisioning.dhcp_relay import DhcpRelay
from ryu_lw4o6.provisioning.dhcp_sockets import Ear, Origin
from tests.fuzz.dhcp import HEADER
from tests.rules.samples import PREFIXES, instance

SERVER, LWB4 = IPv6Address("2001:db8:9::67"), IPv6Address("2001:db8:b4::1")
OWN = IPv6Address("2001:db8:1::1")
LEASED = (replace(PREFIXES[0], leased_as=IPv4Network("10.64.0.0/18")), *PREFIXES[1:])
SETTINGS = Settings(SERVER, OWN, access_relays=(IPv6Network("2001:db8:b4::/64"),))
INSTANCE = replace(instance(), prefixes=LEASED, dhcp=SETTINGS)
TABLE = BindingTable(LEASED)


class Wire(Ear):
    """Takes what is sent."""

    def __init__(self) -> None:
        super().__init__(OWN)
        self.sent: list[bytes] = []

    def send(self, data: bytes, address: IPv6Address, port: int, scope: int = 0) -> bool:
        self.sent.append(data)
        return True


def alter(choose: Callable[[BindingTable], object], reason: str) -> None:
    choose(TABLE)


def datagrams_are_relayed(data: bytes) -> None:
    """The bytes as they are, and as DHCPv4 options of a query and of its answer."""
    relay = DhcpRelay(INSTANCE, alter, lambda: None)
    wire = Wire()
    relay._ears = dict.fromkeys(relay._ears, wire)
    relay._own = relay._upstream = wire
    client, server = Origin((str(LWB4), 546, 0, 0)), Origin((str(SERVER), 547, 0, 0))
    asked, answered = data[: len(data) // 2], data[len(data) // 2 :]
    relay.receive(data, client, wire)
    relay.receive(dhcpv6.dhcpv4_query(HEADER + asked).pack(), client, wire)
    relay.receive(data, server, wire)
    for yiaddr in (b"\0\0\0\0", b"\x0a\x40\0\x43"):
        reply = b"\2" + HEADER[1:16] + yiaddr + HEADER[20:] + answered
        for inner in (dhcpv6.dhcpv4_response(reply).pack(), answered):
            back = Relayed(Kind.RELAY_REPL, 0, OWN, LWB4, ((9, inner),))
            relay.receive(back.pack(), server, wire)
    relay._work(list(relay._jobs))
    assert relay.counts["received"] == 7
    for message in wire.sent:
        dhcpv6.unwrap(message)
    assert relay.status()
