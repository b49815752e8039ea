"""One connection to one switch: verify it, reconcile its flows, keep them right.

A session's own greenlet is the only one that changes flows. It owns two notes of what is to be
done, which binding keys may differ (``_dirty``) and whether the pipeline may differ, and works
them off in bundles. What a bundle carries is computed from the binding table when it is sent, so
a change that was overtaken by a later one costs nothing and a repeated one does no harm.
Reconnecting is the same work with the note filled in by comparison with a dump of the switch.

States::

    VERIFYING --> RECONCILING --> READY
        |              |            |
        +--------------+------------+--> WAITING (a port is missing; back to VERIFYING when it
        |              |            |             appears)
        +--------------+------------+--> CLOSED
"""

from __future__ import annotations

import enum
import logging
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import eventlet.event
import eventlet.timeout
from ryu.lib import hub
from ryu.ofproto import ofproto_v1_3 as ofp

from openflow_rules import encode
from openflow_rules.compiler import Ports, pipeline
from openflow_rules.tables import (
    TABLES,
    CookieClass,
    Punt,
    Table,
    binding_cookie,
)
from ryu_lw4o6 import channel
from ryu_lw4o6.core.binding import BindingKey, BindingTable
from ryu_lw4o6.core.settings import Instance

LOG = logging.getLogger(__name__)

BINDINGS_PER_BUNDLE = 2000
"""So many that a bundle's fixed cost is small, so few that committing one does not keep the
switch's main thread, which also forwards packets in the userspace datapath, for long."""

DUMP_PARTS = 16
"""Flows are dumped in parts, for the same reason."""

OUR_CLASSES = frozenset(int(kind) for kind in CookieClass)
REPLY_TIMEOUT = 30.0
ARP_PUNTS_PER_SECOND = 100
_SEND_BYTES = 64 * 1024
_IPV4_LOW_BITS = 16  # where a binding's cookie has the low bits of its IPv4 address
_SEQUENCE = 1 << 20  # transaction ids of a session start here: Ryu's own are random, but few


class State(enum.StrEnum):
    VERIFYING = "verifying"
    WAITING = "waiting for ports"
    RECONCILING = "reconciling"
    READY = "ready"
    CLOSED = "closed"


class SessionError(Exception):
    """The switch did not do its part; the session ends and the next connection starts afresh."""


class SwitchError(Exception):
    """What a switch said of a message (OpenFlow 1.3 section 7.4.1)."""

    def __init__(self, kind: int, code: int) -> None:
        self.kind = kind
        self.code = code
        name = ofp.ofp_error_type_to_str(kind).split("(")[0]
        detail = ofp.ofp_error_code_to_str(kind, code).split("(")[0]
        super().__init__(f"{name}: {detail} (type {kind}, code {code})")


class Session:
    """``next_hop_mac`` is asked whenever flows are computed; ``adopt_next_hop`` is told what the
    switch's own flows say of it. ``on_packet_in`` gets (cookie, match fields, frame)."""

    def __init__(
        self,
        datapath: Any,
        instance: Instance,
        table: BindingTable,
        *,
        next_hop_mac: Callable[[], str | None],
        adopt_next_hop: Callable[[str], None],
        on_packet_in: Callable[[int, bytes, bytes], None],
    ) -> None:
        self.instance = instance
        self.state = State.VERIFYING
        self.connected_at = time.time()
        self.missing_ports: tuple[str, ...] = ()
        self.last_error: str | None = None
        self.reconciled: dict[str, float] = {}
        self.ports: Ports | None = None
        self._datapath = datapath
        self._table = table
        self._next_hop_mac = next_hop_mac
        self._adopt_next_hop = adopt_next_hop
        self._on_packet_in = on_packet_in
        self._encoder = encode.BindingEncoder(instance)
        self._xid = _SEQUENCE
        self._errors: dict[int, SwitchError] = {}
        self._awaited: dict[int, eventlet.event.Event] = {}
        self._dumps: dict[int, Callable[[bytes], None]] = {}
        self._dirty: dict[BindingKey, None] = {}
        self._in_flight: set[BindingKey] = set()
        self._failed: dict[BindingKey, str] = {}
        self._on_switch: set[BindingKey] = set()  # of which the switch has, or may have, flows
        self._pipeline: dict[bytes, bytes] = {}  # canonical flow -> message that deletes it
        self._pipeline_dirty = True
        self._ports_dirty = False
        self._wake = hub.Event()
        self._progress = eventlet.event.Event()
        channel.tap(datapath, self._receive)

    # --- what others ask of a session -----------------------------------------------------------

    def touch(self, keys: Iterable[BindingKey]) -> None:
        """These bindings have changed in the table: bring the switch in line."""
        for key in keys:
            self._dirty[key] = None
            self._failed.pop(key, None)
        self._wake.set()

    def touch_pipeline(self) -> None:
        """The next hop has changed."""
        self._pipeline_dirty = True
        self._wake.set()

    def touch_ports(self) -> None:
        """A port of the switch came, went or changed."""
        self._ports_dirty = True
        self._wake.set()

    def pending(self, key: BindingKey) -> bool:
        """Whether the switch has yet to confirm the binding with this key."""
        if self.state is not State.READY:
            return True
        return key in self._dirty or key in self._in_flight

    def failure(self, key: BindingKey) -> str | None:
        """What the switch said when it refused the binding with this key."""
        return self._failed.get(key)

    @property
    def bindings(self) -> int:
        """How many bindings the switch has."""
        return len(self._on_switch)

    @property
    def backlog(self) -> int:
        """How many bindings wait to be confirmed."""
        return len(self._dirty) + len(self._in_flight)

    def wait_progress(self, timeout: float) -> bool:
        """Wait until something was confirmed or refused; False when ``timeout`` seconds pass."""
        with eventlet.timeout.Timeout(timeout, False):
            self._progress.wait()
            return True
        return False

    def send(self, message: bytes) -> None:
        """Send one message that needs no answer, such as a packet-out."""
        self._datapath.send(message)

    def dump(
        self, take: Callable[[encode.FlowStats], None], *, table: int = ofp.OFPTT_ALL,
        cookie: int = 0, cookie_mask: int = 0,
    ) -> None:  # fmt: skip
        """Give every flow that matches to ``take``. Raises SessionError without an answer."""

        def read(message: bytes) -> None:
            for entry in encode.flow_stats_entries(message):
                take(entry)

        xid = self._next_xid()
        self._dumps[xid] = read
        try:
            request = encode.flow_stats_request(
                xid, table=table, cookie=cookie, cookie_mask=cookie_mask
            )
            self._ask(xid, request, "the flow dump")
        finally:
            del self._dumps[xid]

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
                elif self._pipeline_dirty or self._dirty:
                    self._apply()
                else:
                    self._wait()
        except SessionError as error:
            self.last_error = str(error)
            LOG.error("%s: %s; closing the connection", self.instance.name, error)
            self._datapath.close()
        finally:
            self.close()

    def close(self) -> None:
        """The connection is gone: nobody need wait any longer."""
        self.state = State.CLOSED
        channel.tap(self._datapath, None)
        for event in self._awaited.values():
            if not event.ready():
                event.send(False)
        self._wake.set()
        self._tell_progress()

    def _wait(self) -> None:
        self._wake.wait()
        self._wake.clear()

    def _verify(self) -> None:
        self._ports_dirty = False
        by_name = {
            port.name.decode(errors="replace"): port for port in self._datapath.ports.values()
        }
        instance = self.instance
        wanted = (instance.ipv6.port, instance.ipv4.port, instance.softwire_port)
        self.missing_ports = tuple(name for name in wanted if name not in by_name)
        if self.missing_ports:
            if self.state is not State.WAITING:
                LOG.error(
                    "%s: the bridge has no port %s; add it (lw4o6 switch up does)",
                    instance.name, ", ".join(self.missing_ports),
                )  # fmt: skip
            self.state = State.WAITING
            self._wait()
            return
        ipv6, ipv4, softwire = (by_name[name] for name in wanted)
        local = self._datapath.ports[ofp.OFPP_LOCAL]
        ports = Ports(ipv6.port_no, ipv4.port_no, softwire.port_no, ipv4.hw_addr, local.hw_addr)
        if ports == self.ports and self._pipeline:
            self.state = State.READY  # a port changed in a way that does not concern the flows
            return
        self.ports = ports
        self.state = State.RECONCILING

    def _reconcile(self) -> None:
        """Compare the switch's flows with what should be there and note every difference."""
        started = time.monotonic()
        assert self.ports is not None
        ports = self.ports
        stale: list[encode.FlowStats] = []
        right: dict[BindingKey, int] = {}
        found: dict[bytes, bytes] = {}
        dirty: dict[BindingKey, None] = {}
        on_switch: set[BindingKey] = set()
        learnt = {int(table) for table, declared in TABLES.items() if declared.learnt}
        table = self._table

        def take(flow: encode.FlowStats) -> None:
            if flow.table in learnt:
                return
            kind = flow.cookie >> 56
            if kind == CookieClass.BINDING:
                key = BindingKey.from_numbers(flow.cookie >> 16 & 0xFFFFFFFF, flow.cookie & 0xFFFF)
                on_switch.add(key)
                binding = table.get(key)
                if (
                    binding is not None
                    and self.instance.carries(binding)
                    and flow.canonical() == self._encoder.canonical(binding, flow.table)
                ):
                    right[key] = right.get(key, 0) + 1
                else:
                    dirty[key] = None
                return
            if kind in OUR_CLASSES:
                found[flow.canonical()] = flow.delete()
                if flow.table == Table.UPSTREAM_ROUTE and (
                    mac := encode.next_hop_mac(flow, self.instance, ports)
                ):
                    self._adopt_next_hop(mac)
            else:
                stale.append(flow)

        for part in range(DUMP_PARTS):
            self.dump(
                take,
                cookie=part << _IPV4_LOW_BITS,
                cookie_mask=(DUMP_PARTS - 1) << _IPV4_LOW_BITS,
            )
        for key, binding in table.items():
            if right.get(key) != 2 and self.instance.carries(binding):
                dirty[key] = None
        self._on_switch = on_switch
        self._pipeline = found
        self._pipeline_dirty = True
        self._failed.clear()
        changes = len(dirty)
        self._dirty.update(dirty)
        for flow in stale:
            LOG.warning(
                "%s: deleting a flow that is not ours: table %d, priority %d, cookie %#x",
                self.instance.name, flow.table, flow.priority, flow.cookie,
            )  # fmt: skip
            found[flow.canonical()] = flow.delete()
        self._set_meters()
        first = True
        while first or self._dirty:
            self._apply()
            first = False
        seconds = time.monotonic() - started
        self.reconciled = {
            "at": time.time(), "seconds": round(seconds, 3), "changed_bindings": changes,
        }  # fmt: skip
        self.state = State.READY
        LOG.info(
            "%s: reconciled in %.3f s: %d bindings on the switch, %d of them corrected",
            self.instance.name, seconds, len(self._on_switch), changes,
        )  # fmt: skip
        self._tell_progress()

    def _set_meters(self) -> None:
        rates = dict.fromkeys(Punt, self.instance.icmp.rate)
        rates[Punt.ARP] = ARP_PUNTS_PER_SECOND
        messages = [m for punt, rate in rates.items() for m in encode.set_meter(punt, rate)]
        first = self._xid
        self._send_all(encode.with_xid(m, self._next_xid()) for m in messages)
        self._barrier()
        for error in self._errors_since(first).values():
            if (error.kind, error.code) != encode.METER_EXISTS:
                raise SessionError(f"the switch refused a meter: {error}")

    def _apply(self) -> None:
        """Bring the pipeline and one bundle's worth of bindings in line."""
        batch = dict.fromkeys(islice(self._dirty, BINDINGS_PER_BUNDLE))
        for key in batch:
            del self._dirty[key]
        self._in_flight = set(batch)
        pipeline_changes = self._pipeline_changes() if self._pipeline_dirty else ([], {})
        self._pipeline_dirty = False
        refused = self._commit(batch, pipeline_changes[0])
        self._pipeline = pipeline_changes[1] or self._pipeline
        for key, error in refused.items():
            self._failed[key] = error
            LOG.error("%s: the switch refused binding %s: %s", self.instance.name, key, error)
        self._in_flight = set()
        self._tell_progress()

    def _pipeline_changes(self) -> tuple[list[bytes], dict[bytes, bytes]]:
        """Messages that turn the pipeline on the switch into the right one, and what it is then."""
        assert self.ports is not None
        flows = pipeline(self.instance, self.ports, self._next_hop_mac())
        wanted = {encode.canonical_flow(flow): flow for flow in flows}
        messages = [delete for found, delete in self._pipeline.items() if found not in wanted]
        messages += [
            encode.add_flow(flow) for key, flow in wanted.items() if key not in self._pipeline
        ]
        return messages, {key: encode.delete_flow(flow) for key, flow in wanted.items()}

    def _commit(
        self, batch: dict[BindingKey, None], pipeline_messages: list[bytes]
    ) -> dict[BindingKey, str]:
        """Send one bundle and wait for the barrier. Gives the bindings that the switch refused.

        Depending on when it finds fault with a message, Open vSwitch takes nothing of a bundle or
        all the rest of it. So after an error the rest is sent again, and what there may be of the
        refused bindings is deleted, which is right in both cases.
        """
        refused: dict[BindingKey, str] = {}
        doomed: list[BindingKey] = []
        while batch or doomed or pipeline_messages:
            first = self._xid
            key_of: dict[int, BindingKey] = {}
            removed = list(doomed)
            self._send_all(self._bundle(batch, removed, pipeline_messages, key_of))
            self._barrier()
            errors = self._errors_since(first)
            if not errors:
                self._on_switch.difference_update(removed)
                break
            bad = {key_of[xid]: str(error) for xid, error in errors.items() if xid in key_of}
            if not bad:
                raise SessionError(f"the switch refused a bundle: {next(iter(errors.values()))}")
            refused.update(bad)
            doomed = list(bad)
            batch = {key: None for key in batch if key not in bad}
        return refused

    def _bundle(
        self,
        batch: Iterable[BindingKey],
        removed: list[BindingKey],
        pipeline_messages: list[bytes],
        key_of: dict[int, BindingKey],
    ) -> Iterator[bytes]:
        """The messages that delete ``removed`` and bring ``batch`` in line with the table.

        ``removed`` grows by what is only deleted. What is added counts as being on the switch
        from now on: the table may change again before the switch has confirmed it.
        """
        yield encode.bundle_control(encode.BUNDLE_OPEN, self._next_xid())
        for message in pipeline_messages:
            yield encode.in_bundle(encode.with_xid(message, self._next_xid()))
        encoder, on_switch, get = self._encoder, self._on_switch, self._table.get
        carries = self.instance.carries
        for key in removed:
            yield encoder.delete_bundled(binding_cookie(key), self._next_xid())
        for key in batch:
            xid = self._next_xid()
            key_of[xid] = key
            if key in on_switch:
                yield encoder.delete_bundled(binding_cookie(key), xid)
            binding = get(key)
            if binding is not None and carries(binding):
                on_switch.add(key)
                yield encoder.add_bundled(binding, xid)
            else:
                removed.append(key)
        yield encode.bundle_control(encode.BUNDLE_COMMIT, self._next_xid())

    # --- messages -------------------------------------------------------------------------------

    def _next_xid(self) -> int:
        self._xid = _SEQUENCE if self._xid >= 0x7FFFFFFF else self._xid + 1
        return self._xid

    def _send_all(self, messages: Iterable[bytes]) -> None:
        chunk: list[bytes] = []
        size = 0
        for message in messages:
            chunk.append(message)
            size += len(message)
            if size >= _SEND_BYTES:
                self._send_chunk(chunk)
                chunk, size = [], 0
        self._send_chunk(chunk)

    def _send_chunk(self, chunk: list[bytes]) -> None:
        if chunk and not self._datapath.send(b"".join(chunk)):
            raise SessionError("the switch stopped reading")
        hub.sleep(0)

    def _barrier(self) -> None:
        xid = self._next_xid()
        self._ask(xid, encode.barrier(xid), "a barrier")

    def _ask(self, xid: int, message: bytes, what: str) -> None:
        event = self._awaited[xid] = eventlet.event.Event()
        try:
            if not self._datapath.send(message):
                raise SessionError("the switch stopped reading")
            with eventlet.timeout.Timeout(REPLY_TIMEOUT, False):
                if event.wait():
                    return
                raise SessionError("the connection ended")
            raise SessionError(f"no answer to {what} within {REPLY_TIMEOUT:.0f} s")
        finally:
            del self._awaited[xid]

    def _errors_since(self, first: int) -> dict[int, SwitchError]:
        errors = {xid: error for xid, error in self._errors.items() if xid > first}
        self._errors.clear()
        return errors

    def _tell_progress(self) -> None:
        done, self._progress = self._progress, eventlet.event.Event()
        done.send(None)

    def _receive(self, kind: int, xid: int, message: bytes) -> bool:
        """Called by the receive loop, in order; must not wait."""
        if kind == ofp.OFPT_PACKET_IN:
            self._packet_in(message)
        elif kind == ofp.OFPT_BARRIER_REPLY and xid in self._awaited:
            self._awaited[xid].send(True)
        elif kind == ofp.OFPT_MULTIPART_REPLY and xid in self._dumps:
            self._dumps[xid](message)
            (flags,) = struct.unpack_from("!H", message, 10)
            if not flags & ofp.OFPMPF_REPLY_MORE:
                self._awaited[xid].send(True)
        elif kind == ofp.OFPT_ERROR and xid >= _SEQUENCE:
            error = SwitchError(*struct.unpack_from("!HH", message, 8))
            self._errors[xid] = error
            LOG.debug("%s: error about message %d: %s", self.instance.name, xid, error)
        elif kind == ofp.OFPT_EXPERIMENTER:
            pass  # bundle replies: the barrier and the errors say it all
        else:
            return False
        return True

    def _packet_in(self, message: bytes) -> None:
        # ofp_packet_in: buffer id, total length, reason, table, cookie, match, 2 bytes, frame
        (cookie,) = struct.unpack_from("!Q", message, 16)
        (match_length,) = struct.unpack_from("!H", message, 26)
        frame_at = 24 + match_length + -match_length % 8 + 2
        if frame_at > len(message):
            return
        self._on_packet_in(cookie, message[28 : 24 + match_length], message[frame_at:])
