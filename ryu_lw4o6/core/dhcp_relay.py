"""What the lwAFTR's relay does to DHCPv4 messages on their way to the server and back.

The server (any that knows RFC 7341) leases each address once; on the wire to it, a port set is an
address of its own (``leases``). An lwB4 sees what RFC 7618 says: a shared address, and option 159.
Towards the server

- yiaddr, ciaddr and the requested address stand for a port set. An lwB4 that repeats only the
  address has its port set in the server identifier, which for shared addresses is the stand-in;
- the client identifier is the lwB4's IPv6 address. So nobody can take, prolong or release what
  another lwB4 has, an lwB4 has one lease at most, and has it again when it forgot all about it;
- so is the hardware address, which is anybody's claim, and which an lwB4 need not have: Kea goes
  through all leases without one, or with the same, before it gives out a new lease;
- relay agent information (RFC 3046) says which lwB4 it is, so that the lease database does, too.
  What a client has put there is removed, as is whatever else could lead to another subnet.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from ryu_lw4o6.core import dhcpv4
from ryu_lw4o6.core.addresses import is_host
from ryu_lw4o6.core.binding import BindingKey
from ryu_lw4o6.core.dhcpv4 import AgentOption, Kind, Message, Option
from ryu_lw4o6.core.errors import Malformed
from ryu_lw4o6.core.leases import Leases
from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.core.s46 import PortSet

NOBODYS = IPv4Address("192.0.0.8")
"""What the server sees of an address that is none of ours: an address that is never leased (the
IPv4 dummy address, RFC 7600), so that it refuses."""

_UNSPECIFIED = IPv4Address(0)
_FROM_CLIENTS = (Kind.DISCOVER, Kind.REQUEST, Kind.DECLINE, Kind.RELEASE, Kind.INFORM)
_FROM_SERVERS = (Kind.OFFER, Kind.ACK, Kind.NAK)
_NOT_FOR_SERVERS = (Option.RELAY_AGENT, Option.SUBNET_SELECTION, Option.PORT_PARAMS)
_NOT_FOR_CLIENTS = (Option.RELAY_AGENT, Option.SUBNET_MASK, Option.ROUTER, Option.PORT_PARAMS)
_OPAQUE = b"\0"
"""The type of a client identifier that is no hardware address (RFC 2132 section 9.14)."""


class Drop(enum.StrEnum):
    """Why a message goes no further."""

    MALFORMED = "malformed"
    HOP_LIMIT = "hop_limit"  # it has passed too many relays
    WRONG_KIND = "wrong_kind"  # no client, or no server, says such a thing
    UNTRUSTED_RELAY = "untrusted_relay"  # it claims to pass on what another client has sent
    RELAYED_DHCPV4 = "relayed_dhcpv4"  # giaddr is set: it has been through a DHCPv4 relay
    SOFTWIRE_ADDRESS = "softwire_address"  # of the lwB4: unknown, or not believed
    NO_LEASE = "no_lease"  # released or declined without saying which port set
    NOT_THE_SERVER = "not_the_server"  # a server's message from somebody else
    UNASKED = "unasked"  # a server's DHCPv4 that nobody waits for
    NOT_OURS = "not_ours"  # the server leases an address that stands for none of ours
    NO_PORT_SETS = "no_port_sets"  # a shared address for an lwB4 that knows none
    NOT_APPLIED = "not_applied"  # neither store nor switch took the binding in time
    TOO_OFTEN = "too_often"  # one client sends more than any needs to
    OVERLOAD = "overload"  # too many at once
    UNREACHABLE = "unreachable"  # there is no way to the server, or back


class Dropped(Exception):
    """A message goes no further."""

    def __init__(self, drop: Drop) -> None:
        super().__init__(drop)
        self.drop = drop


@dataclass(frozen=True, slots=True)
class Query:
    """What must be known of a client's message when the server answers it.

    ``given`` is the address that the client says it has or was offered, ``port_set`` the port set,
    ``key`` both; each None if it does not say. ``client_id`` is the identifier that it gave itself,
    ``chaddr`` the hardware address.
    """

    lwb4: IPv6Address
    xid: int
    kind: int
    client_id: bytes | None
    chaddr: bytes
    ciaddr: IPv4Address
    given: IPv4Address | None
    port_set: PortSet | None
    key: BindingKey | None
    knows_port_sets: bool
    wants_source: bool


@dataclass(frozen=True, slots=True)
class Lease:
    """What an ACK gives to an lwB4, for ``seconds``, or for ever if that is None."""

    lwb4: IPv6Address
    key: BindingKey
    params: PortParams
    seconds: int | None


def softwire_address(
    message: Message, peer: IPv6Address, link: IPv6Address, prefix_length: int
) -> IPv6Address:
    """Where an lwB4's softwire begins: where its message came from (``peer``), or the address in
    the message (RFC 8539) if it is in the same prefix. An lwB4 with a link-local address, seen
    through another relay, is held to the prefix of its ``link``. Raises Dropped."""
    named = message.softwire_source
    if named is None or named == IPv6Address(0):
        named = peer
    near = link if is_link_local(peer) else peer
    shift = 128 - prefix_length
    if int(named) >> shift != int(near) >> shift or not is_host(named):
        raise Dropped(Drop.SOFTWIRE_ADDRESS)
    return named


def is_link_local(address: IPv6Address) -> bool:
    """In fe80::/10; the property of an IPv6Address takes ten times as long."""
    return int(address) >> 118 == 0xFE80 >> 6


def to_server(
    message: Message, lwb4: IPv6Address, br_address: IPv6Address | None, leases: Leases
) -> tuple[Message, Query]:
    """A client's message as the server is to see it. ``br_address`` is the lwAFTR's end of the
    softwire if it is not the instance's first address. Raises Dropped."""
    kind = message.kind
    if message.op != dhcpv4.REQUEST or kind not in _FROM_CLIENTS:
        raise Dropped(Drop.WRONG_KIND)
    if message.giaddr != _UNSPECIFIED:
        raise Dropped(Drop.RELAYED_DHCPV4)
    given = message.address(Option.REQUESTED_ADDRESS)
    if given is None and message.ciaddr != _UNSPECIFIED:
        given = message.ciaddr
    leased, override = _leased(message, given, leases)
    if kind in (Kind.RELEASE, Kind.DECLINE) and leased in (None, NOBODYS):
        raise Dropped(Drop.NO_LEASE)
    options = {c: v for c, v in message.options.items() if c not in _NOT_FOR_SERVERS}
    ciaddr = _translate(message, options, leased)
    options[Option.CLIENT_ID] = _OPAQUE + lwb4.packed
    agent: dict[int, bytes] = {AgentOption.REMOTE_ID: lwb4.packed}
    if br_address is not None:
        agent[AgentOption.CIRCUIT_ID] = br_address.packed
    if override:
        agent[AgentOption.SERVER_ID_OVERRIDE] = options[Option.SERVER_ID]
    options[Option.RELAY_AGENT] = dhcpv4.pack_agent(agent)
    found = None if leased is None else leases.from_server(leased)
    port_set = message.port_set
    query = Query(
        lwb4, message.xid, kind, message.options.get(Option.CLIENT_ID), message.chaddr,
        message.ciaddr, given, port_set, None if found is None else found[0],
        message.asks_for(Option.PORT_PARAMS),
        message.softwire_source is not None or message.asks_for(Option.SOFTWIRE_SOURCE),
    )  # fmt: skip
    return message.altered(options, ciaddr, message.yiaddr, lwb4.packed), query


def _translate(
    message: Message, options: dict[int, bytes], leased: IPv4Address | None
) -> IPv4Address:
    """Put the server's address into ``options``; what ``ciaddr`` is to be.

    Renewing and rebinding look like verifying (RFC 2131 section 4.3.2): whoever has no such lease
    is refused, instead of given it or met with silence. Without an address the server goes by the
    client identifier alone; but an offer that is accepted is no lease yet, and without an address
    the server might give any other.
    """
    has_address = options.pop(Option.REQUESTED_ADDRESS, None) is not None
    if message.kind == Kind.REQUEST:
        has_address = True
        if Option.SERVER_ID in options:
            leased = leased or NOBODYS
    elif message.ciaddr != _UNSPECIFIED:
        return leased or NOBODYS
    if has_address and leased is not None:
        options[Option.REQUESTED_ADDRESS] = leased.packed
    return _UNSPECIFIED


def _leased(
    message: Message, given: IPv4Address | None, leases: Leases
) -> tuple[IPv4Address | None, bool]:
    """The server's address for the one that a client gives: NOBODYS for one that is none of ours,
    None if it gives none, or not enough to say which. And whether the server identifier is a
    stand-in, which the server is to take for its own."""
    if given is None:
        return None, False
    prefix = leases.prefix(given)
    if prefix is None:
        return NOBODYS, False
    if not prefix.params.shared:
        return leases.to_server(BindingKey(given, 0)), False
    server_id = message.address(Option.SERVER_ID)
    known = None if server_id is None else leases.from_server(server_id)
    override = known is not None and known[0].ipv4 == given
    port_set = message.port_set
    if port_set is None:
        return (server_id if override else None), override
    if port_set.params != prefix.params:
        return NOBODYS, override
    return leases.to_server(BindingKey(given, port_set.psid)), override


def to_client(message: Message, query: Query, leases: Leases) -> tuple[Message, Lease | None]:
    """The server's answer to ``query`` as the client is to see it, and the lease that it gives.
    Raises Dropped."""
    kind = message.kind
    if message.op != dhcpv4.REPLY or kind not in _FROM_SERVERS:
        raise Dropped(Drop.WRONG_KIND)
    options = {c: v for c, v in message.options.items() if c not in _NOT_FOR_CLIENTS}
    options.pop(Option.CLIENT_ID, None)
    if query.client_id is not None:
        options[Option.CLIENT_ID] = query.client_id  # RFC 6842 section 3
    if message.yiaddr == _UNSPECIFIED or kind == Kind.NAK:
        # Nothing is leased: a refusal, which names no address (RFC 2131 table 3), or the answer to
        # DHCPINFORM.
        ciaddr = _UNSPECIFIED if kind == Kind.NAK else query.ciaddr
        return message.altered(options, ciaddr, _UNSPECIFIED, query.chaddr), None
    found = leases.from_server(message.yiaddr)
    if found is None:
        raise Dropped(Drop.NOT_OURS)
    key, prefix = found
    if prefix.params.shared and not query.knows_port_sets:
        raise Dropped(Drop.NO_PORT_SETS)  # RFC 7618 section 6
    port_set = PortSet(prefix.params, key.psid)
    if kind == Kind.ACK and query.kind == Kind.REQUEST and _differs(query, key, port_set):
        return _refusal(message, options, query.chaddr), None
    if prefix.params.shared:
        options |= {
            Option.PORT_PARAMS: port_set.pack(),
            Option.SERVER_ID: message.yiaddr.packed,
        }
    if query.wants_source:
        options[Option.SOFTWIRE_SOURCE] = query.lwb4.packed
    answer = message.altered(options, query.ciaddr, key.ipv4, query.chaddr)
    if kind == Kind.OFFER:
        return answer, None
    seconds = message.seconds(Option.LEASE_TIME)
    if not seconds:
        raise Dropped(Drop.MALFORMED)
    end = None if seconds == dhcpv4.INFINITE else seconds
    return answer, Lease(query.lwb4, key, prefix.params, end)


def _differs(query: Query, key: BindingKey, port_set: PortSet) -> bool:
    """Whether the server acknowledges something else than the client has asked about: it was asked
    by client identifier alone, and the client has another lease by now."""
    return (query.given is not None and query.given != key.ipv4) or (
        query.port_set is not None and port_set.params.shared and query.port_set != port_set
    )


def _refusal(message: Message, options: Mapping[int, bytes], chaddr: bytes) -> Message:
    """An acknowledgement turned into a DHCPNAK (RFC 2131 table 3)."""
    kept = (Option.SERVER_ID, Option.CLIENT_ID)
    options = {Option.MESSAGE_TYPE: bytes([Kind.NAK])} | {
        code: value for code, value in options.items() if code in kept
    }
    refusal = message.altered(options, _UNSPECIFIED, _UNSPECIFIED, chaddr)
    return replace(refusal, siaddr=_UNSPECIFIED)


def holder(agent: bytes) -> tuple[IPv6Address, IPv6Address | None]:
    """The lwB4 that a lease's relay agent information names, and its br-address if that is not
    the first of whichever instance. Raises Malformed."""
    found = dhcpv4.parse_agent(agent)
    lwb4, br_address = found.get(AgentOption.REMOTE_ID), found.get(AgentOption.CIRCUIT_ID)
    if lwb4 is None or len(lwb4) != 16 or (br_address is not None and len(br_address) != 16):
        raise Malformed("a lease that does not name an lwB4")
    return IPv6Address(lwb4), None if br_address is None else IPv6Address(br_address)
