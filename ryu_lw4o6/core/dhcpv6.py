"""DHCPv6 messages as bytes (RFC 8415), those that carry DHCPv4 among them (RFC 7341).

What is read is checked as far as a relay agent or client can: messages are cut into options to the
last byte, and options that have a fixed size have it.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from ipaddress import IPv6Address

from ryu_lw4o6.core import s46
from ryu_lw4o6.core.errors import Malformed

CLIENT_PORT, SERVER_PORT = 546, 547
ALL_RELAYS_AND_SERVERS = IPv6Address("ff02::1:2")
HOP_COUNT_LIMIT = 8
"""Relays a message may pass (RFC 8415 section 7.6)."""

_UNICAST = 1 << 23
_RELAY_HEADER = 34


class Kind(enum.IntEnum):
    """Message types (RFC 8415 section 7.3, RFC 7341 section 6)."""

    SOLICIT = 1
    ADVERTISE = 2
    REQUEST = 3
    CONFIRM = 4
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8
    DECLINE = 9
    RECONFIGURE = 10
    INFORMATION_REQUEST = 11
    RELAY_FORW = 12
    RELAY_REPL = 13
    DHCPV4_QUERY = 20
    DHCPV4_RESPONSE = 21


_KINDS = frozenset(map(int, Kind))
FROM_SERVERS = frozenset(
    {Kind.ADVERTISE, Kind.REPLY, Kind.RECONFIGURE, Kind.RELAY_REPL, Kind.DHCPV4_RESPONSE}
)
"""Kinds of messages that a client never sends."""


class Option(enum.IntEnum):
    """Options that are used here (RFC 8415 section 21, RFC 7341 section 7, RFC 7598)."""

    CLIENT_ID = 1
    SERVER_ID = 2
    IA_NA = 3
    IA_ADDRESS = 5
    ORO = 6
    ELAPSED_TIME = 8
    RELAY_MESSAGE = 9
    STATUS_CODE = 13
    INTERFACE_ID = 18
    DHCPV4_MESSAGE = 87
    DHCP4O6_SERVERS = 88
    S46_BR = 90
    S46_CONT_LW = 96


Options = tuple[tuple[int, bytes], ...]
"""Options by code, in their order; a code may be there several times."""

_FIXED = {Option.ELAPSED_TIME: 2}
_AT_LEAST = {Option.IA_NA: 12, Option.IA_ADDRESS: 24, Option.STATUS_CODE: 2}
_CHECKED = frozenset(
    {*_FIXED, *_AT_LEAST, Option.DHCP4O6_SERVERS, Option.CLIENT_ID, Option.SERVER_ID, Option.ORO}
)


@dataclass(frozen=True, slots=True)
class Message:
    """What a client or server says. ``word`` is the 24 bits after the type: the transaction id,
    or the flags of DHCPV4-QUERY and DHCPV4-RESPONSE. ``rest`` is what follows if the type is none
    of ``Kind``: it is passed on as it came."""

    kind: int
    word: int
    options: Options
    rest: bytes = b""

    def pack(self) -> bytes:
        head = struct.pack("!I", self.kind << 24 | self.word)
        return head + _pack(self.options) + self.rest

    def get(self, code: int) -> bytes | None:
        """The value of an option, the first if there are several."""
        return _first(self.options, code)

    def asks_for(self, code: int) -> bool:
        """Whether the client wants to have this option."""
        wanted = self.get(Option.ORO) or b""
        return code.to_bytes(2, "big") in (wanted[at : at + 2] for at in range(0, len(wanted), 2))

    @property
    def dhcpv4(self) -> bytes | None:
        """The DHCPv4 message inside."""
        return self.get(Option.DHCPV4_MESSAGE)

    @property
    def unicast(self) -> bool:
        """The U flag of a DHCPV4-QUERY: over IPv4, this one would be sent to the server alone."""
        return bool(self.word & _UNICAST)

    @property
    def dhcp4o6_servers(self) -> list[IPv6Address] | None:
        """Whom to send DHCPV4-QUERY to; an empty list means ff02::1:2, None that DHCPv4 over
        DHCPv6 is not to be used (RFC 7341 section 7.2)."""
        return _addresses(self.get(Option.DHCP4O6_SERVERS))

    @property
    def softwires(self) -> list[s46.Softwire]:
        """The lw4o6 softwires that the server provisions (RFC 7598). Raises Malformed."""
        return [s46.Softwire.parse(v) for code, v in self.options if code == Option.S46_CONT_LW]


@dataclass(frozen=True, slots=True)
class Relayed:
    """RELAY-FORW or RELAY-REPL (RFC 8415 section 9)."""

    kind: int
    hop_count: int
    link: IPv6Address
    peer: IPv6Address
    options: Options

    def pack(self) -> bytes:
        header = bytes([self.kind, self.hop_count]) + self.link.packed + self.peer.packed
        return header + _pack(self.options)

    def get(self, code: int) -> bytes | None:
        """The value of an option, the first if there are several."""
        return _first(self.options, code)

    @property
    def message(self) -> bytes:
        """The message inside."""
        value = self.get(Option.RELAY_MESSAGE)
        assert value is not None  # parse has seen to that
        return value

    def carrying(self, message: bytes) -> Relayed:
        """The same with another message inside."""
        options = tuple(
            (code, message if code == Option.RELAY_MESSAGE else value)
            for code, value in self.options
        )
        return Relayed(self.kind, self.hop_count, self.link, self.peer, options)


def parse(data: bytes) -> Message | Relayed:
    """Read a message of any kind. Raises Malformed."""
    if len(data) < 4:
        raise Malformed(f"{len(data)} bytes are no DHCPv6 message")
    kind = data[0]
    if kind in (Kind.RELAY_FORW, Kind.RELAY_REPL):
        if len(data) < _RELAY_HEADER:
            raise Malformed("a relayed message's header is cut off")
        options = _parse(data, _RELAY_HEADER)
        _expect_one(options, Option.RELAY_MESSAGE)
        link, peer = IPv6Address(data[2:18]), IPv6Address(data[18:34])
        return Relayed(kind, data[1], link, peer, options)
    word = int.from_bytes(data[1:4], "big")
    if kind not in _KINDS:
        return Message(kind, word, (), data[4:])
    options = _parse(data, 4)
    if kind in (Kind.DHCPV4_QUERY, Kind.DHCPV4_RESPONSE):
        _expect_one(options, Option.DHCPV4_MESSAGE)
    return Message(kind, word, options)


def unwrap(data: bytes) -> tuple[list[Relayed], Message]:
    """A message and the relays that it has passed, the last one first. Raises Malformed."""
    relays: list[Relayed] = []
    while True:
        message = parse(data)
        if isinstance(message, Message):
            return relays, message
        if relays and message.kind != relays[0].kind:
            raise Malformed("RELAY-FORW and RELAY-REPL in one message")
        relays.append(message)
        if len(relays) > HOP_COUNT_LIMIT + 1:
            raise Malformed(f"more than {HOP_COUNT_LIMIT} relays")
        data = message.message


def wrap(relays: list[Relayed], message: Message) -> bytes:
    """The reverse of ``unwrap``."""
    data = message.pack()
    for relayed in reversed(relays):
        data = relayed.carrying(data).pack()
    return data


def dhcpv4_query(message: bytes, *, unicast: bool = False) -> Message:
    """A DHCPv4 message on its way to the server (RFC 7341 section 6.2)."""
    word = _UNICAST if unicast else 0
    return Message(Kind.DHCPV4_QUERY, word, ((Option.DHCPV4_MESSAGE, message),))


def dhcpv4_response(message: bytes) -> Message:
    """A DHCPv4 message on its way to the client (RFC 7341 section 6.3)."""
    return Message(Kind.DHCPV4_RESPONSE, 0, ((Option.DHCPV4_MESSAGE, message),))


def replace(options: Options, code: int, value: bytes) -> Options:
    """The options with another value for the one with this code."""
    return tuple((c, value if c == code else v) for c, v in options)


def _parse(data: bytes, at: int) -> Options:
    found = s46.options(data, at)
    for code, value in found:
        if code not in _CHECKED:
            continue
        if code in _FIXED and len(value) != _FIXED[Option(code)]:
            raise Malformed(f"DHCPv6 option {code} has {len(value)} bytes")
        if code in _AT_LEAST and len(value) < _AT_LEAST[Option(code)]:
            raise Malformed(f"DHCPv6 option {code} has {len(value)} bytes")
        if code == Option.DHCP4O6_SERVERS and len(value) % 16:
            raise Malformed("a list of DHCP 4o6 servers that is none")
        if code in (Option.CLIENT_ID, Option.SERVER_ID) and not 3 <= len(value) <= 130:
            raise Malformed(f"a DUID of {len(value)} bytes")  # RFC 8415 section 11.1
        if code == Option.ORO and len(value) % 2:
            raise Malformed("an option request that is none")
    return tuple(found)


def _expect_one(options: Options, code: Option) -> None:
    count = [c for c, _ in options].count(code)
    if count != 1:
        raise Malformed(f"{count} times option {code}, which belongs there once")


def _first(options: Options, code: int) -> bytes | None:
    for c, value in options:
        if c == code:
            return value
    return None


def _addresses(value: bytes | None) -> list[IPv6Address] | None:
    if value is None:
        return None
    return [IPv6Address(value[at : at + 16]) for at in range(0, len(value), 16)]


def _pack(options: Options) -> bytes:
    return b"".join([s46.option(code, value) for code, value in options])
