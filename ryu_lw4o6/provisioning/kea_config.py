"""Configurations of ISC Kea (2.2 and later) that fit a configuration of ours.

kea-dhcp6 takes what the relay sends, and hands what is DHCPv4 to kea-dhcp4 beside it (RFC 7341,
``dhcp4o6-port``). kea-dhcp4 leases port sets as addresses of their own (``core.leases``), knows the
subnet by the relay's address, and keeps with each lease which lwB4 it is for
(``store-extended-info``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from ryu_lw4o6.core.binding import Binding, BindingKey, Prefix
from ryu_lw4o6.core.leases import Leases
from ryu_lw4o6.core.settings import Instance, Settings

HOOK = "/usr/lib/x86_64-linux-gnu/kea/hooks/libdhcp_lease_cmds.so"
DHCP4O6_PORT = 6767
"""Where kea-dhcp6 and kea-dhcp4 meet on loopback; the port after it is taken, too."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class KeaServer:
    """The machine that Kea runs on. ``interface`` has the address that relays send to, and needs
    an IPv4 address, which is the server identifier (any will do). ``relays`` are those of other
    controllers that lease the same prefixes. ``database`` is Kea's ``lease-database`` if it is not
    to be a file in ``state``."""

    interface: str = "eth0"
    run: str = "/run/kea"
    state: str = "/var/lib/kea"
    log: str = "syslog"
    lease_seconds: int = 3600
    relays: tuple[IPv6Address, ...] = ()
    database: Mapping[str, Any] | None = None
    http_host: str = "127.0.0.1"
    http_port: int = 8000
    hook: str = HOOK

    def socket(self, service: int) -> str:
        """The control socket of kea-dhcp4 or kea-dhcp6."""
        return f"{self.run}/kea{service}-ctrl-socket"


def dhcp4(settings: Settings, server: KeaServer) -> Json:
    """The configuration of kea-dhcp4."""
    networks = list(_shared_networks(settings, server.relays))
    return {
        "Dhcp4": {
            "interfaces-config": {"interfaces": [server.interface], "dhcp-socket-type": "udp"},
            "dhcp4o6-port": DHCP4O6_PORT,
            "control-socket": {"socket-type": "unix", "socket-name": server.socket(4)},
            "lease-database": dict(server.database or _file(server, 4)),
            "hooks-libraries": [{"library": server.hook}],
            "valid-lifetime": server.lease_seconds,
            "authoritative": True,
            "store-extended-info": True,
            "shared-networks": networks,
            "loggers": _loggers("kea-dhcp4", server),
        }
    }


def dhcp6(
    settings: Settings, server: KeaServer, softwires: Mapping[str, Binding] | None = None
) -> Json:
    """The configuration of kea-dhcp6. ``softwires`` are those that are provisioned by DHCPv6
    alone (RFC 7598), by the DUID of the lwB4."""
    subnets = [
        {
            "id": number,
            "subnet": str(instance.ipv6.address.network),
            "relay": {"ip-addresses": list(map(str, (instance.ipv6.address.ip, *server.relays)))},
            "option-data": [
                {
                    "name": "dhcp4o6-server-addr",
                    "data": str(instance.aftr_addresses[0]),
                }
            ],
            "reservations": [
                {"duid": duid, "option-data": softwire_options(binding, instance)}
                for duid, binding in (softwires or {}).items()
                if instance.carries(binding)
            ],
        }
        for number, instance in enumerate(_relays(settings), 1)
    ]
    return {
        "Dhcp6": {
            "interfaces-config": {"interfaces": [f"{server.interface}/{_address(settings)}"]},
            "data-directory": server.state,
            "dhcp4o6-port": DHCP4O6_PORT,
            "control-socket": {"socket-type": "unix", "socket-name": server.socket(6)},
            "lease-database": _file(server, 6),
            "valid-lifetime": server.lease_seconds,
            "subnet6": subnets,
            "loggers": _loggers("kea-dhcp6", server),
        }
    }


def control_agent(server: KeaServer) -> Json:
    """The configuration of kea-ctrl-agent, through which the supporting system is asked."""
    return {
        "Control-agent": {
            "http-host": server.http_host,
            "http-port": server.http_port,
            "control-sockets": {
                f"dhcp{service}": {"socket-type": "unix", "socket-name": server.socket(service)}
                for service in (4, 6)
            },
            "loggers": _loggers("kea-ctrl-agent", server),
        }
    }


def softwire_options(binding: Binding, instance: Instance) -> list[Json]:
    """Kea's options for OPTION_S46_CONT_LW (RFC 7598 section 5.3)."""
    options = [
        {"space": "dhcp6", "name": "s46-cont-lw"},
        {
            "space": "s46-cont-lw-options",
            "name": "s46-br",
            "data": str(instance.br_address_of(binding)),
        },
        {
            "space": "s46-cont-lw-options",
            "name": "s46-v4v6bind",
            "data": f"{binding.ipv4}, {binding.lwb4}/128",
        },
    ]
    params = binding.params
    if params.shared:
        options.append(
            {
                "space": "s46-v4v6bind-options",
                "name": "s46-portparams",
                "data": f"{params.psid_offset}, {binding.psid}/{params.psid_length}",
            }
        )
    return options


def _relays(settings: Settings) -> list[Instance]:
    return [instance for instance in settings.instances if instance.dhcp is not None]


def _address(settings: Settings) -> IPv6Address:
    for instance in _relays(settings):
        if instance.dhcp is not None:
            return instance.dhcp.server
    raise ValueError("no instance of the configuration has a DHCP relay")


def _shared_networks(settings: Settings, others: tuple[IPv6Address, ...]) -> Iterator[Json]:
    """A shared network for all prefixes that are leased through the same relays."""
    by_relays: dict[tuple[IPv6Address, ...], list[Prefix]] = {}
    for prefix in settings.prefixes:
        relays = tuple(
            instance.dhcp.address
            for instance in settings.instances
            if instance.dhcp is not None and prefix in instance.prefixes
        )
        if relays and Leases([prefix]).networks:
            by_relays.setdefault(relays, []).append(prefix)
    ids = itertools.count(1)
    for number, (relays, prefixes) in enumerate(by_relays.items(), 1):
        subnets = []
        for prefix in prefixes:
            leases = Leases([prefix])
            keys = (*(b.key for b in settings.bindings), *_given_by_pcp(settings, prefix))
            given = (leases.to_server(key) for key in keys)
            network = leases.networks[prefix]
            pools = free(network, (address for address in given if address is not None))
            subnets.append(
                {
                    "id": next(ids),
                    "subnet": str(network),
                    "4o6-subnet": str(common((*relays, *others))),
                    "pools": [{"pool": f"{first} - {last}"} for first, last in pools],
                }
            )
        yield {"name": f"lw4o6-{number}", "subnet4": subnets}


def _given_by_pcp(settings: Settings, prefix: Prefix) -> Iterator[BindingKey]:
    """What of a prefix PCP gives out: each mechanism needs its own (RFC 7596 section 7)."""
    for instance in settings.instances:
        for part in instance.pcp.pool if instance.pcp is not None else ():
            if part.prefix == prefix:
                for number in range(len(part)):
                    for psid in range(prefix.params.psid_count):
                        yield BindingKey(part.first + number, psid)


def free(
    network: IPv4Network, taken: Iterable[IPv4Address]
) -> Iterator[tuple[IPv4Address, IPv4Address]]:
    """The ranges of a network that nobody has."""
    first, last = int(network.network_address), int(network.broadcast_address)
    for address in sorted({int(address) for address in taken}):
        if address > first:
            yield IPv4Address(first), IPv4Address(address - 1)
        first = address + 1
    if first <= last:
        yield IPv4Address(first), IPv4Address(last)


def common(addresses: Iterable[IPv6Address]) -> IPv6Network:
    """The smallest prefix that holds all of them."""
    numbers = [int(address) for address in addresses]
    length = 128 - (min(numbers) ^ max(numbers)).bit_length()
    return IPv6Network((min(numbers), length), strict=False)


def _file(server: KeaServer, service: int) -> Json:
    return {"type": "memfile", "name": f"{server.state}/kea-leases{service}.csv"}


def _loggers(name: str, server: KeaServer) -> list[Json]:
    return [{"name": name, "severity": "INFO", "output_options": [{"output": server.log}]}]
