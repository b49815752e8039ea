"""An lwB4's DHCPv4-over-DHCPv6 client (RFC 7341): DHCPv4 (RFC 2131) for an address, with a port
set if it is shared (RFC 7618), carried by DHCPV4-QUERY and DHCPV4-RESPONSE.

Who to talk to, DHCPv6 says: option 88 in the answer to an INFORMATION-REQUEST (RFC 7341 section
7.2, RFC 8415 section 18.2.6). The states are those of RFC 2131 figure 5, with the names that it
has for them.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from ryu_lw4o6.core import dhcpv4, dhcpv6
from ryu_lw4o6.core.dhcpv4 import Option
from ryu_lw4o6.core.errors import Malformed
from ryu_lw4o6.core.s46 import PortSet
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

FIRST_WAIT, LONGEST_WAIT = 4.0, 64.0
"""Seconds to wait for an answer, doubled each time, one more or less (RFC 2131 section 4.1)."""
REQUESTS = 5
"""How often an offer is asked for before all begins again (RFC 2131 section 3.1 item 5)."""
RENEWAL_INTERVAL = 60.0
"""Seconds between two renewals at least (RFC 2131 section 4.4.5)."""
INF_MAX_DELAY, INF_TIMEOUT, INF_MAX_RT = 1.0, 1.0, 3600.0
"""Seconds: of INFORMATION-REQUESTs (RFC 8415 section 7.6)."""
_WANTED = bytes([Option.LEASE_TIME, Option.RENEWAL_TIME, Option.REBINDING_TIME,
                 Option.SOFTWIRE_SOURCE, Option.PORT_PARAMS])  # fmt: skip


class Phase(enum.StrEnum):
    IDLE = "idle"
    ASKING = "asking for servers"  # INFORMATION-REQUEST
    SELECTING = "selecting"
    REQUESTING = "requesting"
    REBOOTING = "rebooting"
    BOUND = "bound"
    RENEWING = "renewing"
    REBINDING = "rebinding"


@dataclass(frozen=True, slots=True)
class Config:
    """``duid`` and ``iaid`` make the client identifier (RFC 4361). ``servers`` are the DHCP 4o6
    servers if they are known already; if not, ``dhcpv6`` is asked."""

    lwb4: IPv6Address
    duid: bytes
    iaid: int = 1
    servers: tuple[IPv6Address, ...] | None = None
    dhcpv6: IPv6Address = dhcpv6.ALL_RELAYS_AND_SERVERS

    @property
    def client_id(self) -> bytes:
        return b"\xff" + self.iaid.to_bytes(4, "big") + self.duid

    @property
    def hardware_address(self) -> bytes:
        """The one that the DUID is made of, if it is (RFC 8415 section 11.4, Ethernet)."""
        return self.duid[4:] if self.duid.startswith(b"\0\3\0\1") else b""


@dataclass(frozen=True, slots=True)
class Leased:
    """What a server has offered or granted; times are those of the machine's clock."""

    ipv4: IPv4Address
    port_set: PortSet | None = None
    server: IPv4Address | None = None
    renew: float = math.inf
    rebind: float = math.inf
    until: float = math.inf

    @property
    def lease(self) -> Lease:
        if self.port_set is None:
            return Lease.of(self.ipv4)
        return Lease.of(self.ipv4, self.port_set.params, self.port_set.psid)

    def same_as(self, other: Leased) -> bool:
        return (self.ipv4, self.port_set) == (other.ipv4, other.port_set)


@dataclass(frozen=True, slots=True)
class Client:
    """``leased`` outlives its lease: it is asked for again. ``valid`` says whether it is one."""

    config: Config
    phase: Phase = Phase.IDLE
    servers: tuple[IPv6Address, ...] | None = None
    leased: Leased | None = None
    valid: bool = False
    offered: Leased | None = None
    xid: int = 0
    began: float = 0.0  # this attempt
    asked: float = 0.0  # last
    secs: int = 0  # as sent
    tries: int = 0
    wait: float = 0.0
    send_at: float | None = None

    @property
    def wake(self) -> float | None:
        """When it wants a ``Timer``; None for never."""
        times = [self.send_at]
        if self.leased and self.valid:
            times.append(self.leased.until)
            if self.phase is Phase.BOUND:
                times.append(self.leased.renew)
            elif self.phase is Phase.RENEWING:
                times.append(self.leased.rebind)
        return min((at for at in times if at is not None and at < math.inf), default=None)


Result = tuple[Client, tuple[Action, ...]]


def step(client: Client, event: Event, now: float, random: Random) -> Result:
    """What follows from an event."""
    match event:
        case Start():
            return _start(client, now, random)
        case Timer():
            return _timer(client, now, random)
        case Received(payload):
            return _received(client, payload, now, random)
        case Stop():
            return _stop(client, now, random)


def _start(client: Client, now: float, random: Random) -> Result:
    servers = client.servers if client.config.servers is None else client.config.servers
    if servers is None:
        client = _fresh(client, Phase.ASKING, now, random)
        return replace(client, send_at=now + random() * INF_MAX_DELAY), ()
    client = replace(client, servers=servers)
    if client.leased is not None and client.valid:
        return _send(_fresh(client, Phase.REBOOTING, now, random), now, random)
    return _send(_fresh(client, Phase.SELECTING, now, random), now, random)


def _fresh(client: Client, phase: Phase, now: float, random: Random) -> Client:
    """A phase that begins with a transaction of its own."""
    return replace(
        client, phase=phase, xid=int(random() * (1 << 32)), began=now, secs=0, tries=0, wait=0.0,
        offered=None, send_at=None,
    )  # fmt: skip


# --- what is sent ---


def _send(client: Client, now: float, random: Random) -> Result:
    """The phase's message, for the first time or again, and when it is to be sent next."""
    secs = client.secs  # of DISCOVER, in the REQUEST that follows (RFC 2131 section 3.1)
    if client.phase is not Phase.REQUESTING:
        secs = min(int(now - client.began), 0xFFFF)
    client = replace(client, asked=now, secs=secs)
    message = _message(client)
    actions: tuple[Action, ...] = ()
    if message is not None:
        unicast = client.phase is Phase.RENEWING
        actions = _to_servers(client, message, unicast)
    client = replace(client, tries=client.tries + 1)
    if client.phase in (Phase.RENEWING, Phase.REBINDING):
        assert client.leased is not None
        end = client.leased.rebind if client.phase is Phase.RENEWING else client.leased.until
        at = now + max(RENEWAL_INTERVAL, (end - now) / 2)
        return replace(client, send_at=at if at < end else None), actions
    wait = min(FIRST_WAIT * 2 ** (client.tries - 1), LONGEST_WAIT) + 2 * random() - 1
    return replace(client, send_at=now + wait), actions


def _to_servers(client: Client, message: dhcpv4.Message, unicast: bool) -> tuple[Action, ...]:
    query = dhcpv6.dhcpv4_query(message.pack(), unicast=unicast).pack()
    servers = client.servers or (dhcpv6.ALL_RELAYS_AND_SERVERS,)
    return tuple(Send(query, server) for server in servers)


def _message(client: Client) -> dhcpv4.Message | None:
    """What the phase says (RFC 2131 table 5)."""
    match client.phase:
        case Phase.SELECTING:
            wanted = client.leased
            return _compose(client, dhcpv4.Kind.DISCOVER, wanted, requested=True)
        case Phase.REQUESTING:
            return _compose(
                client, dhcpv4.Kind.REQUEST, client.offered, requested=True, server=True
            )
        case Phase.REBOOTING:
            return _compose(client, dhcpv4.Kind.REQUEST, client.leased, requested=True)
        case Phase.RENEWING | Phase.REBINDING:
            return _compose(client, dhcpv4.Kind.REQUEST, client.leased)
        case _:
            return None


def _compose(
    client: Client, kind: dhcpv4.Kind, about: Leased | None, *,
    requested: bool = False, server: bool = False,
) -> dhcpv4.Message:  # fmt: skip
    """A message about an address: ``requested`` in an option, or else the client's own in
    ``ciaddr``; ``server`` names the server that it is for."""
    options: dict[int, bytes] = {
        Option.MESSAGE_TYPE: bytes([kind]),
        Option.CLIENT_ID: client.config.client_id,
    }
    if about is not None and requested:
        options[Option.REQUESTED_ADDRESS] = about.ipv4.packed
    if about is not None and server and about.server is not None:
        options[Option.SERVER_ID] = about.server.packed
    if about is not None and about.port_set is not None:
        options[Option.PORT_PARAMS] = about.port_set.pack()
    options[Option.SOFTWIRE_SOURCE] = client.config.lwb4.packed  # RFC 8539 section 6
    if kind is not dhcpv4.Kind.RELEASE:
        options[Option.PARAMETER_REQUEST_LIST] = _WANTED
    own = about.ipv4 if about is not None and not requested else IPv4Address(0)
    return dhcpv4.Message(
        dhcpv4.REQUEST, client.xid, options, ciaddr=own, secs=client.secs,
        chaddr=client.config.hardware_address,
    )  # fmt: skip


def _ask(client: Client, now: float, random: Random) -> Result:
    """INFORMATION-REQUEST for option 88, repeated by RFC 8415 section 15."""
    jitter = 0.2 * random() - 0.1
    wait = INF_TIMEOUT * (1 + jitter) if not client.tries else client.wait * (2 + jitter)
    if wait > INF_MAX_RT:
        wait = INF_MAX_RT * (1 + jitter)
    began = client.began if client.tries else now
    elapsed = min(int((now - began) * 100), 0xFFFF)
    message = dhcpv6.Message(
        dhcpv6.Kind.INFORMATION_REQUEST,
        client.xid & 0xFFFFFF,
        (
            (dhcpv6.Option.CLIENT_ID, client.config.duid),
            (dhcpv6.Option.ELAPSED_TIME, elapsed.to_bytes(2, "big")),
            (dhcpv6.Option.ORO, dhcpv6.Option.DHCP4O6_SERVERS.to_bytes(2, "big")),
        ),
    )
    client = replace(client, tries=client.tries + 1, wait=wait, began=began, send_at=now + wait)
    return client, (Send(message.pack(), client.config.dhcpv6),)


# --- time ---


def _timer(client: Client, now: float, random: Random) -> Result:
    leased = client.leased
    if leased is not None and client.valid and now >= leased.until:
        client = replace(client, valid=False)
        if client.phase is not Phase.ASKING:
            client = _fresh(client, Phase.SELECTING, now, random)
            client, sent = _send(client, now, random)
            return client, (Lost("expired"), *sent)
        return client, (Lost("expired"),)
    if leased is not None and client.phase is Phase.BOUND and now >= leased.renew:
        return _send(_fresh(client, Phase.RENEWING, now, random), now, random)
    if leased is not None and client.phase is Phase.RENEWING and now >= leased.rebind:
        return _send(_fresh(client, Phase.REBINDING, now, random), now, random)
    if client.send_at is None or now < client.send_at:
        return client, ()
    if client.phase is Phase.ASKING:
        return _ask(client, now, random)
    if client.phase is Phase.REQUESTING and client.tries >= REQUESTS:
        return _send(_fresh(client, Phase.SELECTING, now, random), now, random)
    return _send(client, now, random)


# --- what is received ---


def _received(client: Client, payload: bytes, now: float, random: Random) -> Result:
    try:
        message = dhcpv6.parse(payload)
        if not isinstance(message, dhcpv6.Message):
            raise Malformed("a relayed message")
        if message.kind == dhcpv6.Kind.REPLY and client.phase is Phase.ASKING:
            return _servers(client, message, now, random)
        if message.kind != dhcpv6.Kind.DHCPV4_RESPONSE or message.dhcpv4 is None:
            raise Malformed("not an answer to what was sent")
        answer = dhcpv4.Message.parse(message.dhcpv4)
        _check(client, answer)
        return _answer(client, answer, now, random)
    except Malformed as error:
        return client, (Note("dhcp_ignored", {"reason": str(error)}),)


def _servers(client: Client, reply: dhcpv6.Message, now: float, random: Random) -> Result:
    if reply.word != client.xid & 0xFFFFFF:
        raise Malformed("another transaction")
    if reply.get(dhcpv6.Option.CLIENT_ID) != client.config.duid:
        raise Malformed("another client's")  # RFC 8415 section 16.10
    if reply.get(dhcpv6.Option.SERVER_ID) is None:
        raise Malformed("nobody's")
    servers = reply.dhcp4o6_servers
    if servers is None:
        # DHCPv4 over DHCPv6 must not be used here (RFC 7341 section 9). Ask again later.
        return client, (Note("dhcp_not_offered", {"asked": client.config.dhcpv6}),)
    return _start(replace(client, servers=tuple(dict.fromkeys(servers))), now, random)


def _check(client: Client, answer: dhcpv4.Message) -> None:
    """Raise Malformed unless ``answer`` is to this client's last message."""
    if client.phase in (Phase.IDLE, Phase.ASKING, Phase.BOUND):
        raise Malformed("nothing was asked")
    if answer.op != dhcpv4.REPLY or answer.xid != client.xid:
        raise Malformed("another transaction")
    if answer.options.get(Option.CLIENT_ID, client.config.client_id) != client.config.client_id:
        raise Malformed("another client's")  # RFC 6842 section 3


def _answer(client: Client, answer: dhcpv4.Message, now: float, random: Random) -> Result:
    kind = answer.kind
    if client.phase is Phase.SELECTING:
        if kind != dhcpv4.Kind.OFFER:
            raise Malformed("no offer")
        offered = _leased(answer, now, random)
        client = replace(client, phase=Phase.REQUESTING, offered=offered, tries=0)
        return _send(client, now, random)
    if kind == dhcpv4.Kind.NAK:
        return _refused(client, now, random)
    if kind != dhcpv4.Kind.ACK:
        raise Malformed("neither ACK nor NAK")
    # It began when it was asked for, not when the answer came (RFC 2131 section 4.4.1).
    leased = _leased(answer, client.asked, random)
    if leased.until <= now:
        raise Malformed("a lease that is over")
    wanted = client.offered if client.phase is Phase.REQUESTING else client.leased
    if wanted is None or not leased.same_as(wanted):
        raise Malformed(f"acknowledges {leased.lease}, which was not asked for")
    client = replace(
        client, phase=Phase.BOUND, leased=leased, valid=True, offered=None, send_at=None
    )
    return client, (Bound(leased.lease, leased.until - now),)


def _refused(client: Client, now: float, random: Random) -> Result:
    """NAK: begin anew. At once, unless it was an offer that has been withdrawn: that might go on
    for ever."""
    again = client.phase is Phase.REQUESTING
    lost: tuple[Action, ...] = (Lost("refused"),) if client.valid else ()
    client = replace(_fresh(client, Phase.SELECTING, now, random), valid=False, leased=None)
    if again:
        return replace(client, send_at=now + FIRST_WAIT + 2 * random() - 1), lost
    client, sent = _send(client, now, random)
    return client, (*lost, *sent)


def _leased(answer: dhcpv4.Message, began: float, random: Random) -> Leased:
    """What an OFFER or ACK gives, from ``began`` on. Raises Malformed for one that cannot be used:
    RFC 2131 table 3 and RFC 7618 section 6.1."""
    seconds, server = answer.seconds(Option.LEASE_TIME), answer.address(Option.SERVER_ID)
    ipv4 = answer.yiaddr
    if not seconds or server is None:
        raise Malformed("no lease time or server")
    if ipv4.is_unspecified or ipv4.is_multicast or ipv4.is_loopback or int(ipv4) == 0xFFFFFFFF:
        raise Malformed(f"{ipv4} is no host's address")
    port_set = answer.port_set
    if port_set is not None and port_set.params.port_count() == 0:
        raise Malformed("a port set without ports")
    if seconds == dhcpv4.INFINITE:
        return Leased(ipv4, port_set, server)
    # With a little fuzz, so that lwB4s that were restarted together do not renew together.
    fuzz = 0.95 + 0.05 * random()
    rebind = _within(answer.seconds(Option.REBINDING_TIME), 0.875 * seconds, seconds)
    renew = _within(answer.seconds(Option.RENEWAL_TIME), 0.5 * seconds, rebind)
    return Leased(
        ipv4, port_set, server, began + renew * fuzz, began + rebind * fuzz, began + seconds
    )


def _within(given: int | None, default: float, limit: float) -> float:
    """A time of the server's, or the default if it makes no sense (RFC 2131 section 4.4.5)."""
    return float(given) if given is not None and 0 < given < limit else min(default, limit)


def _stop(client: Client, now: float, random: Random) -> Result:
    """RELEASE, of a lease that is there (RFC 2131 section 4.4.6)."""
    stopped = replace(client, phase=Phase.IDLE, valid=False, send_at=None, offered=None)
    if client.leased is None or not client.valid:
        return stopped, ()
    client = _fresh(client, client.phase, now, random)
    release = _compose(client, dhcpv4.Kind.RELEASE, client.leased, server=True)
    return stopped, (*_to_servers(client, release, unicast=True), Lost("released"))
