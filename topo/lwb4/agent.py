"""The lwB4's agent: it gives events to the provisioning client, and does what follows.

It owns no socket: ``process.py`` brings it datagrams, and the time that they came at.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from topo.lwb4 import dhcp, pcp, state
from topo.lwb4.lease import Lease
from topo.lwb4.machine import (
    Action,
    Bound,
    Event,
    Lost,
    Note,
    Random,
    Received,
    Send,
    Start,
    Stop,
    Timer,
)
from topo.lwb4.refusal import Flow, Guard, Verdict, quoted
from topo.lwb4.softwire import Softwire

LOG = logging.getLogger("lwb4")

HISTORY = 100
"""How many provisionings are remembered."""

Client: TypeAlias = pcp.Client | dhcp.Client


class Translator(Protocol):
    """What the agent wants of the kernel."""

    def apply(self, old: Lease | None, new: Lease | None) -> None: ...

    def recently_sent(self, flow: Flow) -> bool: ...


@dataclass
class Agent:
    """``send`` puts a datagram on its way. ``lease`` is what the kernel translates by."""

    client: Client
    softwire: Softwire
    kernel: Translator
    send: Callable[[Send], None]
    state_file: Path
    random: Random
    guard: Guard = field(default_factory=Guard)
    lease: Lease | None = None
    counters: Counter[str] = field(default_factory=Counter)
    history: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=HISTORY))
    _began: float | None = None  # when provisioning was started last, until it has succeeded
    _messages: int = 0  # sent and received before that
    _until: float | None = None  # of the lease

    @property
    def wake(self) -> float | None:
        """When it wants ``timer`` to be called; None for never."""
        return self.client.wake

    def start(self, now: float) -> None:
        """Go on where an agent before this one stopped, and provision."""
        # A mapping belongs to whoever knows its nonce: not to be forgotten from the first request.
        self._save(now)
        kept = _kept(self.client)
        if kept is not None:
            # The connections of hosts went on all the time, and go on.
            self.lease, self._until = kept
            self.kernel.apply(self.lease, self.lease)
            _log("resumed", lease=self.lease, seconds=_seconds(kept[1] - now))
        else:
            self.kernel.apply(_last(self.client), None)
            _log("started", lwb4=self.softwire.lwb4, aftr=self.softwire.aftr)
        self.provision(now)

    def provision(self, now: float) -> None:
        """Provision, from the beginning."""
        self._began = now
        self._messages = self.counters["sent"] + self.counters["received"]
        self._step(Start(), now)

    def timer(self, now: float) -> None:
        self._step(Timer(), now)

    def received(self, payload: bytes, now: float) -> None:
        """A datagram from the server of the provisioning protocol."""
        self.counters["received"] += 1
        self._step(Received(payload), now)

    def stop(self, now: float) -> None:
        """Give the lease back."""
        self._step(Stop(), now)
        _log("stopped")

    def icmpv6(self, message: bytes, source: IPv6Address, now: float) -> None:
        """An ICMPv6 error has come in. One that the lwAFTR has sent about a packet of this lwB4
        restarts provisioning; any other is counted."""
        verdict = self._judge(message, source, now)
        self.counters[f"icmpv6_{verdict}"] += 1
        if verdict is Verdict.ACCEPTED:
            self.counters["restarts"] += 1
            _log("refused_by_lwaftr", aftr=source, lease=self.lease, hold=self.guard.held_for)
            self.provision(now)

    def _judge(self, message: bytes, source: IPv6Address, now: float) -> Verdict:
        if self.lease is None:
            return Verdict.NO_LEASE
        flow = quoted(message, source, self.softwire.lwb4, self.softwire.aftr, self.lease)
        if isinstance(flow, Verdict):
            return flow
        self.guard, verdict = self.guard.judge(flow, message, self.kernel.recently_sent, now)
        return verdict

    def _step(self, event: Event, now: float) -> None:
        before = self.client
        if isinstance(self.client, pcp.Client):
            self.client, actions = pcp.step(self.client, event, now, self.random)
        else:
            self.client, actions = dhcp.step(self.client, event, now, self.random)
        for action in actions:
            self._do(action, now)
        if _kept(before) != _kept(self.client):
            self._save(now)

    def _save(self, now: float) -> None:
        state.save(self.state_file, self.client, time.time() - now)

    def _do(self, action: Action, now: float) -> None:
        match action:
            case Send():
                self.counters["sent"] += 1
                self.send(action)
            case Bound(lease, seconds):
                self._bound(lease, seconds, now)
            case Lost(reason):
                self.counters["lost"] += 1
                _log("lease_lost", lease=self.lease, reason=reason)
                self.kernel.apply(self.lease, None)
                self.lease = self._until = None
            case Note(event, details):
                self.counters[event] += 1
                _log(event, **details)

    def _bound(self, lease: Lease, seconds: float, now: float) -> None:
        before, self._until = self.lease, now + seconds
        shown = _seconds(seconds)
        if before != lease:
            self.kernel.apply(before, lease)
            self.lease = lease
        if self._began is None:
            _log("renewed", lease=lease, seconds=shown)
            return
        took = round((time.monotonic() - self._began) * 1000, 1)
        messages = self.counters["sent"] + self.counters["received"] - self._messages
        self._began = None
        self.history.append(
            {
                "at": time.time(),
                "ipv4": str(lease.ipv4),
                "ports": _ports(lease),
                "took_ms": took,
                "messages": messages,
            }
        )
        if before is not None and before != lease:
            self.counters["changed"] += 1
            # Connections of hosts are over: both ends will know the next time they send.
            _log("address_changed", old=before, lease=lease, seconds=shown, took_ms=took)
        else:
            _log("bound", lease=lease, seconds=shown, took_ms=took)

    def status(self, now: float) -> dict[str, Any]:
        """What the agent is and has, for people and programs."""
        lease = self.lease
        return {
            "provisioning": "pcp" if isinstance(self.client, pcp.Client) else "dhcp",
            "state": self.client.phase.value,
            "lwb4": str(self.softwire.lwb4),
            "aftr": str(self.softwire.aftr),
            "ipv4": None if lease is None else str(lease.ipv4),
            "ports": [] if lease is None else _ports(lease),
            "seconds_left": None if self._until is None else _seconds(self._until - now),
            "restarts": self.counters["restarts"],
            "history": list(self.history),
            "counters": dict(sorted(self.counters.items())),
        }


def _ports(lease: Lease) -> list[str]:
    return [f"{ports[0]}-{ports[-1]}" for ports in lease.ports]


def _kept(client: Client) -> tuple[Lease, float] | None:
    """The lease that a client has, and until when."""
    if isinstance(client, pcp.Client):
        granted = client.granted
        return None if granted is None else (granted.lease, granted.until)
    if client.leased is None or not client.valid:
        return None
    return client.leased.lease, client.leased.until


def _last(client: Client) -> Lease | None:
    """The lease that a client has had, if it has none now."""
    if isinstance(client, pcp.Client):
        return client.suggested
    return None if client.leased is None else client.leased.lease


def _seconds(time_left: float) -> float | None:
    """Of a lease; None for one that has no end."""
    return None if time_left == math.inf else round(time_left, 1)


def _log(event: str, **details: Any) -> None:
    shown = (f"{name}={_quoted(value)}" for name, value in details.items())
    LOG.info("%s", " ".join((event, *shown)))


def _quoted(value: Any) -> str:
    text = str(value)
    return f'"{text}"' if " " in text else text
