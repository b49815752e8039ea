"""What the agent makes of the state that one before it has left, without a network."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from ryu_lw4o6.core import pcp as wire
from topo.lwb4 import pcp, state
from topo.lwb4.agent import Agent
from topo.lwb4.lease import Lease
from topo.lwb4.machine import Send
from topo.lwb4.refusal import Flow
from topo.lwb4.softwire import Softwire

OLD = Lease(IPv4Address("192.0.2.9"), (range(2048, 3072),))
NEW = Lease(IPv4Address("203.0.113.7"), (range(1024, 2048),))
NOW = 100.0
SOFTWIRE = Softwire(IPv6Address("2001:db8:b4:1::1"), IPv6Address("2001:db8:ffff::1"))


@dataclass
class Kernel:
    """Notes what it is to translate by."""

    applied: list[tuple[Lease | None, Lease | None]] = field(default_factory=list)

    def apply(self, old: Lease | None, new: Lease | None) -> None:
        self.applied.append((old, new))

    def recently_sent(self, flow: Flow) -> bool:
        return True


@dataclass
class Run:
    """An agent, what it has sent, and what it has told the kernel."""

    path: Path
    kernel: Kernel = field(default_factory=Kernel)
    sent: list[Send] = field(default_factory=list)

    def start(self) -> Agent:
        kept = state.load(self.path)
        client = state.pcp_client(pcp.Config(), kept, NOW, 0.0)
        agent = Agent(client, SOFTWIRE, self.kernel, self.sent.append, self.path, lambda: 0.5)
        agent.start(NOW)
        return agent

    def nonce(self) -> bytes:
        mapping = wire.parse_request(self.sent[-1].payload).mapping
        assert mapping is not None
        return mapping.nonce

    def grant(self, agent: Agent, lease: Lease) -> None:
        mapping = wire.Mapping(self.nonce(), 0, 0, lease.ports[0][0], lease.ipv4)
        options = wire.Options(port_set=wire.PortSet(len(lease.ports[0]), 0))
        answer = wire.Response(
            wire.Opcode.MAP, wire.Result.SUCCESS, 600, 1, mapping, options
        ).encode()
        agent.received(answer, NOW + 1)


def saved(path: Path, until: float | None) -> None:
    kept = {"nonce": "00" * 12, "ipv4": "192.0.2.9", "first": 2048, "count": 1024}
    path.write_text(json.dumps(kept if until is None else kept | {"until": until}))


def test_the_nonce_is_kept_before_anything_is_sent(tmp_path: Path) -> None:
    """Killed before the first answer, it could not touch the mapping it has made."""
    first = Run(tmp_path / "state")
    first.start()
    second = Run(tmp_path / "state")
    second.start()
    assert second.nonce() == first.nonce()


def test_a_lease_that_still_holds_is_used_until_the_answer(tmp_path: Path) -> None:
    saved(tmp_path / "state", NOW + 60)
    run = Run(tmp_path / "state")
    agent = run.start()
    assert run.kernel.applied == [(OLD, OLD)]
    run.grant(agent, OLD)
    assert run.kernel.applied == [(OLD, OLD)]  # nothing has changed
    assert agent.lease == OLD


def test_another_one_takes_its_place(tmp_path: Path) -> None:
    saved(tmp_path / "state", NOW + 60)
    run = Run(tmp_path / "state")
    agent = run.start()
    run.grant(agent, NEW)
    assert run.kernel.applied[1:] == [(OLD, NEW)]
    assert agent.counters["changed"] == 1


def test_what_is_left_of_one_that_is_over_is_removed(tmp_path: Path) -> None:
    for until in (NOW - 1, None):
        saved(tmp_path / "state", until)
        run = Run(tmp_path / "state")
        agent = run.start()
        assert run.kernel.applied == [(OLD, None)]
        run.grant(agent, NEW)
        assert run.kernel.applied[1:] == [(None, NEW)]
        assert "changed" not in agent.counters
