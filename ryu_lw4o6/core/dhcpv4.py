"""DHCPv4 messages as bytes (RFC 2131, RFC 2132), with the options of shared addresses (RFC 7618)
and softwires (RFC 8539).

An option that is there several times is one long option (RFC 3396), and options in ``file`` and
``sname`` (option overload) are options like all others: a message that is read and written again
may look different, but means the same.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

from ryu_lw4o6.core.errors import Malformed
from ryu_lw4o6.core.s46 import PortSet

REQUEST, REPLY = 1, 2
"""Values of ``op``: from a client, from a server."""
INFINITE = 0xFFFFFFFF
"""The lease time that never ends (RFC 2131 section 3.3)."""
ETHERNET = 1

_HEADER = struct.Struct("!BBBBIHHIIII16s64s128s4s")
_COOKIE = bytes([99, 130, 83, 99])
_UNSPECIFIED = IPv4Address(0)
_PAD, _END = 0, 255  # as plain numbers: they are compared with every byte


class Kind(enum.IntEnum):
    """Message types (RFC 2132 section 9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class Option(enum.IntEnum):
    """Options that are used here."""

    SUBNET_MASK = 1
    ROUTER = 3
    REQUESTED_ADDRESS = 50
    LEASE_TIME = 51
    OVERLOAD = 52
    MESSAGE_TYPE = 53
    SERVER_ID = 54
    PARAMETER_REQUEST_LIST = 55
    MESSAGE = 56
    RENEWAL_TIME = 58
    REBINDING_TIME = 59
    CLIENT_ID = 61
    RELAY_AGENT = 82  # RFC 3046
    SOFTWIRE_SOURCE = 109  # OPTION_DHCP4O6_S46_SADDR, RFC 8539 section 6
    SUBNET_SELECTION = 118  # RFC 3011
    PORT_PARAMS = 159  # OPTION_V4_PORTPARAMS, RFC 7618 section 9


_SIZES: dict[int, int] = {
    Option.SUBNET_MASK: 4,
    Option.REQUESTED_ADDRESS: 4,
    Option.LEASE_TIME: 4,
    Option.MESSAGE_TYPE: 1,
    Option.SERVER_ID: 4,
    Option.RENEWAL_TIME: 4,
    Option.REBINDING_TIME: 4,
    Option.SOFTWIRE_SOURCE: 16,
    Option.SUBNET_SELECTION: 4,
    Option.PORT_PARAMS: 4,
}
_CLIENT_ID_AT_LEAST = 2  # RFC 2132 section 9.14


class AgentOption(enum.IntEnum):
    """Sub-options of RELAY_AGENT (RFC 3046 section 2.0, RFC 5107)."""

    CIRCUIT_ID = 1
    REMOTE_ID = 2
    SERVER_ID_OVERRIDE = 11


@dataclass(frozen=True, slots=True)
class Message:
    """``chaddr`` is the hardware address, of up to 16 bytes. ``options`` keep their order."""

    op: int
    xid: int
    options: Mapping[int, bytes]
    ciaddr: IPv4Address = _UNSPECIFIED
    yiaddr: IPv4Address = _UNSPECIFIED
    siaddr: IPv4Address = _UNSPECIFIED
    giaddr: IPv4Address = _UNSPECIFIED
    chaddr: bytes = b""
    htype: int = ETHERNET
    hops: int = 0
    secs: int = 0
    flags: int = 0
    sname: bytes = field(default=bytes(64), repr=False)
    file: bytes = field(default=bytes(128), repr=False)

    @classmethod
    def parse(cls, data: bytes) -> Message:
        """Raises Malformed."""
        if len(data) < _HEADER.size:
            raise Malformed(f"{len(data)} bytes are no DHCPv4 message")
        (op, htype, hlen, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr, chaddr,
         sname, file, cookie) = _HEADER.unpack_from(data)  # fmt: skip
        if cookie != _COOKIE:
            raise Malformed("a BOOTP message that is no DHCP")
        if op not in (REQUEST, REPLY):
            raise Malformed(f"a DHCPv4 message with op {op}")
        if hlen > 16:
            raise Malformed(f"a hardware address of {hlen} bytes")
        options: dict[int, bytes] = {}
        _scan(data, _HEADER.size, options)
        overload = options.pop(Option.OVERLOAD, b"\0")
        if overload not in (b"\0", b"\1", b"\2", b"\3"):
            raise Malformed("an option overload that is none")
        # In this order, should an option go on from one field to the next (RFC 3396 section 5).
        if overload[0] & 1:
            _scan(file, 0, options)
            file = bytes(128)
        if overload[0] & 2:
            _scan(sname, 0, options)
            sname = bytes(64)
        _check(options)
        return cls(
            op, xid, options, _address(ciaddr), _address(yiaddr), _address(siaddr),
            _address(giaddr), chaddr[:hlen], htype, hops, secs, flags, sname, file,
        )  # fmt: skip

    def pack(self) -> bytes:
        parts = [
            _HEADER.pack(
                self.op, self.htype, len(self.chaddr), self.hops, self.xid, self.secs, self.flags,
                int(self.ciaddr), int(self.yiaddr), int(self.siaddr), int(self.giaddr),
                self.chaddr, self.sname, self.file, _COOKIE,
            )
        ]  # fmt: skip
        for code, value in self.options.items():
            while len(value) > 255:
                parts.append(bytes((code, 255)) + value[:255])
                value = value[255:]
            parts.append(bytes((code, len(value))) + value)
        parts.append(b"\xff")
        return b"".join(parts)

    def altered(
        self,
        options: Mapping[int, bytes],
        ciaddr: IPv4Address,
        yiaddr: IPv4Address,
        chaddr: bytes,
        giaddr: IPv4Address = _UNSPECIFIED,
    ) -> Message:
        """The same with other options and addresses; ``dataclasses.replace`` takes three times as
        long, which every message would feel."""
        return Message(
            self.op, self.xid, options, ciaddr, yiaddr, self.siaddr, giaddr, chaddr,
            self.htype, self.hops, self.secs, self.flags, self.sname, self.file,
        )  # fmt: skip

    @property
    def kind(self) -> int:
        """The message type; a number that is no Kind is possible."""
        return self.options[Option.MESSAGE_TYPE][0]

    def address(self, code: int) -> IPv4Address | None:
        """An option that holds an IPv4 address."""
        value = self.options.get(code)
        return None if value is None else IPv4Address(value)

    def seconds(self, code: int) -> int | None:
        """An option that holds a time; INFINITE is one, too."""
        value = self.options.get(code)
        return None if value is None else int.from_bytes(value, "big")

    @property
    def port_set(self) -> PortSet | None:
        """The port set of a shared address."""
        value = self.options.get(Option.PORT_PARAMS)
        return None if value is None else PortSet.parse(value)

    @property
    def softwire_source(self) -> IPv6Address | None:
        """The IPv6 address that the lwB4 sends its softwire's packets from."""
        value = self.options.get(Option.SOFTWIRE_SOURCE)
        return None if value is None else IPv6Address(value)

    def asks_for(self, code: int) -> bool:
        """Whether the client wants to have this option."""
        return code in self.options.get(Option.PARAMETER_REQUEST_LIST, b"")


def pack_agent(options: Mapping[int, bytes]) -> bytes:
    """The value of RELAY_AGENT (RFC 3046 section 2.0)."""
    return b"".join(bytes([code, len(value)]) + value for code, value in options.items())


def parse_agent(value: bytes) -> dict[int, bytes]:
    """The sub-options of RELAY_AGENT, the first if there are several. Raises Malformed."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(value):
        end = at + 2 + (value[at + 1] if at + 1 < len(value) else 0)
        if at + 2 > len(value) or end > len(value):
            raise Malformed("a relay agent sub-option is cut off")
        found.setdefault(value[at], value[at + 2 : end])
        at = end
    return found


def _address(number: int) -> IPv4Address:
    return IPv4Address(number) if number else _UNSPECIFIED


def _scan(area: bytes, at: int, found: dict[int, bytes]) -> None:
    """Add the options of a field, from ``at``, to those found before."""
    size = len(area)
    while True:
        if at >= size:
            raise Malformed("DHCPv4 options without an end")
        code = area[at]
        at += 1
        if code == _END:
            return
        if code == _PAD:
            continue
        end = at + 1 + area[at] if at < size else size + 1
        if end > size:
            raise Malformed(f"DHCPv4 option {code} is cut off")
        value = area[at + 1 : end]
        found[code] = found[code] + value if code in found else value
        at = end


def _check(options: Mapping[int, bytes]) -> None:
    if Option.MESSAGE_TYPE not in options:
        raise Malformed("a DHCPv4 message without a message type")
    for code, value in options.items():
        size = _SIZES.get(code)
        if size is not None and len(value) != size:
            raise Malformed(f"DHCPv4 option {code} has {len(value)} bytes, not {size}")
    if Option.CLIENT_ID in options and len(options[Option.CLIENT_ID]) < _CLIENT_ID_AT_LEAST:
        raise Malformed("a client identifier of less than 2 bytes")
    if Option.PORT_PARAMS in options:
        PortSet.parse(options[Option.PORT_PARAMS])
    if Option.RELAY_AGENT in options:
        parse_agent(options[Option.RELAY_AGENT])
