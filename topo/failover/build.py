"""Builds the failover lab: routers that speak BGP, a database, two lwAFTRs."""

from __future__ import annotations

import json
from ipaddress import IPv4Network, IPv6Network

from ryu_lw4o6.core.binding import Binding
from topo.build import Builder, Progress
from topo.failover.database import Database
from topo.failover.plan import ROUTERS, FailoverLab, database_url
from topo.nodes import wait_for
from topo.plan import ANYCAST, Site, Subscriber

BIRD, BIRDC = "/usr/sbin/bird", "/usr/sbin/birdc"


class FailoverBuilder(Builder):
    """A failover lab on this machine, built or not."""

    lab: FailoverLab

    def __init__(self, lab: FailoverLab) -> None:
        super().__init__(lab)
        self.database = Database(self) if lab.database else None

    def _start(self, progress: Progress) -> None:
        progress("access and border router: BIRD")
        for router in ROUTERS:
            self._start_bird(router)
        if self.database is not None:
            progress("PostgreSQL")
            self.database.start()
            if not self.lab.provisioned:
                self._fill_database()
        self._start_lwaftrs(progress)
        progress("BGP: waiting for routes")
        wait_for("both routers have the routes of both lwAFTRs", self.converged, 30)
        self._start_lwb4s(progress)

    def healthy(self) -> bool:
        return super().healthy() and self.converged()

    # --- routers ---

    def _start_bird(self, router: str) -> None:
        config = self.directory / f"bird-{router}.conf"
        config.write_text(self.lab.bird(router))
        sock = self._bird_socket(router)
        self.start(router, f"bird-{router}", BIRD, "-f", "-c", str(config), "-s", sock)
        wait_for(f"BIRD runs on {router}", lambda: self.bird(router, "show", "status"))

    def _bird_socket(self, router: str) -> str:
        return str(self.directory / f"bird-{router}.ctl")

    def bird(self, router: str, *command: str) -> str:
        """What BIRD on a router answers; nothing if it does not run."""
        done = self.run(router, BIRDC, "-s", self._bird_socket(router), *command, check=False)
        return done.stdout if done.returncode == 0 else ""

    def hears(self, router: str, site: Site) -> bool:
        """Whether a router has routes of an lwAFTR."""
        return "\tvia " in self.bird(router, "show", "route", "protocol", site.name)

    def ways(self, router: str, prefix: IPv4Network | IPv6Network) -> list[str]:
        """The lwAFTRs to which a router's kernel sends packets for a prefix now."""
        family = f"-{prefix.version}"
        done = self.run(router, "ip", family, "-j", "route", "show", str(prefix), check=False)
        hops = {
            hop["gateway"]
            for route in json.loads(done.stdout or "[]")
            for hop in route.get("nexthops", [route])
            if "gateway" in hop
        }
        return [
            site.name
            for site in self.lab.sites
            if hops & {str(site.ipv6.ip), str(site.ipv4.ip)}
        ]  # fmt: skip

    def prefixes(self, router: str) -> list[IPv4Network | IPv6Network]:
        """What a router learns from lwAFTRs."""
        if router == "access":
            return [IPv6Network(ANYCAST)]
        pools = (pool for site in self.lab.sites for pool in self.lab.pools(site))
        return list(dict.fromkeys(pools))

    def uses(self, site: Site) -> bool:
        """Whether any router sends packets to an lwAFTR."""
        return any(
            site.name in self.ways(router, prefix)
            for router in ROUTERS
            for prefix in self.prefixes(router)
        )

    @property
    def anycast_ways(self) -> list[str]:
        """The lwAFTRs that softwire packets reach now."""
        return self.ways("access", IPv6Network(ANYCAST))

    def way_of(self, sub: Subscriber) -> str:
        """The lwAFTR that an lwB4's packets reach now; nothing if none."""
        done = self.run(
            "access", "ip", "-6", "-j", "route", "get", str(ANYCAST), "from", str(sub.lwb4),
            "iif", f"sub{sub.number}", check=False,
        )  # fmt: skip
        hops = [route.get("gateway") for route in json.loads(done.stdout or "[]")]
        return next((s.name for s in self.lab.sites if str(s.ipv6.ip) in hops), "")

    def converged(self) -> bool:
        """Whether both lwAFTRs announce, and both routers send packets where they should."""
        return self.carries(*self.lab.sites)

    def carries(self, *alive: Site) -> bool:
        """Whether routers know and use these lwAFTRs, and these only."""
        best = max(self.lab.preference(site) for site in alive)
        used = [site.name for site in alive if self.lab.preference(site) == best]
        for site in self.lab.sites:
            if any(self.hears(router, site) != (site in alive) for router in ROUTERS):
                return False
        if self.anycast_ways != used:
            return False
        for site in alive:
            owners = [site.name] if self.lab.own_pools else used
            if any(self.ways("border", pool) != owners for pool in self.lab.pools(site)):
                return False
        return True

    # --- what subscribers may use ---

    def _fill_database(self) -> None:
        """As provisioning does when it has given every lwB4 its address."""
        # SQLAlchemy and eventlet take longer to import than most commands of the lab to run.
        from ryu_lw4o6.store import Store

        store = Store(database_url(str(self.directory)))
        try:
            store.save(
                [Binding(sub.lwb4, sub.ipv4, sub.psid, sub.params) for sub in self.lab.subscribers],
                [],
            )
        finally:
            store.close()
