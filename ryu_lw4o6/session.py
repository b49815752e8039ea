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
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import eventlet.event
import eventlet.timeout
from ryu.lib import hub
from ryu.ofproto import ofproto_v1_3 as ofp

from openflow_rules import encode
from openflow_rules.compiler import pipeline
from openflow_rules.compiler.parts import Ports
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
from ryu_lw4o6.outbox import Outbox

LOG = logging.getLogger(__name__)

BINDINGS_PER_BUNDLE = 2000
"""So many that a bundle's fixed cost is small, so few that committing one does not keep the
switch's main thread, which also forwards packets in the userspace datapath, for long."""

DUMP_PARTS = 16
"""Flows are dumped in parts, for the same reason."""

OUR_CLASSES = frozenset(int(kind) for kind in CookieClass)
REPLY_TIMEOUT = 30.0
ALIVE_SECONDS = 3.0
"""How long a switch may be silent before it is given up: as long as the BGP hold time."""
_UNREAD_SECONDS = 0.2
"""And how much longer, in case it is us who were busy: the answer may be there, and not read."""
ARP_PUNTS_PER_SECOND = 100
PCP_PUNTS_PER_SECOND = 10_000
SLOW_PUNTS_PER_SECOND = {Punt.FRAGMENT: 5_000, Punt.SLOW_SOFTWIRE: 10_000}
ASKED_IPV4_PER_SECOND = 2_000
"""Packets from the Internet that the supporting system is asked about. After a failover every
subscriber is unknown, and must not wait behind the Internet's port scans."""

_SEND_BYTES = 512 * 1024
"""Sent at once, before everybody else has a turn: while a storm is on, a turn takes tens of
milliseconds, and a bundle is some of these."""
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


@dataclass(eq=False, slots=True)
class _Bundle:
    """A bundle that was sent, and what is true once the switch has confirmed it.

    ``keys`` are in line with the table as it was then. ``refused`` are bindings that the switch
    did not take earlier, and what it said: what there may be of them is gone. ``pipeline`` is the
    new pipeline, None if it stays as it was. ``messages`` has the transaction id of every message
    in the bundle, with the binding it is about.
    """

    keys: dict[BindingKey, None]
    refused: dict[BindingKey, str]
    pipeline: dict[bytes, bytes] | None = None
    messages: dict[int, BindingKey | None] = field(default_factory=dict)
    barrier: int = 0


class Session:
    """``next_hop_mac`` is asked whenever flows are computed; ``adopt_next_hop`` is told what the
    switch's own flows say of it. ``on_packet_in`` gets (cookie, match fields, frame), and
    ``on_orphan`` the softwire of a binding that the switch has and nobody knows."""

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
        on_orphan: Callable[[encode.PipelineFields], None] = lambda fields: None,
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
        self._table = table
        self._next_hop_mac = next_hop_mac
        self._adopt_next_hop = adopt_next_hop
        self._on_packet_in = on_packet_in
        self._on_change = on_change
        self._on_orphan = on_orphan
        self._encoder = encode.BindingEncoder(instance)
        self._xid = _SEQUENCE
        self._errors: dict[int, SwitchError] = {}
        self._awaited: dict[int, eventlet.event.Event] = {}
        self._dumps: dict[int, Callable[[bytes], None]] = {}
        self._dirty: dict[BindingKey, None] = {}
        self._in_flight: list[_Bundle] = []
        self._refused: dict[BindingKey, str] = {}  # what there may be of them is to be deleted
        self._failed: dict[BindingKey, str] = {}
        self._on_switch: set[BindingKey] = set()  # when all that was sent has been carried out
        self._pipeline: dict[bytes, bytes] = {}  # canonical flow -> message that deletes it
        self._pipeline_dirty = True
        self._ports_dirty = False
        self._outbox = Outbox(datapath.send)
        self._wake = hub.Event()
        self._progress = eventlet.event.Event()
        channel.tap(datapath, self._receive)

    # --- what others ask of a session -----------------------------------------------------------

    def touch(self, keys: Iterable[BindingKey]) -> None:
        """These bindings have changed in the table: bring the switch in line."""
        for key in keys:
            self._dirty[key] = None
            self._failed.pop(key, None)
            self._refused.pop(key, None)
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
        return self.state is not State.READY or self._underway(key)

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
        return len(self._dirty) + sum(len(bundle.keys) for bundle in self._in_flight)

    def wait_progress(self, timeout: float) -> bool:
        """Wait until something was confirmed or refused; False when ``timeout`` seconds pass."""
        with eventlet.timeout.Timeout(timeout, False):
            self._progress.wait()
            return True
        return False

    def send(self, message: bytes) -> bool:
        """Send one message that needs no answer, such as a packet-out. Does not wait. False if too
        much waits for the switch already: the message is lost."""
        return self._outbox.add(message)

    def links_down(self) -> list[str]:
        """The NICs without a link, or missing."""
        linked = {
            port.name.decode(errors="replace")
            for port in self._datapath.ports.values()
            if not port.state & ofp.OFPPS_LINK_DOWN
        }
        nics = dict.fromkeys((self.instance.ipv6.port, self.instance.ipv4.port))
        return [nic for nic in nics if nic not in linked]

    def is_alive(self) -> bool:
        """Ask for a sign of life and wait for it."""
        try:
            xid = self._request_barrier()
            self._answer(xid, "a barrier", ALIVE_SECONDS)
        except SessionError:
            return False
        return True

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
            self._request(xid, request)
            self._answer(xid, "the flow dump")
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
                elif self._work_left():
                    self._apply()
                else:
                    self._wait()
        except SessionError as error:
            LOG.error("%s: %s; closing the connection", self.instance.name, error)
            self._datapath.close()
        finally:
            self.close()

    def close(self) -> None:
        """The connection is gone: nobody need wait any longer."""
        self.state = State.CLOSED
        self.forwarding = False
        channel.tap(self._datapath, None)
        for event in self._awaited.values():
            if not event.ready():
                event.send(False)
        self._wake.set()
        self._tell_progress()

    def _set_forwarding(self, forwarding: bool) -> None:
        if forwarding != self.forwarding:
            self.forwarding = forwarding
            self._on_change()

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
        transient = {int(table) for table, declared in TABLES.items() if declared.transient}
        table = self._table

        def take(flow: encode.FlowStats) -> None:
            if flow.table in transient:
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
                if binding is None and flow.table == Table.UPSTREAM_BINDING:
                    self._on_orphan(encode.pipeline_fields(flow.match[4:]))
                return
            if kind == CookieClass.TEMPORARY:
                return
            if kind in OUR_CLASSES:
                found[flow.canonical()] = flow.delete()
                if flow.table == Table.INTERNET_OUTPUT and (
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
        self._refused.clear()
        changes = len(dirty)
        self._dirty.update(dirty)
        for flow in stale:
            LOG.warning(
                "%s: deleting a flow that is not ours: table %d, priority %d, cookie %#x",
                self.instance.name, flow.table, flow.priority, flow.cookie,
            )  # fmt: skip
            found[flow.canonical()] = flow.delete()
        self._set_up()
        self._apply()
        seconds = time.monotonic() - started
        self.reconciled = {
            "at": time.time(), "seconds": round(seconds, 3), "changed_bindings": changes,
        }  # fmt: skip
        self.state = State.READY
        self._set_forwarding(True)
        LOG.info(
            "%s: reconciled in %.3f s: %d bindings on the switch, %d of them corrected",
            self.instance.name, seconds, len(self._on_switch), changes,
        )  # fmt: skip
        self._tell_progress()

    def _set_up(self) -> None:
        rates = dict.fromkeys(Punt, self.instance.icmp.rate)
        rates[Punt.ARP] = ARP_PUNTS_PER_SECOND
        rates[Punt.PCP] = PCP_PUNTS_PER_SECOND
        rates |= SLOW_PUNTS_PER_SECOND
        rates[Punt.UNKNOWN_LWB4] = self.instance.unknown_rate
        if self.instance.failover.validates:
            rates[Punt.UNKNOWN_IPV4] = ASKED_IPV4_PER_SECOND
        messages = [m for punt, rate in rates.items() for m in encode.set_meter(punt, rate)]
        messages.append(encode.match_fragments(0))
        xids = [self._next_xid() for _ in messages]
        self._send_all(map(encode.with_xid, messages, xids))
        self._answer(self._request_barrier(), "a barrier")
        for error in self._take_errors(xids).values():
            if (error.kind, error.code) != encode.METER_EXISTS:
                raise SessionError(f"the switch refused a meter, or to show fragments: {error}")

    def _apply(self) -> None:
        """Bring the pipeline and all bindings in line.

        While the switch works on one bundle, the next is made: neither waits for the other. A
        change of the pipeline travels alone, since the next one starts from where it led.
        """
        sent: _Bundle | None = None
        while sent is not None or self._work_left():
            following = None
            alone = self._pipeline_dirty or (sent is not None and sent.pipeline is not None)
            if self._work_left() and not (sent is not None and alone):
                following = self._send_bundle()
            if sent is not None:
                self._confirm(sent)
            sent = following

    def _work_left(self) -> bool:
        """Whether there is something to send, for the ports that are known."""
        return not self._ports_dirty and bool(self._dirty or self._refused or self._pipeline_dirty)

    def _underway(self, key: BindingKey) -> bool:
        """Whether the binding with this key is to be sent, or to be confirmed."""
        return (
            key in self._dirty
            or key in self._refused
            or any(key in bundle.keys or key in bundle.refused for bundle in self._in_flight)
        )

    def _pipeline_changes(self) -> tuple[list[bytes], dict[bytes, bytes]]:
        """Messages that turn the pipeline on the switch into the right one, and what it is then."""
        assert self.ports is not None
        flows = pipeline(self.instance, self.ports, self._next_hop_mac())
        wanted = {encode.canonical_flow(flow): flow for flow in flows}
        deletes = {key: encode.delete_flow(flow) for key, flow in wanted.items()}
        # What only has new actions is replaced in its place, and so goes on counting.
        replaced = set(deletes.values())
        messages = [
            delete
            for found, delete in self._pipeline.items()
            if found not in wanted and delete not in replaced
        ]
        messages += [
            encode.add_flow(flow) for key, flow in wanted.items() if key not in self._pipeline
        ]
        return messages, deletes

    def _send_bundle(self) -> _Bundle:
        """Send the next bundle, and a barrier behind it."""
        keys = dict.fromkeys(islice(self._dirty, BINDINGS_PER_BUNDLE))
        for key in keys:
            del self._dirty[key]
        bundle = _Bundle(keys, self._refused)
        self._refused = {}
        self._in_flight.append(bundle)
        pipeline_messages: list[bytes] = []
        if self._pipeline_dirty:
            pipeline_messages, bundle.pipeline = self._pipeline_changes()
            self._pipeline_dirty = False
        self._send_all(self._messages_of(bundle, pipeline_messages))
        bundle.barrier = self._request_barrier()
        return bundle

    def _messages_of(self, bundle: _Bundle, pipeline_messages: list[bytes]) -> Iterator[bytes]:
        encoder, on_switch, get = self._encoder, self._on_switch, self._table.get
        carries, about = self.instance.carries, bundle.messages

        def xid_for(key: BindingKey | None = None) -> int:
            xid = self._next_xid()
            about[xid] = key
            return xid

        yield encode.bundle_control(encode.BUNDLE_OPEN, xid_for())
        for message in pipeline_messages:
            yield encode.in_bundle(encode.with_xid(message, xid_for()))
        for key in bundle.refused:
            on_switch.discard(key)
            yield encoder.delete_bundled(binding_cookie(key), xid_for())
        for key in bundle.keys:
            xid = xid_for(key)
            if key in on_switch:
                yield encoder.delete_bundled(binding_cookie(key), xid)
            binding = get(key)
            if binding is not None and carries(binding):
                on_switch.add(key)
                yield encoder.add_bundled(binding, xid)
            else:
                on_switch.discard(key)
        yield encode.bundle_control(encode.BUNDLE_COMMIT, xid_for())

    def _confirm(self, bundle: _Bundle) -> None:
        """Wait until the switch has done with a bundle."""
        self._answer(bundle.barrier, "a barrier")
        self._in_flight.remove(bundle)
        errors = self._take_errors(bundle.messages)
        if errors:
            self._take_back(bundle, errors)
        else:
            if bundle.pipeline is not None:
                self._pipeline = bundle.pipeline
            for key, error in bundle.refused.items():
                if not self._underway(key):
                    self._failed[key] = error
                    LOG.error("%s: the switch refused binding %s: %s",
                              self.instance.name, key, error)  # fmt: skip
        self._tell_progress()

    def _take_back(self, bundle: _Bundle, errors: dict[int, SwitchError]) -> None:
        """The switch refused a part of a bundle: note what is still to be done.

        Depending on when it finds fault with a message, Open vSwitch takes nothing of a bundle or
        all the rest of it. So the rest is sent again, and what there may be of the refused
        bindings is deleted, which is right in both cases.
        """
        bad: dict[BindingKey, str] = {}
        for xid, error in errors.items():
            key = bundle.messages[xid]
            if key is not None:
                bad[key] = str(error)
        if not bad:
            raise SessionError(f"the switch refused a bundle: {next(iter(errors.values()))}")
        self._pipeline_dirty |= bundle.pipeline is not None
        for key in {**bundle.keys, **bundle.refused}:
            said = bad.get(key) or bundle.refused.get(key)
            if said is not None and not self._underway(key):
                self._refused[key] = said
            elif key not in bad:  # of one that has changed since, another bundle will tell
                self._dirty[key] = None
                self._on_switch.add(key)  # perhaps still, so it is deleted first

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

    def _request_barrier(self) -> int:
        """Ask for a barrier; the number to wait for its answer with."""
        xid = self._next_xid()
        self._request(xid, encode.barrier(xid))
        return xid

    def _request(self, xid: int, message: bytes) -> None:
        """Send a message whose answer ``_answer`` waits for."""
        self._awaited[xid] = eventlet.event.Event()
        if not self._datapath.send(message):
            raise SessionError("the switch stopped reading")

    def _answer(self, xid: int, what: str, seconds: float = REPLY_TIMEOUT) -> None:
        """Wait for the answer to the request with this transaction id."""
        try:
            for patience in (seconds, _UNREAD_SECONDS):
                with eventlet.timeout.Timeout(patience, False):
                    if self._awaited[xid].wait():
                        return
                    raise SessionError("the connection ended")
            raise SessionError(f"no answer to {what} within {seconds:.0f} s")
        finally:
            del self._awaited[xid]

    def _take_errors(self, xids: Iterable[int]) -> dict[int, SwitchError]:
        """What the switch said of these messages."""
        if not self._errors:
            return {}
        return {xid: self._errors.pop(xid) for xid in xids if xid in self._errors}

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
