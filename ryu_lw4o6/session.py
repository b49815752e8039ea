"""One connection to one switch: verify it, reconcile its flows, keep them right.

A session's own greenlet is the only one that changes flows: it works off what ``Programming`` has
noted. Reconnecting is the same work with the note filled in by comparison with a dump of the
switch.

States::

    VERIFYING --> RECONCILING --> READY
        |              |            |
        +--------------+------------+--> WAITING (a port is missing; back to VERIFYING when it
        |              |            |             appears)
        +--------------+------------+--> CLOSED
"""

from __future__ import annotations

import enum
import functools
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import eventlet.event
import eventlet.timeout
from ryu.lib import hub
from ryu.ofproto import ofproto_v1_3 as ofp

from openflow_rules import encode
from openflow_rules.compiler.parts import Ports
from openflow_rules.tables import TABLES, Table
from ryu_lw4o6 import meters
from ryu_lw4o6.core.binding import BindingKey, BindingTable
from ryu_lw4o6.core.settings import Instance
from ryu_lw4o6.dialogue import Dialogue, SessionError
from ryu_lw4o6.programming import Programming

LOG = logging.getLogger(__name__)

DUMP_PARTS = 16
"""Flows are dumped in parts: the switch's main thread, which also forwards packets in the userspace
datapath, is not kept for long by any of them."""

LOOK_SECONDS = 1.0
"""After so long the switch is asked whether it still has as many flows as it should."""
MOST_PAUSE = 64.0
"""It may differ as soon as it has been put right: somebody is still at it, or it will never be as
it should. It is put right again after a pause, which doubles each time up to this."""
_TABLES_WITH_TIMEOUTS = {
    Table.PATH_MTU,
    *(t for t, declared in TABLES.items() if declared.transient),
}
_IPV4_LOW_BITS = 16  # where a binding's cookie has the low bits of its IPv4 address


Orphans = Mapping[BindingKey, encode.PipelineFields]


class State(enum.StrEnum):
    VERIFYING = "verifying"
    WAITING = "waiting for ports"
    RECONCILING = "reconciling"
    READY = "ready"
    CLOSED = "closed"


class Session:
    """``next_hop_mac`` is asked whenever flows are computed; ``adopt_next_hop`` is told what the
    switch's own flows say of it. ``on_packet_in`` gets (cookie, match fields, frame), and
    ``on_orphans`` the softwires of bindings that the switch has and nobody knows: it may wait, and
    what the table has then is right."""

    def __init__(
        self,
        datapath: Any,
        instance: Instance,
        table: BindingTable,
        *,
        next_hop_mac: Callable[[], str | None],
        adopt_next_hop: Callable[[str], None],
        on_packet_in: Callable[[int, bytes, bytes], None],
        on_change: Callable[[], None] = lambda: None,
        on_orphans: Callable[[Orphans], None] = lambda orphans: None,
    ) -> None:
        self.instance = instance
        self.state = State.VERIFYING
        self.forwarding = False
        """Whether the switch has the right flows, and the ports they need. It goes on forwarding
        while they are looked at again."""
        self.connected_at = time.time()
        self.missing_ports: tuple[str, ...] = ()
        self.reconciled: dict[str, float] = {}
        self.ports: Ports | None = None
        self._datapath = datapath
        self._adopt_next_hop = adopt_next_hop
        self._on_change = on_change
        self._on_orphans = on_orphans
        self._dialogue = Dialogue(datapath, instance.name, on_packet_in)
        self._programming = Programming(
            self._dialogue, instance, table, next_hop_mac, self._tell_progress
        )
        self._ports_dirty = False
        self._next_look = 0.0
        self._remaining: list[str] = []
        self._pause = LOOK_SECONDS
        self._again = 0.0
        self._wake = hub.Event()
        self._progress = eventlet.event.Event()
        self.failure = self._programming.failure
        self.send = self._dialogue.send
        self.is_alive = self._dialogue.is_alive
        self.dump = self._dialogue.dump
        self.read_meters = functools.partial(meters.read, self._dialogue)

    # --- what others ask of a session -----------------------------------------------------------

    def touch(self, keys: Iterable[BindingKey]) -> None:
        """These bindings have changed in the table: bring the switch in line."""
        self._programming.touch(keys)
        self._wake.set()

    def touch_pipeline(self) -> None:
        """The next hop has changed."""
        self._programming.pipeline_dirty = True
        self._wake.set()

    def touch_ports(self) -> None:
        """A port of the switch came, went or changed."""
        self._ports_dirty = True
        self._wake.set()

    def pending(self, key: BindingKey) -> bool:
        """Whether the switch has yet to confirm the binding with this key."""
        return self.state is not State.READY or self._programming.underway(key)

    def unsent(self, key: BindingKey) -> bool:
        """Whether the switch has yet to be sent the binding with this key. What is sent from then
        on finds its flows, since the switch does one thing after the other."""
        return self.state is not State.READY or self._programming.unsent(key)

    @property
    def bindings(self) -> int:
        """How many bindings the switch has."""
        return self._programming.bindings

    @property
    def backlog(self) -> int:
        """How many bindings wait to be confirmed."""
        return self._programming.backlog

    def wait_progress(self, timeout: float) -> bool:
        """Wait until something was sent, confirmed or refused; False when ``timeout`` seconds
        pass."""
        with eventlet.timeout.Timeout(timeout, False):
            self._progress.wait()
            return True
        return False

    def links_down(self) -> list[str]:
        """The NICs without a link, or missing."""
        linked = {
            port.name.decode(errors="replace")
            for port in self._datapath.ports.values()
            if not port.state & ofp.OFPPS_LINK_DOWN
        }
        nics = dict.fromkeys((self.instance.ipv6.port, self.instance.ipv4.port))
        return [nic for nic in nics if nic not in linked]

    # --- the session's own greenlet -------------------------------------------------------------

    def run(self) -> None:
        """Work until the connection ends. Raises nothing that a broken switch can cause."""
        try:
            while self.state is not State.CLOSED:
                if self.state in (State.VERIFYING, State.WAITING):
                    self._verify()
                elif self.state is State.RECONCILING:
                    self._reconcile()
                elif self._ports_dirty:
                    self.state = State.VERIFYING
                elif time.monotonic() >= self._next_look:
                    self._look()
                elif self._work_left():
                    self._apply()
                else:
                    self._wait(max(0.0, self._next_look - time.monotonic()))
        except SessionError as error:
            LOG.error("%s: %s; closing the connection", self.instance.name, error)
            self._datapath.close()
        finally:
            self.close()

    def close(self) -> None:
        """The connection is gone: nobody need wait any longer."""
        self.state = State.CLOSED
        self.forwarding = False
        self._dialogue.close()
        self._wake.set()
        self._tell_progress()

    def _set_forwarding(self, forwarding: bool) -> None:
        if forwarding != self.forwarding:
            self.forwarding = forwarding
            self._on_change()

    def _wait(self, seconds: float | None = None) -> None:
        self._wake.wait(seconds)
        self._wake.clear()

    def _verify(self) -> None:
        self._ports_dirty = False
        by_name = {
            port.name.decode(errors="replace"): port for port in self._datapath.ports.values()
        }
        instance = self.instance
        wanted = (instance.ipv6.port, instance.ipv4.port, instance.softwire_port)
        self.missing_ports = tuple(n for n in dict.fromkeys(wanted) if n not in by_name)
        if self.missing_ports:
            if self.state is not State.WAITING:
                LOG.error(
                    "%s: the bridge has no port %s; add it (lw4o6 switch up does)",
                    instance.name, ", ".join(self.missing_ports),
                )  # fmt: skip
            self.state = State.WAITING
            self._set_forwarding(False)
            self._wait()
            return
        ipv6, ipv4, softwire = (by_name[name] for name in wanted)
        local = self._datapath.ports[ofp.OFPP_LOCAL]
        ports = Ports(ipv6.port_no, ipv4.port_no, softwire.port_no, ipv4.hw_addr, local.hw_addr)
        if ports == self.ports and self._programming.has_pipeline:
            self.state = State.READY  # a port changed in a way that does not concern the flows
            return
        self.ports = ports
        self.state = State.RECONCILING

    def _reconcile(self) -> None:
        """Compare the switch's flows with what should be there, and correct every difference."""
        started = time.monotonic()
        assert self.ports is not None
        found = self._programming.compare(self.ports)
        for part in range(DUMP_PARTS):
            self.dump(
                found.take,
                cookie=part << _IPV4_LOW_BITS,
                cookie_mask=(DUMP_PARTS - 1) << _IPV4_LOW_BITS,
            )
        if found.orphans:
            self._on_orphans(found.orphans)
        if found.next_hop_mac is not None:
            self._adopt_next_hop(found.next_hop_mac)
        for flow in found.alien:
            LOG.warning(
                "%s: deleting a flow that is not ours: table %d, priority %d, cookie %#x",
                self.instance.name, flow.table, flow.priority, flow.cookie,
            )  # fmt: skip
        changes = self._programming.correct(found)
        self._set_up()
        self._apply()
        self._remaining = self._differing()
        self._pause = min(2 * self._pause, MOST_PAUSE) if self._remaining else LOOK_SECONDS
        self._again = time.monotonic() + self._pause
        seconds = time.monotonic() - started
        self.reconciled = {
            "at": time.time(), "seconds": round(seconds, 3), "changed_bindings": changes,
        }  # fmt: skip
        self.state = State.READY
        self._set_forwarding(True)
        LOG.info(
            "%s: reconciled in %.3f s: %d bindings on the switch, %d of them corrected",
            self.instance.name, seconds, self.bindings, changes,
        )  # fmt: skip
        self._tell_progress()

    def _look(self) -> None:
        """See whether somebody else has deleted flows, or added some. Nothing is under way now."""
        self._next_look = time.monotonic() + LOOK_SECONDS
        differing = self._differing()
        if differing and (differing != self._remaining or time.monotonic() >= self._again):
            LOG.warning("%s: %s; looking at all", self.instance.name, ", ".join(differing))
            self.state = State.RECONCILING

    def _differing(self) -> list[str]:
        right, found = self._programming.flows_per_table(), self._dialogue.flows_per_table()
        return [
            f"{found.get(table, 0)} flows instead of {right[table]} in table {table}"
            for table in sorted({*right, *found} - _TABLES_WITH_TIMEOUTS)
            if found.get(table, 0) != right[table]
        ]

    def _set_up(self) -> None:
        messages = meters.corrections(self._dialogue, self.instance)
        messages.append(encode.match_fragments(0))
        xids = [self._dialogue.next_xid() for _ in messages]
        self._dialogue.send_all(map(encode.with_xid, messages, xids))
        self._dialogue.answer(self._dialogue.request_barrier(), "a barrier")
        for error in self._dialogue.take_errors(xids).values():
            raise SessionError(f"the switch refused a meter, or to show fragments: {error}")

    def _apply(self) -> None:
        assert self.ports is not None
        self._programming.apply(self.ports, lambda: not self._ports_dirty)

    def _work_left(self) -> bool:
        """Whether there is something to send, for the ports that are known."""
        return not self._ports_dirty and self._programming.work_left

    def _tell_progress(self) -> None:
        done, self._progress = self._progress, eventlet.event.Event()
        done.send(None)
