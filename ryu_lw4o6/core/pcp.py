"""The Port Control Protocol as bytes (RFC 6887), with port sets (RFC 7753).

For both ends: an lwB4 makes requests and reads responses, the lwAFTR reads requests and makes
responses. A request and the response to it have the same shape::

    request   version=2 | 0 opcode | reserved  16 bits    | requested lifetime | client address
    response  version=2 | 1 opcode | reserved 8 | result 8 | lifetime | epoch time | reserved 96
    MAP       mapping nonce 96 | protocol 8 | reserved 24 | internal port | external port |
              external address
    options   code 8 | reserved 8 | length 16 | data, padded to a multiple of four bytes; ...

Addresses have 128 bits; an IPv4 address is IPv4-mapped (RFC 6887 section 5).
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

VERSION = 2
SERVER_PORT = 5351  # UDP (RFC 6887 section 19.1)
CLIENT_PORT = 5350  # where clients hear ANNOUNCE
MAX_LENGTH = 1100  # of a message, in bytes (section 7)
NONCE_LENGTH = 12
LONG_ERROR = 1800
"""Seconds for which an error is to be expected again: one that will not go by itself, ..."""
SHORT_ERROR = 30
"""... and one that may (section 7.4)."""

Address: TypeAlias = IPv4Address | IPv6Address
ANY_IPV4 = IPv4Address(0)
"""The suggested external address of who wants any IPv4 address (section 11.1)."""

_MANDATORY = 128  # options below this must not be passed over (section 7.3)
_RESPONSE = 0x80
_REQUEST_HEADER = struct.Struct("!BBHI16s")
_RESPONSE_HEADER = struct.Struct("!BBBBII12s")
_MAP = struct.Struct("!12sB3xHH16s")
_OPTION = struct.Struct("!BBH")
_PORT_SET = struct.Struct("!HHB")
_FILTER = struct.Struct("!BBH16s")
HEADER_LENGTH = _REQUEST_HEADER.size


class Opcode(enum.IntEnum):
    """What a request asks for (RFC 6887 section 19.2)."""

    ANNOUNCE = 0
    MAP = 1
    PEER = 2


class OptionCode(enum.IntEnum):
    """The options that are known here (RFC 6887 section 13, RFC 7753 section 4)."""

    THIRD_PARTY = 1
    PREFER_FAILURE = 2
    FILTER = 3
    PORT_SET = 130


class Result(enum.IntEnum):
    """Result codes (RFC 6887 section 7.4)."""

    SUCCESS = 0
    UNSUPP_VERSION = 1
    NOT_AUTHORIZED = 2
    MALFORMED_REQUEST = 3
    UNSUPP_OPCODE = 4
    UNSUPP_OPTION = 5
    MALFORMED_OPTION = 6
    NETWORK_FAILURE = 7
    NO_RESOURCES = 8
    UNSUPP_PROTOCOL = 9
    USER_EX_QUOTA = 10
    CANNOT_PROVIDE_EXTERNAL = 11
    ADDRESS_MISMATCH = 12
    EXCESSIVE_REMOTE_PEERS = 13

    @property
    def lifetime(self) -> int:
        """How long, in seconds, the error is to be expected again."""
        return SHORT_ERROR if self in _SHORT else LONG_ERROR


_RESULTS = frozenset(map(int, Result))
_SHORT = frozenset(
    {
        Result.NETWORK_FAILURE,
        Result.NO_RESOURCES,
        Result.USER_EX_QUOTA,
        Result.CANNOT_PROVIDE_EXTERNAL,
    }
)
_NOT_PARSED = frozenset({Result.UNSUPP_VERSION, Result.MALFORMED_REQUEST})


class Refused(Exception):
    """A request that is answered with an error: ``result`` says which, and ``lifetime``, in
    seconds, for how long it is to be expected again."""

    def __init__(self, result: Result, reason: str, lifetime: int | None = None) -> None:
        super().__init__(f"{result.name}: {reason}")
        self.result = result
        self.lifetime = result.lifetime if lifetime is None else lifetime


class Ignored(ValueError):
    """Not a request at all: a PCP server says nothing to it (RFC 6887 section 8.2)."""


@dataclass(frozen=True, slots=True)
class PortSet:
    """PORT_SET (RFC 7753 section 4.1): ``size`` contiguous ports.

    In a request ``first_internal_port`` is the mapping's internal port. In a response it is the
    internal port that stands for the external port of the mapping, the next one for the next, and
    so on. ``parity`` asks that even ports be mapped to even ones.
    """

    size: int
    first_internal_port: int
    parity: bool = False


@dataclass(frozen=True, slots=True)
class Filter:
    """FILTER (RFC 6887 section 13.3): who may send to the mapping; anybody if ``prefix_length``
    is 0. The length counts the 96 bits before an IPv4 address. Port 0 is any port."""

    prefix_length: int
    remote_port: int
    remote_address: Address


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a message that are known here."""

    third_party: Address | None = None
    prefer_failure: bool = False
    filters: tuple[Filter, ...] = ()
    port_set: PortSet | None = None

    def encode(self) -> bytes:
        out = b""
        if self.third_party is not None:
            out += _option(OptionCode.THIRD_PARTY, _to_wire(self.third_party))
        if self.prefer_failure:
            out += _option(OptionCode.PREFER_FAILURE, b"")
        for each in self.filters:
            data = _FILTER.pack(
                0, each.prefix_length, each.remote_port, _to_wire(each.remote_address)
            )
            out += _option(OptionCode.FILTER, data)
        if self.port_set is not None:
            data = _PORT_SET.pack(
                self.port_set.size, self.port_set.first_internal_port, self.port_set.parity
            )
            out += _option(OptionCode.PORT_SET, data)
        return out


@dataclass(frozen=True, slots=True)
class Mapping:
    """What MAP is about (RFC 6887 section 11.1). External address and port are suggested in a
    request, ``ANY_IPV4`` and 0 for any, and assigned in a response. ``protocol`` 0 is all
    protocols."""

    nonce: bytes
    protocol: int
    internal_port: int
    external_port: int = 0
    external_address: Address = ANY_IPV4

    def encode(self) -> bytes:
        return _MAP.pack(
            self.nonce,
            self.protocol,
            self.internal_port,
            self.external_port,
            _to_wire(self.external_address),
        )


@dataclass(frozen=True, slots=True)
class Request:
    """A request (RFC 6887 section 7.1). ``mapping`` is there in MAP only; ``lifetime`` is in
    seconds, and 0 in MAP deletes the mapping (section 15)."""

    opcode: Opcode
    client: Address
    lifetime: int = 0
    mapping: Mapping | None = None
    options: Options = field(default_factory=Options)

    def encode(self) -> bytes:
        """Raises struct.error for a value that does not fit its field."""
        header = _REQUEST_HEADER.pack(VERSION, self.opcode, 0, self.lifetime, _to_wire(self.client))
        body = b"" if self.mapping is None else self.mapping.encode()
        return header + body + self.options.encode()


@dataclass(frozen=True, slots=True)
class Response:
    """A response (RFC 6887 section 7.2). ``lifetime`` and ``epoch`` are in seconds. Of an error,
    ``lifetime`` is how long it is to be expected again, and ``mapping`` and ``options`` are those
    of the request."""

    opcode: int
    result: Result
    lifetime: int
    epoch: int
    mapping: Mapping | None = None
    options: Options = field(default_factory=Options)

    def encode(self) -> bytes:
        """Raises struct.error for a value that does not fit its field."""
        body = b"" if self.mapping is None else self.mapping.encode()
        return _response(self.opcode, self.result, self.lifetime, self.epoch) + (
            body + self.options.encode()
        )


def announcement(epoch: int) -> bytes:
    """ANNOUNCE as a server sends it, asked or unasked (RFC 6887 section 14.1)."""
    return Response(Opcode.ANNOUNCE, Result.SUCCESS, 0, epoch).encode()


def error_response(
    request: bytes, result: Result, epoch: int, lifetime: int | None = None
) -> bytes:
    """The answer to ``request``, which was not ignored, that says why not (RFC 6887 section 8.2).

    Whatever the request held is sent back, so that the client knows what the answer is about. Of
    a request that could not be read, that includes the last 96 bits of the client's address
    (section 7.2). ``lifetime`` is the result code's usual one unless given, in seconds.
    """
    padded = request[:MAX_LENGTH] + bytes(-len(request[:MAX_LENGTH]) % 4)
    padded = padded.ljust(HEADER_LENGTH, b"\0")
    reserved = padded[12:24] if result in _NOT_PARSED else bytes(12)
    seconds = result.lifetime if lifetime is None else lifetime
    header = _response(padded[1] & 0x7F, result, seconds, epoch, reserved)
    return header + padded[HEADER_LENGTH:]


def parse_request(data: bytes) -> Request:
    """Read what was sent to a server. Raises Ignored, or Refused for what must be answered with
    an error. An unknown option that may be passed over is (RFC 6887 section 7.3)."""
    if len(data) < 2:
        raise Ignored("shorter than two bytes")
    if data[1] & _RESPONSE:
        raise Ignored("a response")
    if data[0] != VERSION:
        # NAT-PMP (version 0) reads the same four bytes as its own "unsupported version".
        raise Refused(Result.UNSUPP_VERSION, f"version {data[0]}")
    if len(data) < HEADER_LENGTH:
        raise Ignored(f"a header of {len(data)} bytes")
    if len(data) > MAX_LENGTH or len(data) % 4:
        raise Refused(Result.MALFORMED_REQUEST, f"{len(data)} bytes")
    _, number, _, lifetime, client = _REQUEST_HEADER.unpack_from(data)
    at = HEADER_LENGTH
    if number not in (Opcode.ANNOUNCE, Opcode.MAP):
        raise Refused(Result.UNSUPP_OPCODE, f"opcode {number}")
    opcode = Opcode(number)
    mapping = None
    if opcode is Opcode.MAP:
        if len(data) < at + _MAP.size:
            raise Refused(Result.MALFORMED_REQUEST, "MAP is cut off")
        mapping = _mapping(data, at)
        at += _MAP.size
    options = _options(data, at, opcode)
    _check(lifetime, mapping, options)
    return Request(opcode, _from_wire(client), lifetime, mapping, options)


def parse_response(data: bytes) -> Response:
    """Read what was sent to a client. Raises ValueError for what a client ignores
    (RFC 6887 section 8.3). An error that is not known here is one all the same: NO_RESOURCES,
    which stands for any (section 7.4)."""
    if len(data) < HEADER_LENGTH or len(data) > MAX_LENGTH or len(data) % 4:
        raise ValueError(f"a response of {len(data)} bytes")
    version, opcode, _, code, lifetime, epoch, _ = _RESPONSE_HEADER.unpack_from(data)
    result = Result(code) if code in _RESULTS else Result.NO_RESOURCES
    if not opcode & _RESPONSE or (version != VERSION and result is not Result.UNSUPP_VERSION):
        raise ValueError("no response of version 2")
    opcode &= ~_RESPONSE
    mapping, options = None, Options()
    if opcode == Opcode.MAP and len(data) >= HEADER_LENGTH + _MAP.size:
        mapping = _mapping(data, HEADER_LENGTH)
        if result is Result.SUCCESS:
            try:
                options = _options(data, HEADER_LENGTH + _MAP.size, Opcode.MAP)
            except Refused as error:
                raise ValueError(str(error)) from None
    elif opcode == Opcode.MAP and result is Result.SUCCESS:
        raise ValueError("MAP is cut off")
    return Response(opcode, result, lifetime, epoch, mapping, options)


def epoch_is_plausible(previous: int, current: int, elapsed: float) -> bool:
    """Whether a server that said ``previous`` and says ``current`` now, ``elapsed`` seconds later
    by the client's clock, has kept its state in between (RFC 6887 section 8.5)."""
    if current + 1 < previous:
        return False
    passed = current - previous
    return not (elapsed + 2 < passed - passed / 16 or passed + 2 < elapsed - elapsed / 16)


def _to_wire(address: Address) -> bytes:
    if isinstance(address, IPv4Address):
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed


def _from_wire(packed: bytes) -> Address:
    address = IPv6Address(packed)
    return address.ipv4_mapped or address


def _option(code: OptionCode, data: bytes) -> bytes:
    return _OPTION.pack(code, 0, len(data)) + data + bytes(-len(data) % 4)


def _response(
    opcode: int, result: Result, lifetime: int, epoch: int, reserved: bytes = bytes(12)
) -> bytes:
    return _RESPONSE_HEADER.pack(
        VERSION, _RESPONSE | opcode, 0, result, lifetime, epoch & 0xFFFFFFFF, reserved
    )


def _mapping(data: bytes, at: int) -> Mapping:
    nonce, protocol, internal, external, address = _MAP.unpack_from(data, at)
    return Mapping(nonce, protocol, internal, external, _from_wire(address))


def _each_option(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Lengths are multiples of four, so what is left holds a whole option header."""
    while at < len(data):
        code, _, length = _OPTION.unpack_from(data, at)
        end = at + _OPTION.size + length
        if end > len(data):
            raise Refused(Result.MALFORMED_OPTION, f"option {code} is cut off")
        yield code, data[at + _OPTION.size : end]
        at = end + -length % 4


_LENGTHS = {
    OptionCode.THIRD_PARTY: 16,
    OptionCode.PREFER_FAILURE: 0,
    OptionCode.FILTER: _FILTER.size,
    OptionCode.PORT_SET: _PORT_SET.size,
}


def _options(data: bytes, at: int, opcode: Opcode) -> Options:
    """The known options of a message. Raises Refused."""
    response = bool(data[1] & _RESPONSE)
    found: dict[int, list[bytes]] = {}
    for code, value in list(_each_option(data, at)):  # all of them are cut out first
        # All known options are MAP's; to other opcodes they are unknown.
        if opcode is not Opcode.MAP or code not in _LENGTHS:
            if code < _MANDATORY and not response:  # a client may not refuse (section 7.3)
                raise Refused(Result.UNSUPP_OPTION, f"option {code}")
            continue
        if len(value) != _LENGTHS[OptionCode(code)]:
            raise Refused(Result.MALFORMED_OPTION, f"option {code} with {len(value)} bytes")
        found.setdefault(code, []).append(value)
        if len(found[code]) > 1 and code != OptionCode.FILTER:
            raise Refused(Result.MALFORMED_OPTION, f"option {code} twice")
    third_party = port_set = None
    if OptionCode.THIRD_PARTY in found:
        third_party = _from_wire(found[OptionCode.THIRD_PARTY][0])
    if OptionCode.PORT_SET in found:
        size, first, flags = _PORT_SET.unpack(found[OptionCode.PORT_SET][0])
        port_set = PortSet(size, first, bool(flags & 1))
    filters = []
    for value in found.get(OptionCode.FILTER, ()):
        _, length, port, address = _FILTER.unpack(value)
        filters.append(Filter(length, port, _from_wire(address)))
    return Options(third_party, OptionCode.PREFER_FAILURE in found, tuple(filters), port_set)


def _check(lifetime: int, mapping: Mapping | None, options: Options) -> None:
    """Raise Refused for options that contradict themselves or the request (RFC 6887 sections 11.3
    and 13, RFC 7753 section 4.2)."""
    if mapping is None:
        return
    port_set = options.port_set
    if port_set is not None:
        if port_set.size == 0:
            raise Refused(Result.MALFORMED_OPTION, "a port set without ports")
        if port_set.first_internal_port != mapping.internal_port:
            raise Refused(Result.MALFORMED_OPTION, "two first internal ports")
    # All protocols have no port, but may have a port set (RFC 7753 section 5.2).
    if mapping.protocol == 0 != mapping.internal_port and (port_set is None or port_set.size == 1):
        raise Refused(Result.MALFORMED_REQUEST, "all protocols, but one internal port")
    if options.prefer_failure and (
        lifetime == 0 or mapping.external_port == 0 or port_set is not None
    ):
        raise Refused(Result.MALFORMED_OPTION, "PREFER_FAILURE, but no one port is asked for")
    if options.filters and lifetime == 0:
        raise Refused(Result.MALFORMED_OPTION, "a filter for what is deleted")
    for each in options.filters:
        ipv4 = isinstance(each.remote_address, IPv4Address)
        if each.prefix_length > 128 or (ipv4 and 0 < each.prefix_length < 96):
            raise Refused(Result.MALFORMED_OPTION, f"a prefix length of {each.prefix_length}")
