"""The DHCPv6 relay agent of an lwAFTR (RFC 8415 section 19), which carries DHCPv4 too (RFC 7341).

Messages to the server are passed on at once and forgotten but for what the answer needs. An answer
that leases something waits until the store has the binding and the switch its flows; all other
answers go straight back. Nothing here waits for the server: it may be slow, dead, or not there yet.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from typing import Any, NamedTuple, Protocol

from ryu.lib import hub

from ryu_lw4o6.core import dhcpv4, dhcpv6
from ryu_lw4o6.core.binding import Binding, BindingKey, BindingTable, Origin
from ryu_lw4o6.core.dhcp_relay import (
    Drop,
    Dropped,
    Lease,
    Query,
    is_link_local,
    softwire_address,
    to_client,
    to_server,
)
from ryu_lw4o6.core.dhcpv6 import Kind, Message, Relayed
from ryu_lw4o6.core.errors import Malformed
from ryu_lw4o6.core.leases import Leases
from ryu_lw4o6.core.settings import Instance
from ryu_lw4o6.core.times import rfc3339
from ryu_lw4o6.fatal import fatal
from ryu_lw4o6.provisioning import dhcp_sockets
from ryu_lw4o6.provisioning.confirmation import Confirmations, Done
from ryu_lw4o6.provisioning.dhcp_sockets import Ear
from ryu_lw4o6.session import Session
from ryu_lw4o6.store import StoreUnavailable

LOG = logging.getLogger(__name__)

EXCHANGE_SECONDS = 60.0
"""How long an answer is waited for."""
MOST_EXCHANGES = 50_000
"""Answers that are waited for; the oldest is given up for a new one."""
MOST_JOBS = 20_000
"""Leases that wait for the store and the switch."""
BATCH = 500
MOST_PER_CLIENT = 20
"""Messages of one client in a second that are passed on: the server is everybody's."""
MOST_BYTES = 16384
"""Longer messages are refused: what the relay adds must fit, too."""
REASON = "dhcp"

Choice = tuple[Collection[Binding], Collection[BindingKey]]


class Alter(Protocol):
    """See ``Service.alter``."""

    def __call__(self, choose: Callable[[BindingTable], Choice], reason: str) -> None: ...


class _Exchange(NamedTuple):
    """A message of a client that the server has not answered yet: ``ear`` heard it. ``wants_br``
    says whether the client asks which address its softwire is to go to."""

    ear: Ear
    scope: int
    query: Query | None
    since: float
    wants_br: bool = False


@dataclass(slots=True)
class _Job:
    """A lease to be made a binding, after which ``send`` is called; or, without it, a binding to
    be removed."""

    lwb4: IPv6Address
    key: BindingKey
    binding: Binding | None = None
    send: Callable[[], None] = lambda: None
    refused: bool = False


class DhcpRelay:
    """``alter`` changes bindings; ``session`` is the switch's session of the moment."""

    def __init__(
        self, instance: Instance, alter: Alter, session: Callable[[], Session | None]
    ) -> None:
        assert instance.dhcp is not None
        self.instance = instance
        self.settings = instance.dhcp
        self.counts: Counter[str] = Counter()
        self.dropped: Counter[Drop] = Counter()
        self._alter = alter
        self._leases = Leases(instance.prefixes)
        self._confirmations = Confirmations(session)
        own = instance.ipv6.address.ip
        addresses = dict.fromkeys((*instance.aftr_addresses, own, self.settings.address))
        self._ears = {address: Ear(address) for address in addresses}
        self._own, self._upstream = self._ears[own], self._ears[self.settings.address]
        self._group = Ear(dhcpv6.ALL_RELAYS_AND_SERVERS, instance.bridge)
        self._exchanges: dict[Any, _Exchange] = {}
        self._jobs: deque[_Job] = deque()
        self._wake = hub.Event()
        self._second = 0
        self._by_client: dict[int, int] = {}
        """Messages in this second, by the client's address."""
        self._last_query: float | None = None
        self._last_answer: float | None = None

    def run(self) -> None:
        """Work for ever."""
        hub.spawn(fatal(self._confirmations.run))
        for ear in (*self._ears.values(), self._group):
            hub.spawn(fatal(ear.run), self.receive)
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._jobs:
                self._work([self._jobs.popleft() for _ in range(min(BATCH, len(self._jobs)))])

    def receive(self, data: bytes, origin: dhcp_sockets.Origin, ear: Ear) -> None:
        """A datagram has come. Must not wait."""
        self.counts["received"] += 1
        try:
            if len(data) > MOST_BYTES:
                raise Malformed(f"{len(data)} bytes")
            path, message = dhcpv6.unwrap(data)
            if path and path[0].kind == Kind.RELAY_REPL:
                if origin.address != self.settings.server or ear is not self._upstream:
                    raise Dropped(Drop.NOT_THE_SERVER)
                self._from_server(path, message)
            else:
                self._from_client(path, message, origin, ear)
        except Malformed as error:
            LOG.debug("%s: DHCP message of %s: %s", self.instance.name, origin.address, error)
            self.dropped[Drop.MALFORMED] += 1
        except Dropped as error:
            self.dropped[error.drop] += 1

    # --- to the server ----------------------------------------------------------------------------

    def _from_client(
        self, path: list[Relayed], message: Message, origin: dhcp_sockets.Origin, ear: Ear
    ) -> None:
        if message.kind in dhcpv6.FROM_SERVERS:
            raise Dropped(Drop.WRONG_KIND)
        if path and not any(origin.address in known for known in self.settings.access_relays):
            raise Dropped(Drop.UNTRUSTED_RELAY)
        hop_count = path[0].hop_count + 1 if path else 0
        if hop_count > dhcpv6.HOP_COUNT_LIMIT:
            raise Dropped(Drop.HOP_LIMIT)
        self._limit(int(path[-1].peer if path else origin.address))
        query = None
        if message.kind == Kind.DHCPV4_QUERY:
            message, query = self._translate(path, message, origin, ear)
        # A relay with an address of its own has named the link (RFC 8415 section 19.1.2).
        link = self._own.address
        if path and not is_link_local(origin.address):
            link = IPv6Address(0)
        options = (
            (dhcpv6.Option.INTERFACE_ID, self.instance.name.encode()),
            (dhcpv6.Option.RELAY_MESSAGE, dhcpv6.wrap(path, message)),
        )
        forwarded = Relayed(Kind.RELAY_FORW, hop_count, link, origin.address, options)
        wants_br = message.asks_for(dhcpv6.Option.S46_BR)
        exchange = _Exchange(ear, origin.scope, query, time.monotonic(), wants_br)
        self._remember(_key([forwarded, *path], message, query), exchange)
        self._last_query = time.time()
        self._send(self._upstream, forwarded.pack(), self.settings.server, dhcpv6.SERVER_PORT)
        if query is not None and query.kind in (dhcpv4.Kind.RELEASE, dhcpv4.Kind.DECLINE):
            assert query.key is not None
            self._put(_Job(query.lwb4, query.key))

    def _limit(self, client: int) -> None:
        second = int(time.monotonic())
        if second != self._second:
            self._second = second
            self._by_client.clear()
        count = self._by_client[client] = self._by_client.get(client, 0) + 1
        if count > MOST_PER_CLIENT:
            raise Dropped(Drop.TOO_OFTEN)

    def _translate(
        self, path: list[Relayed], message: Message, origin: dhcp_sockets.Origin, ear: Ear
    ) -> tuple[Message, Query]:
        peer, link = origin.address, self._own.address
        if path:
            peer, link = path[-1].peer, path[-1].link
        asked = dhcpv4.Message.parse(message.dhcpv4 or b"")
        lwb4 = softwire_address(asked, peer, link, self.settings.softwire_prefix_length)
        if lwb4 in self._ears:
            raise Dropped(Drop.SOFTWIRE_ADDRESS)
        sent, query = to_server(asked, lwb4, self._br_address(ear), self._leases)
        return _replace_dhcpv4(message, sent), query

    def _br_address(self, ear: Ear) -> IPv6Address | None:
        """The lwAFTR's end of a softwire: the AFTR address that the lwB4 has asked, if any."""
        others = self.instance.aftr_addresses[1:]
        return ear.address if ear.address in others else None

    def _remember(self, key: Any, exchange: _Exchange) -> None:
        self._exchanges.pop(key, None)
        if len(self._exchanges) >= MOST_EXCHANGES:
            del self._exchanges[next(iter(self._exchanges))]
        self._exchanges[key] = exchange

    # --- and back ---------------------------------------------------------------------------------

    def _from_server(self, path: list[Relayed], message: Message) -> None:
        self._last_answer = time.time()
        reply, inner = path[0], path[1:]
        answer = None
        if message.kind == Kind.DHCPV4_RESPONSE:
            answer = dhcpv4.Message.parse(message.dhcpv4 or b"")
        key = _key(path, message, answer)
        exchange = self._exchanges.get(key)
        if exchange is None or exchange.since < time.monotonic() - EXCHANGE_SECONDS:
            if answer is not None:
                raise Dropped(Drop.UNASKED)
            # Whatever it is, it is relayed (RFC 8415 section 19.2): RECONFIGURE, for one.
            exchange = _Exchange(self._group, self._group.scope, None, 0.0)
        lease = None
        if answer is not None:
            assert exchange.query is not None
            answer, lease = to_client(answer, exchange.query, self._leases)
            message = _replace_dhcpv4(message, answer)
            if exchange.wants_br and message.get(dhcpv6.Option.S46_BR) is None:
                br = self._br_address(exchange.ear) or self.instance.aftr_addresses[0]
                message = replace(
                    message, options=(*message.options, (dhcpv6.Option.S46_BR, br.packed))
                )
        data = dhcpv6.wrap(inner, message)
        port = dhcpv6.SERVER_PORT if inner else dhcpv6.CLIENT_PORT
        ear = exchange.ear
        if ear is self._group and not is_link_local(reply.peer):
            ear = self._own

        def send() -> None:
            self._send(ear, data, reply.peer, port, exchange.scope)

        if lease is None:
            send()
        else:
            del self._exchanges[key]  # a lease once; whoever asks again is answered again
            binding = self._binding(lease, self._br_address(exchange.ear))
            self._put(_Job(lease.lwb4, lease.key, binding, send))

    def _binding(self, lease: Lease, br_address: IPv6Address | None) -> Binding:
        expires_at = None if lease.seconds is None else time.time() + lease.seconds
        ipv4, psid = lease.key.ipv4, lease.key.psid
        return Binding(lease.lwb4, ipv4, psid, lease.params, br_address, Origin.DHCP, expires_at)

    def _send(self, ear: Ear, data: bytes, address: IPv6Address, port: int, scope: int = 0) -> None:
        if ear.send(data, address, port, scope):
            self.counts["sent"] += 1
        else:
            self.dropped[Drop.UNREACHABLE] += 1

    # --- bindings ---------------------------------------------------------------------------------

    def _put(self, job: _Job) -> None:
        if len(self._jobs) + len(self._confirmations) >= MOST_JOBS:
            raise Dropped(Drop.OVERLOAD)
        self._jobs.append(job)
        self._wake.set()

    def _work(self, jobs: Sequence[_Job]) -> None:
        try:
            self._alter(lambda table: choose(jobs, table), REASON)
        except (StoreUnavailable, ValueError) as error:
            LOG.error("%s: leases are not passed on: %s", self.instance.name, error)
            self.dropped[Drop.NOT_APPLIED] += sum(job.binding is not None for job in jobs)
            return
        for job in jobs:
            if job.refused:
                self.dropped[Drop.NOT_APPLIED] += 1
            elif job.binding is not None:
                self._confirmations.wait(job.key, self._when_confirmed(job))

    def _when_confirmed(self, job: _Job) -> Done:
        def done(error: str | None) -> None:
            if error is None:
                self.counts["leases"] += 1
                job.send()
            else:
                self.dropped[Drop.NOT_APPLIED] += 1

        return done

    def status(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "server": str(self.settings.server),
            "address": str(self.settings.address),
            "listening": [str(e.address) for e in (*self._ears.values(), self._group) if e.open],
            "last_query_at": self._last_query and rfc3339(self._last_query),
            "last_answer_at": self._last_answer and rfc3339(self._last_answer),
            "received": self.counts["received"],
            "sent": self.counts["sent"],
            "leases": self.counts["leases"],
            "waiting": len(self._jobs) + len(self._confirmations),
            "dropped": {str(drop): self.dropped[drop] for drop in Drop},
        }


_LEASED = (Origin.DHCP, Origin.VALIDATED)
"""Whose bindings follow the DHCP server. All others are somebody's own decision."""


def choose(jobs: Sequence[_Job], table: BindingTable) -> Choice:
    """What is to be put into the table and removed from it, job by job. A job whose address and
    port set somebody has given to another lwB4 is ``refused``."""
    changed: dict[BindingKey, Binding | None] = {}
    last: dict[IPv6Address, BindingKey] = {}
    for job in jobs:
        existing = changed[job.key] if job.key in changed else table.get(job.key)
        if job.binding is None:
            if existing and existing.lwb4 == job.lwb4 and existing.origin in _LEASED:
                changed[job.key] = None
            continue
        if existing is None or existing.origin in _LEASED:
            changed[job.key] = job.binding
        elif existing.lwb4 != job.lwb4:
            job.refused = True
            continue
        # The server gives an lwB4 one lease at a time.
        others = [b for b in table.by_lwb4(job.lwb4) if b.origin is Origin.DHCP]
        before = changed.get(last.get(job.lwb4, job.key))
        if before is not None:
            others.append(before)
        for other in others:
            current = changed.get(other.key, other)
            if other.key != job.key and current is not None and current.lwb4 == job.lwb4:
                changed[other.key] = None
        last[job.lwb4] = job.key
    put = [binding for binding in changed.values() if binding is not None]
    return put, [key for key, binding in changed.items() if binding is None]


def _key(path: Sequence[Relayed], message: Message, dhcp: Query | dhcpv4.Message | None) -> Any:
    """What the question and its answer have in common: the way, and the transaction."""
    return (*[int(relayed.peer) for relayed in path], message.word if dhcp is None else (dhcp.xid,))


def _replace_dhcpv4(message: Message, inside: dhcpv4.Message) -> Message:
    options = dhcpv6.replace(message.options, dhcpv6.Option.DHCPV4_MESSAGE, inside.pack())
    return Message(message.kind, message.word, options)
