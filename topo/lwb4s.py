"""The lwB4s of a lab: their agents, and the addresses that they have."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from topo.lwb4.process import ask
from topo.nodes import Nodes, wait_for
from topo.plan import Lab, Subscriber


class Lwb4s:
    """Only those that are provisioned have an agent."""

    def __init__(self, nodes: Nodes, lab: Lab) -> None:
        self._nodes = nodes
        self._lab = lab

    def start(self) -> None:
        """Start all agents, and wait until they have a lease. Raises LabError."""
        for sub in self._lab.subscribers:
            directory = self._directory(sub)
            directory.mkdir(exist_ok=True)
            translator = self._nodes.namespace(sub.nat)
            self._nodes.start(
                sub.tun, f"{directory.name}/log", *self._lab.agent(sub, translator, str(directory))
            )
        for sub in self._lab.subscribers:
            wait_for(f"lwB4 {sub.number} has a lease", partial(self.address, sub), 30)

    def _directory(self, sub: Subscriber) -> Path:
        return self._nodes.directory / f"lwb4-{sub.number}"

    def status(self, sub: Subscriber) -> dict[str, Any] | None:
        """What an agent says, None if there is none."""
        try:
            return ask(self._directory(sub) / "control", "status")
        except (OSError, ValueError):
            return None

    def address(self, sub: Subscriber) -> tuple[IPv4Address, int] | None:
        """A subscriber's public address, and the port that is forwarded to its host; None without
        a lease."""
        if not self._lab.provisioned:
            return sub.ipv4, sub.inbound_port
        found = self.status(sub)
        if found is None or found["ipv4"] is None:
            return None
        return IPv4Address(found["ipv4"]), int(found["ports"][-1].partition("-")[2])

    def bound(self) -> bool:
        """Whether all have an address."""
        return all(self.address(sub) is not None for sub in self._lab.subscribers)

    def messages(self) -> int:
        """How many provisioning messages agents have sent and received so far."""
        return sum(
            found["counters"].get("sent", 0) + found["counters"].get("received", 0)
            for found in self._statuses()
        )

    def _statuses(self) -> Iterator[dict[str, Any]]:
        for sub in self._lab.subscribers:
            found = self.status(sub)
            if found is not None:
                yield found
