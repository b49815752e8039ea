"""The PCP server of one instance: requests out of softwires, answers into them (RFC 6887).

A MAP request is answered when what it has changed is in the store and on the switch, so that the
lwB4's next packet finds its binding. Requests that come while others are worked on go to the store
in one batch. Whatever hangs, a request is answered within the deadline.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any, NamedTuple

import eventlet.tpool
from ryu.lib import hub

from openflow_rules import encode
from ryu_lw4o6.core import icmp, pcp, pcp_server, udp
from ryu_lw4o6.core.addresses import is_host
from ryu_lw4o6.core.binding import BindingKey, BindingTable, Origin
from ryu_lw4o6.core.pcp import Ignored, Opcode, Refused, Request, Result
from ryu_lw4o6.core.pcp_server import Mapping, Subscriber
from ryu_lw4o6.core.pool import AddressPool
from ryu_lw4o6.core.resting import Resting
from ryu_lw4o6.core.settings import Instance
from ryu_lw4o6.core.udp import Datagram
from ryu_lw4o6.provisioning.confirmation import Confirmations
from ryu_lw4o6.provisioning.pcp_records import Change, PcpRecords
from ryu_lw4o6.session import Session
from ryu_lw4o6.store import StoreError, StoreUnavailable

LOG = logging.getLogger(__name__)

DEADLINE = 10.0
"""Seconds from a request to its answer. Clients ask again meanwhile (RFC 6887 section 8.1.1), but
an error keeps them from it for longer: it is not for who only has to wait until a full queue of
``MOST_WAITING`` is worked off."""
BATCH = 200
"""Requests served at a stretch: many to a commit, few enough for everybody else to have a turn."""
ATTEMPTS = 5
"""How often another port set is tried when another controller was first."""
MOST_WAITING = 20_000
MOST_OF_ONE_LWB4 = 8
ANNOUNCEMENTS = 3
"""How often an ANNOUNCE is sent: it may get lost, and nobody acknowledges it. Each interval is
twice the one before (RFC 6887 section 14.1.3)."""
ANNOUNCE_SECONDS = 0.5
ANNOUNCED_PER_TURN = 100
_TICK = 0.05
_LWB4S = IPv4Network("192.0.0.0/29")  # an lwB4's address before it has one (RFC 7335)
_LWB4 = IPv4Address("192.0.0.2")

Commit = Callable[[Sequence[Change], float], set[BindingKey]]
"""Puts changes into store, table and switches, but for those whose address and port set somebody
else has, whose keys come back. Raises StoreUnavailable."""


class _Client(NamedTuple):
    """Who asks, and from where."""

    lwb4: IPv6Address
    br_address: IPv6Address
    source: IPv4Address
    port: int


@dataclass(slots=True)
class _Waiting:
    """A MAP request. When its changes are ``stored``, the switch has yet to confirm them before
    ``response`` is sent."""

    client: _Client
    payload: bytes
    request: Request
    since: float
    stored: bool = False
    response: bytes = b""

    @property
    def id(self) -> tuple[_Client, bytes]:
        return self.client, self.payload


class PcpServer:
    def __init__(
        self, instance: Instance, table: BindingTable, records: PcpRecords, commit: Commit
    ) -> None:
        assert instance.pcp is not None
        self.instance = instance
        self.received: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self._terms = instance.pcp
        self._pool = AddressPool(instance.pcp.pool, system_ports=instance.pcp.system_ports)
        self._resting = Resting(self._pool, time.monotonic)
        table.watch(self._resting.changed)
        self._table = table
        self._records = records
        self._commit = commit
        self._session: Session | None = None
        self._waiting: dict[tuple[_Client, bytes], _Waiting] = {}  # oldest first
        self._queue: deque[_Waiting] = deque()
        self._by_lwb4: Counter[IPv6Address] = Counter()
        self._confirmations = Confirmations(lambda: self._session)
        self._lost: dict[IPv6Address, IPv6Address] = {}
        self._store_down = False
        self._asked = hub.Event()
        self._to_expire = hub.Event()
        self._to_announce = hub.Event()

    def greenlets(self) -> list[Callable[[], None]]:
        return [self._serve, self._confirmations.run, self._expire, self._announce]

    def connect(self, session: Session | None) -> None:
        """The switch has a new session, or none."""
        self._session = session

    def lost(self, lwb4: IPv6Address, br_address: IPv6Address) -> None:
        """The switch had a binding of this lwB4 that nobody knows of: whatever PCP state it is
        of is lost, and the lwB4 is told (RFC 6887 section 14.1.3)."""
        self._lost[lwb4] = br_address
        self._to_announce.set()

    def status(self) -> dict[str, Any]:
        """Counts, ready for JSON."""
        return {
            "received": {kind: self.received[kind] for kind in _KINDS},
            "answered": {result.name: self.answered[result.name] for result in Result},
            "dropped": {reason: self.dropped[reason] for reason in _REASONS},
            "announced": self.answered["announcements"],
            "waiting": len(self._waiting),
            "pool": {"size": self._pool.size, "used": self._pool.used - len(self._resting)},
            "epoch": self._epoch(),
        }

    def _epoch(self) -> int:
        return self._records.epoch(time.time())

    # --- a packet ---------------------------------------------------------------------------------

    def packet_in(self, fields: bytes, frame: bytes) -> None:
        """The switch has shown a packet to the PCP server's address and port. Must not wait."""
        packet = icmp.ipv4_packet(frame)
        datagram = None if packet is None else udp.parse(packet)
        softwire = encode.pipeline_fields(fields).softwire
        if datagram is None or softwire is None or softwire[1] not in self.instance.aftr_addresses:
            self.dropped["malformed"] += 1
            return
        client = _Client(*softwire, datagram.source, datagram.source_port)
        if self._may_ask(client):
            self._received(client, datagram.payload)
        else:
            self.dropped["source"] += 1

    def _may_ask(self, client: _Client) -> bool:
        """Out of a softwire that an answer can be sent into, from the lwB4's own end of it or from
        an address that is nobody else's: it may be that of a binding that is lost."""
        if not is_host(client.lwb4) or client.lwb4 in self.instance.own_addresses:
            return False
        if client.source in _LWB4S:
            return client.source != self._terms.server
        if not self.instance.serves(client.source):
            return False
        binding = self._table.by_port(client.source, client.port)
        return binding is None or binding.lwb4 == client.lwb4

    def _received(self, client: _Client, payload: bytes) -> None:
        kind = "unreadable"
        try:
            request = pcp.parse_request(payload)
            kind = _kind(request)
            pcp_server.check(request, client.source)
        except Ignored:
            self.dropped["no_request"] += 1
            return
        except Refused as refused:
            self._refuse(client, payload, refused)
        else:
            if request.opcode is Opcode.ANNOUNCE:
                self._answer(client, Result.SUCCESS, pcp.announcement(self._epoch()))
            else:
                self._put(_Waiting(client, payload, request, time.monotonic()))
        self.received[kind] += 1

    def _put(self, waiting: _Waiting) -> None:
        lwb4 = waiting.client.lwb4
        # Those that were too late stay in the queue until their turn comes.
        crowded = max(len(self._waiting), len(self._queue)) >= MOST_WAITING
        if waiting.id in self._waiting:
            self.dropped["repeated"] += 1  # one answer is enough
        elif crowded or self._by_lwb4[lwb4] >= MOST_OF_ONE_LWB4:
            self.dropped["overload"] += 1
        else:
            self._waiting[waiting.id] = waiting
            self._by_lwb4[lwb4] += 1
            self._queue.append(waiting)
            if len(self._queue) == 1:
                self._asked.set()
            if len(self._waiting) == 1:
                self._to_expire.set()

    # --- its answer -------------------------------------------------------------------------------

    def _refuse(self, client: _Client, payload: bytes, refused: Refused) -> None:
        LOG.debug("%s: %s is refused: %s", self.instance.name, client, refused)
        response = pcp.error_response(payload, refused.result, self._epoch(), refused.lifetime)
        self._answer(client, refused.result, response)

    def _answer(self, client: _Client, result: Result, response: bytes) -> None:
        self.answered[result.name] += 1
        self._send(client.lwb4, client.br_address, client.source, client.port, response)

    def _send(
        self, lwb4: IPv6Address, br_address: IPv6Address, to: IPv4Address, port: int, message: bytes
    ) -> None:
        session = self._session
        if session is None or session.ports is None:
            return  # the client will ask again
        datagram = Datagram(self._terms.server, to, pcp.SERVER_PORT, port, message)
        session.send(
            encode.into_softwire(datagram.encode(), lwb4, br_address, session.ports.softwire)
        )

    def _finish(self, waiting: _Waiting, error: Refused | None = None) -> None:
        """Answer a request, unless somebody has: with what it came to, or with an error."""
        if not self._is_open(waiting):
            return
        del self._waiting[waiting.id]
        lwb4 = waiting.client.lwb4
        self._by_lwb4[lwb4] -= 1
        if not self._by_lwb4[lwb4]:
            del self._by_lwb4[lwb4]
        if error is None:
            self._answer(waiting.client, Result.SUCCESS, waiting.response)
        else:
            self._refuse(waiting.client, waiting.payload, error)

    def _is_open(self, waiting: _Waiting) -> bool:
        """Whether this very request is still to be answered; the same may have come again."""
        return self._waiting.get(waiting.id) is waiting

    # --- requests become changes ------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            while self._queue:
                self._work(self._take())

    def _take(self) -> list[_Waiting]:
        """The next batch, in which no lwB4 is twice."""
        batch: dict[IPv6Address, _Waiting] = {}
        later = []
        while self._queue and len(batch) < BATCH:
            waiting = self._queue.popleft()
            if waiting.client.lwb4 in batch:
                later.append(waiting)
            else:
                batch[waiting.client.lwb4] = waiting
        self._queue.extendleft(reversed(later))
        return list(batch.values())

    def _work(self, batch: Sequence[_Waiting]) -> None:
        for _ in range(ATTEMPTS):
            batch = [waiting for waiting in batch if self._is_open(waiting)]
            if not batch:
                return
            try:
                batch = self._attempt(batch)
            except (StoreError, StoreUnavailable) as error:
                if not self._store_down:
                    LOG.error("%s: PCP waits for the store: %s", self.instance.name, error)
                self._store_down = True
                self._give_up(batch, "the store does not answer")
                return
            if self._store_down:
                LOG.info("%s: the store is back for PCP", self.instance.name)
                self._store_down = False
        self._give_up(batch, "other controllers were first, again and again")

    def _give_up(self, batch: Sequence[_Waiting], reason: str) -> None:
        for waiting in batch:
            self._finish(waiting, Refused(Result.NO_RESOURCES, reason))

    def _attempt(self, batch: Sequence[_Waiting]) -> list[_Waiting]:
        """Serve a batch; what is left of it, because somebody else was first."""
        now = time.time()
        lwb4s = [waiting.client.lwb4 for waiting in batch]
        found = eventlet.tpool.execute(self._records.mappings, lwb4s, now)
        served: list[tuple[_Waiting, Change]] = []
        for waiting in batch:
            try:
                change = self._decide(waiting, found.get(waiting.client.lwb4, ()), now)
            except Refused as refused:
                self._finish(waiting, refused)
                continue
            if change.put is not None:
                self._pool.mark(change.put.key, True)  # not to be given out again meanwhile
            served.append((waiting, change))
        changes = [change for _, change in served if change.before != change.after]
        refused_keys: set[BindingKey] = set()
        try:
            if changes:
                refused_keys = self._commit(changes, now)
        finally:
            for change in changes:
                if (put := change.put) is not None:
                    self._pool.mark(put.key, put.key in self._table)
        left = []
        for waiting, change in served:
            if change.put is not None and change.put.key in refused_keys:
                left.append(waiting)
            else:
                self._done(waiting, change.key)
        return left

    def _decide(self, waiting: _Waiting, mappings: Sequence[Mapping], now: float) -> Change:
        client = waiting.client
        own = [b for b in self._table.by_lwb4(client.lwb4) if self.instance.carries(b)]
        # Of several, that of PCP is the one that can be prolonged.
        own.sort(key=lambda binding: binding.origin is not Origin.PCP)
        binding = own[0] if own else None
        if binding is not None and binding.br_address == self.instance.aftr_addresses[0]:
            binding = replace(binding, br_address=None)
        if binding is None:
            self._resting.make_room(client.lwb4)
        before = Subscriber(client.lwb4, binding, tuple(mappings))
        served = pcp_server.serve(
            before,
            waiting.request,
            None if client.br_address == self.instance.aftr_addresses[0] else client.br_address,
            self._terms,
            self._pool,
            now,
            self._records.epoch(now),
        )
        waiting.response = served.response.encode()
        return Change(before, served.after)

    def _done(self, waiting: _Waiting, key: BindingKey | None) -> None:
        """A request's changes are in the store: is the switch as far?"""
        if key is None:
            self._finish(waiting)
            return

        def confirmed(error: str | None) -> None:
            self._finish(waiting, None if error is None else Refused(Result.NETWORK_FAILURE, error))

        waiting.stored = True
        self._confirmations.wait(key, confirmed, waiting.since + DEADLINE)

    def _expire(self) -> None:
        """Give up what the store has not done in time. For ever."""
        while True:
            self._to_expire.wait(_TICK if self._waiting else None)
            self._to_expire.clear()
            late = time.monotonic() - DEADLINE
            for waiting in list(self._waiting.values()):
                if waiting.since > late:
                    break
                if not waiting.stored:
                    error = Refused(Result.NO_RESOURCES, f"not done within {DEADLINE:g} s")
                    self._finish(waiting, error)

    # --- lost state -------------------------------------------------------------------------------

    def _announce(self) -> None:
        """Tell those whose state is lost, so that they ask anew. For ever."""
        while True:
            self._to_announce.wait()
            self._to_announce.clear()
            hub.sleep(ANNOUNCE_SECONDS)
            lost, self._lost = list(self._lost.items()), {}
            for number in range(ANNOUNCEMENTS):
                self._announce_once(lost)
                hub.sleep(ANNOUNCE_SECONDS * 2**number)

    def _announce_once(self, lwb4s: Sequence[tuple[IPv6Address, IPv6Address]]) -> None:
        for number, (lwb4, br_address) in enumerate(lwb4s, 1):
            self.answered["announcements"] += 1
            message = pcp.announcement(self._epoch())
            self._send(lwb4, br_address, _LWB4, pcp.CLIENT_PORT, message)
            if number % ANNOUNCED_PER_TURN == 0:
                hub.sleep(_TICK)  # 2000 a second, for the lwB4s all come back at once


_KINDS = ("map", "map_port_set", "delete", "announce", "unreadable")
_REASONS = ("malformed", "source", "no_request", "repeated", "overload")


def _kind(request: Request) -> str:
    if request.opcode is Opcode.ANNOUNCE:
        return "announce"
    if request.lifetime == 0:
        return "delete"
    return "map" if request.options.port_set is None else "map_port_set"
