"""What the failover lab is made of, as values. Nothing is built here.

    host1 -- nat1 == tun1 --.               .-- lwaftr1 --.
    host2 -- nat2 == tun2 ---+-- access ---<               >--- border ---- inet
    host3 -- nat3 == tun3 --'     BIRD      '-- lwaftr2 --'      BIRD
                                    database (PostgreSQL)

Both routers learn by BGP which lwAFTR has the anycast address and which the IPv4 prefixes. Each
lwAFTR speaks to each router over a management link of its own, beside the links that carry packets:
a session through the switch would hear of a dead switch only when the hold time is over.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address
from typing import Any

from ryu_lw4o6.core.settings import Failover
from topo.plan import (
    ACCESS_MTU,
    ANYCAST,
    FULL,
    FULL_PARAMS,
    SERVER,
    SHARED,
    SHARED_PARAMS,
    SITES,
    Lab,
    Link,
    Site,
    instance,
)
from topo.provisioning import Provisioning, kea_socket

AS = 64512
PREFERENCE, BACKUP_PREFERENCE = 100, 50
BORDER = "198.18.0.254"
DATABASE = "database"
ROUTERS = ("access", "border")
HOLD_SECONDS = 3
_OTHER_POOL = 128
"""How far the addresses of the second lwAFTR's own pool are from those of the first's."""


class Mode(enum.StrEnum):
    """Which lwAFTR has the traffic while both live."""

    ACTIVE_BACKUP = "active-backup"
    ACTIVE_ACTIVE = "active-active"


class Shared(enum.StrEnum):
    """What the lwAFTRs share: a store, so that each knows the other's bindings, or nothing."""

    POSTGRESQL = "postgresql"
    NONE = "none"


def fitting(mechanism: Failover, store: Shared) -> Provisioning:
    """How lwB4s can come to their addresses, so that lwAFTRs know."""
    known = mechanism.validates or store is Shared.POSTGRESQL
    return Provisioning.STATIC if known else Provisioning.PCP


@dataclass(frozen=True)
class FailoverLab(Lab):
    """Two lwAFTRs; ``mechanism`` is what both do about packets without a binding. With
    ``own_pools`` each has IPv4 prefixes of its own, else both have the same."""

    mode: Mode = Mode.ACTIVE_BACKUP
    mechanism: Failover = Failover.DATA_PACKET
    store: Shared = Shared.NONE
    own_pools: bool = False

    def options(self) -> dict[str, Any]:
        return {
            **super().options(),
            "mode": self.mode,
            "mechanism": self.mechanism,
            "store": self.store,
            "own_pools": self.own_pools,
        }

    @property
    def sites(self) -> tuple[Site, ...]:
        return SITES

    @property
    def nodes(self) -> tuple[str, ...]:
        return (*super().nodes, *([DATABASE] if self.database else []))

    def __post_init__(self) -> None:
        if self.provisioning is Provisioning.STATIC and not self.database:
            raise ValueError("with neither provisioning nor a store nobody knows any binding")
        if self.provisioning is Provisioning.PCP and self.mechanism.validates:
            raise ValueError("no supporting system knows what PCP servers have given out")
        alone = self.provisioned and self.store is Shared.NONE and not self.own_pools
        if alone and self.mode is Mode.ACTIVE_ACTIVE:
            raise ValueError(
                "packets from the Internet need own pools, or a store, to find the way"
            )

    @property
    def database(self) -> bool:
        """Whether there is a PostgreSQL: as the lwAFTRs' store, or as the supporting system that
        says who may use an address. Of leases, the DHCP server says that."""
        asked = self.mechanism.validates and self.provisioning is not Provisioning.DHCP
        return self.store is Shared.POSTGRESQL or asked

    def pools(self, site: Site) -> tuple[IPv4Network, IPv4Network]:
        """The prefixes with shared and with full addresses."""
        if site.number == 1 or not self.own_pools:
            return SHARED, FULL
        return tuple(  # type: ignore[return-value]
            IPv4Network((pool[0] + _OTHER_POOL, pool.prefixlen)) for pool in (SHARED, FULL)
        )

    def preference(self, site: Site) -> int:
        backup = self.mode is Mode.ACTIVE_BACKUP and site.number > 1
        return BACKUP_PREFERENCE if backup else PREFERENCE

    # --- nodes and links ---

    def _core_links(self) -> Iterator[Link]:
        for site in self.sites:
            n, name = site.number, site.name
            yield Link("access", f"core{n}", name, "eth6", ACCESS_MTU)
            yield Link(name, "eth4", "border", f"core{n}")
            yield Link(name, "mgmt6", "access", f"mgmt{n}")
            yield Link(name, "mgmt4", "border", f"mgmt{n}")
        yield Link("border", "inet", "inet", "eth0")

    def _core_addresses(self) -> Iterator[tuple[str, list[str]]]:
        for site in self.sites:
            n, name = site.number, site.name
            yield "access", ["addr", "add", f"{site.router6}/64", "dev", f"core{n}", "nodad"]
            yield "border", ["addr", "add", f"{site.router4}/25", "dev", f"core{n}"]
            for router, nic in zip(ROUTERS, ("mgmt6", "mgmt4"), strict=True):
                near, far = management(site, router)
                yield name, ["addr", "add", f"{near}/64", "dev", nic, "nodad"]
                yield router, ["addr", "add", f"{far}/64", "dev", f"mgmt{n}", "nodad"]
        yield "border", ["addr", "add", f"{BORDER}/24", "dev", "inet"]
        yield "inet", ["addr", "add", f"{SERVER}/24", "dev", "eth0"]
        yield "inet", ["route", "add", "default", "via", BORDER]

    def settings(self, node: str) -> tuple[str, ...]:
        if node != "access":
            return ()
        # By outer source and destination alone: whatever one lwB4 sends stays on one lwAFTR.
        return ("ipv6/fib_multipath_hash_policy=3", "ipv6/fib_multipath_hash_fields=3")

    # --- configuration files ---

    def config(self, site: Site, directory: str) -> str:
        database = database_url(directory)
        store = f"sqlite:///{directory}/{site.name}/bindings.sqlite"
        asks = ""
        if self.store is Shared.POSTGRESQL:
            store = database
        elif self.mechanism.validates:
            asks = f"supporting_system: {self._supporting_system(directory)}\n"
        pools = self.pools(site)
        peers = "".join(
            f"        - {{address: '{far}', local_address: '{near}', as: {AS}}}\n"
            for near, far in (management(site, router) for router in ROUTERS)
        )
        return (
            f"store: {store}\n{asks}"
            f"run_directory: {directory}/{site.name}\n"
            f"{self.provisioning.prefixes(zip(pools, (SHARED_PARAMS, FULL_PARAMS), strict=True))}"
            f"{instance(site, self.datapath)}"
            f"{self.provisioning.instance(pools[0])}"
            f"    failover: {self.mechanism}\n"
            "    announce:\n"
            f"      local_as: {AS}\n"
            f"      local_preference: {self.preference(site)}\n"
            f"      peers:\n{peers}"
        )

    def _supporting_system(self, directory: str) -> str:
        if self.provisioning is Provisioning.DHCP:
            return f"{{kea: '{kea_socket(directory)}'}}"
        return f"{{store: '{database_url(directory)}'}}"

    def bird(self, router: str) -> str:
        """BIRD's configuration on one of the ``ROUTERS``."""
        family, accepted = (
            ("ipv6", f"{ANYCAST}/128")
            if router == "access"
            else ("ipv4", ", ".join(sorted({str(p) for s in self.sites for p in self.pools(s)})))
        )
        sessions = "".join(
            f"protocol bgp {site.name} from lwaftr "
            f"{{ neighbor {management(site, router)[0]} as {AS}; }}\n"
            for site in self.sites
        )
        return _BIRD.format(
            number=1 + ROUTERS.index(router), family=family, accepted=accepted, asn=AS,
            hold=HOLD_SECONDS, sessions=sessions,
        )  # fmt: skip


_BIRD = """\
log stderr all;
router id 10.0.0.{number};
protocol device {{ scan time 10; }}
# Next hops are on connected links; a link without carrier leads nowhere.
protocol direct {{ {family}; check link; }}
# Equal routes become one route with several next hops (ECMP).
protocol kernel {{ {family} {{ import none; export where source = RTS_BGP; }}; merge paths; }}
template bgp lwaftr {{
  local as {asn};
  hold time {hold}; keepalive time 1;
  connect delay time 1; connect retry time 1; error wait time 1, 2; startup hold time 10;
  # It would keep the routes of a dead lwAFTR.
  graceful restart off; long lived graceful restart off;
  {family} {{ import where net ~ [ {accepted} ]; export none; }};
}}
{sessions}"""


def management(site: Site, router: str) -> tuple[IPv6Address, IPv6Address]:
    """The lwAFTR's and the router's address on the link for their BGP session."""
    subnet = f"2001:db8:{'cd'[ROUTERS.index(router)]}:{site.number}"
    return IPv6Address(f"{subnet}::1"), IPv6Address(f"{subnet}::fe")


def database_url(directory: str) -> str:
    """The lab's PostgreSQL; its Unix socket is the same file in every node."""
    return f"postgresql+psycopg://postgres@/lw4o6?host={directory}/{DATABASE}"
