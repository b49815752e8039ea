"""Breaks an lwAFTR of the failover lab, and mends it."""

from __future__ import annotations

import enum

from topo.failover.build import FailoverBuilder
from topo.lwaftr import PROCESSES, Lwaftr
from topo.nodes import LabError, wait_for
from topo.plan import Site


class How(enum.StrEnum):
    """What happens to the lwAFTR."""

    KILL = "kill"  # the machine dies: kill -9 of everything that runs on it, at once
    LINK = "link"  # both cables that carry packets are cut
    SWITCH = "switch"  # kill -9 of ovs-vswitchd
    CONTROLLER = "controller"  # kill -9 of ryu-manager
    DRAIN = "drain"  # it is taken out of service


class Role(enum.StrEnum):
    """Which lwAFTR."""

    PRIMARY = "primary"
    BACKUP = "backup"

    def site(self, lab: FailoverBuilder) -> Site:
        return lab.lab.sites[0 if self is Role.PRIMARY else 1]


def fail(lab: FailoverBuilder, role: Role, how: How) -> None:
    """Let it happen. Returns at once, not when the routers know. Raises LabError."""
    site = role.site(lab)
    lwaftr = lab.lwaftrs[site.name]
    match how:
        case How.KILL:
            lwaftr.kill(*filter(lwaftr.pid, (*PROCESSES, "exabgp")))
        case How.SWITCH:
            lwaftr.kill("ovs-vswitchd")
        case How.CONTROLLER:
            lwaftr.kill("ryu-manager")
        case How.LINK:
            _cables(lab, site, "down")
        case How.DRAIN:
            _drain(lwaftr, "POST")


def recover(lab: FailoverBuilder, role: Role) -> None:
    """Mend whatever is broken, and wait until routers use the lwAFTR again. Safe to repeat."""
    site = role.site(lab)
    lwaftr = lab.lwaftrs[site.name]
    _cables(lab, site, "up")
    lwaftr.start()
    wait_for(f"{site.name} is ready", lwaftr.ready, 30)
    _drain(lwaftr, "DELETE")
    wait_for(f"routers use {site.name}", lambda: _used(lab, site), 30)


def _used(lab: FailoverBuilder, site: Site) -> bool:
    alive = [other for other in lab.lab.sites if other is site or lab.hears("access", other)]
    return lab.carries(*alive)


def _cables(lab: FailoverBuilder, site: Site, state: str) -> None:
    """The far ends, so that both sides lose their carrier."""
    for router in ("access", "border"):
        lab.run(router, "ip", "link", "set", f"core{site.number}", state)
    if state == "up":
        _address_again(lab, f"core{site.number}")


def _address_again(lab: FailoverBuilder, link: str) -> None:
    """The kernel has taken away the router's IPv6 address with its link. Like other routers, this
    one looks for duplicates before it answers anybody (RFC 4862 section 5.4)."""
    lab.run("access", "sysctl", "-qw", f"net.ipv6.conf.{link}.accept_dad=1")
    for node, command in lab.lab.addresses():
        if node == "access" and link in command:
            words = ["replace" if word == "add" else word for word in command if word != "nodad"]
            lab.run(node, "ip", *words)


def _drain(lwaftr: Lwaftr, method: str) -> None:
    status, found = lwaftr.rest(method, f"/v1/switches/{lwaftr.name}/drain")
    if status != 200:
        raise LabError(f"{lwaftr.name}: HTTP {status}: {found}")
