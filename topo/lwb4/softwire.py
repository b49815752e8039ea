"""The lwB4's softwire (RFC 2473): commands for the kernel, as arguments of ``ip``, and nftables
rulesets.

The tunnel has a network namespace of its own, apart from the translator's: the route that
encapsulates would bypass the NAPT. Interfaces in it: ``wan`` to the access network, ``v4`` to the
translator.
"""

from __future__ import annotations

import enum
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from topo.lwb4.napt import SOFTWIRE

B4_ADDRESS = IPv4Address("192.0.0.2")
"""A B4's own address inside its softwire (RFC 6333 section 5.7)."""
MTU = 1500
TABLE = "lwb4"
_MARK = 44  # of what is to be decapsulated, and the number of the routing table for it
RECENT = 10.0
"""Seconds for which the kernel remembers which flows have sent a packet."""


class Tunnel(enum.StrEnum):
    """What an lwB4 encapsulates with."""

    SRV6 = "srv6"  # the kernel's plain IPv6 encapsulation; on the wire the same
    IPIP6 = "ipip6"  # ip -6 tunnel ... mode ipip6, with its encapsulation limit option


class Softwire(NamedTuple):
    """From the lwB4's tunnel address to its lwAFTR's."""

    lwb4: IPv6Address
    aftr: IPv6Address
    tunnel: Tunnel = Tunnel.SRV6


def tunnel_commands(softwire: Softwire) -> list[list[str]]:
    """Make the tunnel, in the tunnel's namespace that has none yet."""
    lwb4, aftr = str(softwire.lwb4), str(softwire.aftr)
    if softwire.tunnel is Tunnel.IPIP6:
        return [
            ["-6", "tunnel", "add", "softwire", "mode", "ipip6", "local", lwb4, "remote", aftr,
             "dev", "wan"],
            ["link", "set", "softwire", "up"],
            ["route", "add", "default", "dev", "softwire"],
        ]  # fmt: skip
    return [
        ["sr", "tunsrc", "set", lwb4],
        ["route", "add", "default", "encap", "seg6", "mode", "encap.red", "segs", aftr,
         "dev", "wan", "mtu", str(MTU)],
        # The rule for marked packets must come before the table of local addresses.
        ["-6", "rule", "add", "pref", "100", "lookup", "local"],
        ["-6", "rule", "del", "pref", "0"],
        ["-6", "rule", "add", "pref", "10", "fwmark", str(_MARK), "lookup", str(_MARK)],
        ["-6", "route", "add", f"{lwb4}/128", "encap", "seg6local", "action", "End.DX4",
         "nh4", "0.0.0.0", "dev", "v4", "table", str(_MARK)],
    ]  # fmt: skip


def tunnel_rules(softwire: Softwire) -> str:
    """nftables for the tunnel's namespace: which packets are decapsulated, and a memory of the
    flows that have sent a packet in the last ``RECENT`` seconds."""
    rules = (
        f"table ip {TABLE}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n"
        f"{_memory('sent', 'meta l4proto . th sport . ip daddr . th dport')}"
        f"{_memory('echoes', 'icmp id . ip daddr')}"
        " chain remember {\n  type filter hook prerouting priority mangle;\n"
        '  iifname != "v4" accept\n'
        "  meta l4proto { tcp, udp } "
        "update @sent { ip saddr . meta l4proto . th sport . ip daddr . th dport }\n"
        "  icmp type { echo-request, echo-reply } "
        "update @echoes { ip saddr . icmp id . ip daddr }\n }\n}\n"
    )
    if softwire.tunnel is Tunnel.SRV6:
        rules += (
            f"table ip6 {TABLE}\ndelete table ip6 {TABLE}\ntable ip6 {TABLE} {{\n"
            " chain decapsulate {\n  type filter hook prerouting priority mangle;\n"
            f"  ip6 nexthdr 4 ip6 saddr {softwire.aftr} ip6 daddr {softwire.lwb4} "
            f"meta mark set {_MARK}\n }}\n}}\n"
        )
    return rules


def _memory(name: str, key: str) -> str:
    return (
        f" set {name} {{\n  typeof ip saddr . {key}\n  size 65535\n  flags dynamic,timeout\n"
        f"  timeout {RECENT:.0f}s\n }}\n"
    )


def translator_address(old: IPv4Address | None, new: IPv4Address | None) -> list[list[str]]:
    """Give the translator its public address instead of the old one, in its namespace."""
    commands = []
    if new is not None:
        commands += [
            ["addr", "replace", f"{new}/32", "dev", SOFTWIRE],
            ["route", "replace", "default", "via", str(B4_ADDRESS), "dev", SOFTWIRE, "onlink",
             "src", str(new)],
        ]  # fmt: skip
    if old is not None and old != new:
        commands.append(["addr", "del", f"{old}/32", "dev", SOFTWIRE])
    return commands


def tunnel_address(old: IPv4Address | None, new: IPv4Address | None) -> list[list[str]]:
    """Route the public address to the translator, in the tunnel's namespace."""
    commands = []
    if new is not None:
        commands.append(["route", "replace", f"{new}/32", "dev", "v4"])
    if old is not None and old != new:
        commands.append(["route", "del", f"{old}/32", "dev", "v4"])
    return commands
