"""An lwB4's PCP client: one mapping, with a port set, that is its binding at the lwAFTR (RFC 6887,
RFC 7753, RFC 7596 section 7).

The mapping is for all protocols and for the lwB4's address inside the softwire. Its nonce never
changes, so that a server that knows the mapping renews it and one that does not makes it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from ryu_lw4o6.core import pcp
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
from topo.lwb4.softwire import B4_ADDRESS

IRT = 3.0
MRT = 1024.0
"""Seconds: the first and the longest time to wait for an answer (RFC 6887 section 8.1.1). There is
no limit to how often or how long a request is repeated (MRC and MRD are 0)."""
MAX_LIFETIME = 86400
"""Seconds that are believed of a server, of a mapping (section 15) as of an error (section 8.3)."""
RECOVERY_DELAY = 5.0
"""Seconds to wait at most when a server has lost its mappings (section 14.1.3)."""
MIN_INTERVAL = 4.0
"""Seconds between two renewals at least (section 11.2.1)."""


class Phase(enum.StrEnum):
    IDLE = "idle"
    REQUESTING = "requesting"  # a request is repeated until it is answered
    BOUND = "bound"  # and renewed in time
    REFUSED = "refused"  # the server has said no, and for how long


@dataclass(frozen=True, slots=True)
class Config:
    """``ports`` and ``lifetime`` (seconds) are what is asked for; the server may grant others."""

    ports: int = 1024
    lifetime: int = 3600
    client: IPv4Address = B4_ADDRESS


@dataclass(frozen=True, slots=True)
class Granted:
    """A mapping; times are those of the machine's clock."""

    lease: Lease
    at: float
    until: float


@dataclass(frozen=True, slots=True)
class Client:
    """``wait`` is the time waited for an answer last; ``renewals`` counts those not answered yet.
    ``suggested`` outlives the mapping: it is asked for again."""

    nonce: bytes
    config: Config = field(default_factory=Config)
    phase: Phase = Phase.IDLE
    granted: Granted | None = None
    suggested: Lease | None = None
    send_at: float | None = None
    wait: float = 0.0
    renewals: int = 0
    epoch: tuple[int, float] | None = None  # what the server said last, and when

    @property
    def wake(self) -> float | None:
        """When it wants a ``Timer``; None for never."""
        times = [self.send_at, self.granted.until if self.granted else None]
        return min((at for at in times if at is not None), default=None)


Result = tuple[Client, tuple[Action, ...]]


def step(client: Client, event: Event, now: float, random: Random) -> Result:
    """What follows from an event."""
    match event:
        case Start():
            if client.phase is Phase.REFUSED:  # within the lifetime of an error (section 8.3)
                return client, (Note("pcp_still_refused"),)
            return _request(client, now, random)
        case Timer():
            return _timer(client, now, random)
        case Received(payload):
            return _received(client, payload, now, random)
        case Stop():
            return _stop(client)


def _request(client: Client, now: float, random: Random) -> Result:
    """The first request of a series."""
    wait = _jitter(random) * IRT
    client = replace(client, phase=Phase.REQUESTING, wait=wait, send_at=now + wait)
    return client, (_map(client, client.config.lifetime),)


def _jitter(random: Random) -> float:
    return 0.9 + 0.2 * random()


def _map(client: Client, lifetime: int) -> Send:
    """MAP for all protocols with a port set. One that deletes suggests nothing (section 15)."""
    suggested = client.suggested if lifetime else None
    mapping = pcp.Mapping(
        client.nonce, 0, 0, suggested.ports[0][0] if suggested else 0,
        suggested.ipv4 if suggested else pcp.ANY_IPV4,
    )  # fmt: skip
    options = pcp.Options(port_set=pcp.PortSet(client.config.ports, 0))
    request = pcp.Request(pcp.Opcode.MAP, client.config.client, lifetime, mapping, options)
    return Send(request.encode())


def _timer(client: Client, now: float, random: Random) -> Result:
    if client.granted is not None and now >= client.granted.until:
        client, sent = _request(replace(client, granted=None, renewals=0), now, random)
        return client, (Lost("expired"), *sent)
    if client.send_at is None or now < client.send_at:
        return client, ()
    match client.phase:
        case Phase.REQUESTING:
            wait = _jitter(random) * min(2 * client.wait, MRT)
            client = replace(client, wait=wait, send_at=now + wait)
            return client, (_map(client, client.config.lifetime),)
        case Phase.BOUND:
            client = replace(client, renewals=client.renewals + 1)
            client = replace(client, send_at=_renew_at(client, now, random))
            return client, (_map(client, client.config.lifetime),)
        case _:  # the error's lifetime is over
            return _request(client, now, random)


def _renew_at(client: Client, now: float, random: Random) -> float | None:
    """When to renew: first after 1/2 to 5/8 of the lifetime, then 3/4 to 13/16, then 7/8 to 29/32,
    and so on, four seconds apart at least (section 11.2.1). None when no time is left."""
    assert client.granted is not None
    left = 0.5 ** (client.renewals + 1)  # of the lifetime, when the next renewal is due
    part = 1 - left + random() * left / 4
    at = client.granted.at + part * (client.granted.until - client.granted.at)
    at = max(at, now + MIN_INTERVAL)
    return at if at < client.granted.until else None


def _received(client: Client, payload: bytes, now: float, random: Random) -> Result:
    try:
        response = pcp.parse_response(payload)
    except ValueError as error:
        return client, (Note("pcp_ignored", {"reason": str(error)}),)
    previous, client = client.epoch, replace(client, epoch=(response.epoch, now))
    if response.opcode == pcp.Opcode.ANNOUNCE:
        if client.phase is not Phase.BOUND or _plausible(previous, response.epoch, now):
            return client, ()
        return _restarted(client, response.epoch, now, random)
    if response.opcode != pcp.Opcode.MAP or not _answers(client, response):
        return replace(client, epoch=previous), (
            Note("pcp_ignored", {"reason": "answers no request"}),
        )
    # Whatever its epoch says of other mappings, an answer tells the truth about the only one.
    if response.result is not pcp.Result.SUCCESS:
        return _refused(client, response, now)
    return _granted(client, response, now, random)


def _plausible(previous: tuple[int, float] | None, epoch: int, now: float) -> bool:
    """Whether the server can have kept its mappings since it was heard last (section 8.5)."""
    return previous is None or pcp.epoch_is_plausible(previous[0], epoch, now - previous[1])


def _restarted(client: Client, epoch: int, now: float, random: Random) -> Result:
    """The server has lost its mappings (section 8.5): make this one again, though not when all
    others do."""
    send_at = now + RECOVERY_DELAY * random()
    client = replace(client, phase=Phase.REQUESTING, wait=IRT / 2, send_at=send_at)
    return client, (Note("pcp_server_lost_state", {"epoch": epoch}),)


def _answers(client: Client, response: pcp.Response) -> bool:
    """Whether a response is to the mapping's request (section 11.4)."""
    mapping = response.mapping
    if client.phase in (Phase.IDLE, Phase.REFUSED) or mapping is None:
        return False
    return (mapping.nonce, mapping.protocol, mapping.internal_port) == (client.nonce, 0, 0)


def _refused(client: Client, response: pcp.Response, now: float) -> Result:
    """An error holds for its lifetime; a mapping that is there stays until it expires."""
    unsupported = response.result is pcp.Result.UNSUPP_VERSION  # until it is updated (section 9)
    most = pcp.LONG_ERROR if unsupported else MAX_LIFETIME
    seconds = max(MIN_INTERVAL, min(response.lifetime, most))
    note = Note("pcp_refused", {"result": response.result.name, "seconds": seconds})
    return replace(client, phase=Phase.REFUSED, send_at=now + seconds), (note,)


def _granted(client: Client, response: pcp.Response, now: float, random: Random) -> Result:
    seconds = min(response.lifetime, MAX_LIFETIME)
    lease = _lease(response)
    if lease is None or seconds == 0:
        return client, (Note("pcp_ignored", {"reason": "grants nothing"}),)
    client = replace(
        client, phase=Phase.BOUND, granted=Granted(lease, now, now + seconds), suggested=lease,
        renewals=0, wait=0.0,
    )  # fmt: skip
    client = replace(client, send_at=_renew_at(client, now, random))
    return client, (Bound(lease, seconds),)


def _lease(response: pcp.Response) -> Lease | None:
    """The address and ports that a response assigns. A server without PORT_SET assigns one port,
    or, as port 0 of all protocols, the whole address (RFC 6887 section 11.1)."""
    mapping, port_set = response.mapping, response.options.port_set
    if mapping is None or not isinstance(mapping.external_address, IPv4Address):
        return None
    first = mapping.external_port
    if port_set is None and first == 0:
        return Lease.of(mapping.external_address)
    size = 1 if port_set is None else port_set.size
    if size == 0 or first + size > 0x10000 or mapping.external_address.is_unspecified:
        return None
    return Lease(mapping.external_address, (range(first, first + size),))


def _stop(client: Client) -> Result:
    stopped = replace(client, phase=Phase.IDLE, send_at=None, granted=None)
    if client.phase is Phase.IDLE:
        return stopped, ()
    # A request that has not been answered may have made a mapping all the same.
    lost = (Lost("released"),) if client.granted else ()
    return stopped, (_map(client, 0), *lost)
