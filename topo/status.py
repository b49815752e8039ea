"""What runs in a lab, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from topo.build import Builder
from topo.failover.build import FailoverBuilder
from topo.failover.plan import ROUTERS
from topo.lwaftr import PROCESSES, Lwaftr
from topo.plan import Subscriber


def lines(builder: Builder) -> Iterator[str]:
    """One line for everything that there is."""
    failover = isinstance(builder, FailoverBuilder)
    for name, lwaftr in builder.lwaftrs.items():
        yield _line(name, _state(lwaftr))
        yield _line("", ", ".join(_process(lwaftr, p) for p in PROCESSES))
        if failover:
            yield _line("", f"{_process(lwaftr, 'exabgp')}, {_announced(lwaftr)}")
    if isinstance(builder, FailoverBuilder):
        yield from _network(builder)
    bound = {name: _bindings(lwaftr) for name, lwaftr in builder.lwaftrs.items()}
    for sub in builder.lab.subscribers:
        yield _line(sub.host, f"lwB4 {sub.lwb4}: {_bound(sub, bound)}")
        if builder.lab.provisioned:
            yield _line("", _agent(builder.lwb4s.status(sub)))
    yield _line("logs", str(builder.directory))


def whole(builder: Builder) -> bool:
    """Whether everything runs that should."""
    return all(lwaftr.pid(p) for lwaftr in builder.lwaftrs.values() for p in PROCESSES)


def _line(what: str, seen: str) -> str:
    return f"  {what:<14} {seen}"


def _process(lwaftr: Lwaftr, process: str) -> str:
    pid = lwaftr.pid(process)
    return f"{process} {f'pid {pid}' if pid else 'NOT RUNNING'}"


def _state(lwaftr: Lwaftr) -> str:
    found = lwaftr.ask("/v1/switches")
    if found is None:
        return "the controller does not answer"
    (switch,) = found["switches"]
    hop = switch["next_hop"]
    return (
        f"{switch['state']}, {switch.get('bindings', 0)} bindings, next hop {hop['address']} "
        f"{hop['state']}"
    )


def _announced(lwaftr: Lwaftr) -> str:
    found = lwaftr.ask(f"/v1/failover/{lwaftr.name}")
    if found is None:
        return "not announced"
    announcements = found["announcements"]
    if announcements["announced"]:
        peers = set(announcements["peers"].values())
        return "announced" if peers == {"up"} else "announced, but not to every router"
    return f"not announced: {found['obstacle'] or announcements['speaker']}"


def _network(lab: FailoverBuilder) -> Iterator[str]:
    for router in ROUTERS:
        shown = []
        for prefix in lab.prefixes(router):
            shown.append(f"{prefix} by {' and '.join(lab.ways(router, prefix)) or 'nobody'}")
        yield _line(router, ", ".join(shown))
    if lab.database is not None:
        answers = lab.database.answers()
        yield _line("database", "PostgreSQL runs" if answers else "PostgreSQL does NOT ANSWER")


def _agent(found: dict[str, Any] | None) -> str:
    """What an lwB4's agent says of itself."""
    if found is None:
        return "its agent does NOT ANSWER"
    if found["ipv4"] is None:
        return f"{found['provisioning']} {found['state']}, no lease"
    ports = found["ports"]
    more = ", ..." if len(ports) > 1 else ""
    return (
        f"{found['provisioning']} {found['state']}: {found['ipv4']} ports {ports[0]}{more}, "
        f"{found['seconds_left']:.0f} s left, provisioned anew {found['restarts']} times"
    )


def _bindings(lwaftr: Lwaftr) -> list[dict[str, Any]]:
    found = lwaftr.ask("/v1/bindings?limit=1000")
    return [] if found is None else found["bindings"]


def _bound(sub: Subscriber, bound: dict[str, list[dict[str, Any]]]) -> str:
    shown = [
        f"{binding['ipv4']} PSID {binding['psid']} {binding['state'][name]['state']} ({name})"
        for name, bindings in bound.items()
        for binding in bindings
        if binding["lwb4"] == str(sub.lwb4) and name in binding["state"]
    ]
    return ", ".join(shown) or "no binding"
