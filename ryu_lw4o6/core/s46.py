"""Softwire parameters as DHCP carries them: port sets (RFC 7598 section 4.5, RFC 7618 section 9)
and the DHCPv6 container of a lw4o6 softwire (RFC 7598 section 5.3)."""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from ryu_lw4o6.core.errors import Malformed
from ryu_lw4o6.core.portset import PortParams

_BR, _V4V6BIND, _PORTPARAMS = 90, 92, 93
_TLV = struct.Struct("!HH")


_params = functools.cache(PortParams)  # there are few


@dataclass(frozen=True, slots=True)
class PortSet:
    """One port set, as options 159 (DHCPv4) and 93 (DHCPv6) name it."""

    params: PortParams
    psid: int

    @classmethod
    def parse(cls, value: bytes) -> PortSet:
        """Raises Malformed. What stands right of the PSID is not looked at, nor is the PSID
        itself when its length is 0."""
        if len(value) != 4:
            raise Malformed(f"a port set has 4 bytes, not {len(value)}")
        offset, length, word = struct.unpack("!BBH", value)
        try:
            return cls(_params(offset, length), word >> (16 - length))
        except ValueError as error:
            raise Malformed(str(error)) from None

    def pack(self) -> bytes:
        length = self.params.psid_length
        word = self.psid << (16 - length)
        return struct.pack("!BBH", self.params.psid_offset, length, word)


@dataclass(frozen=True, slots=True)
class Softwire:
    """OPTION_S46_CONT_LW: what one lwB4 needs. ``bound`` is the IPv6 prefix or address that the
    softwire is to come from, None with ``ipv4`` for a container that binds nothing."""

    br_addresses: tuple[IPv6Address, ...]
    ipv4: IPv4Address | None = None
    bound: IPv6Network | None = None
    port_set: PortSet | None = None

    @classmethod
    def parse(cls, value: bytes) -> Softwire:
        """Raises Malformed."""
        brs: list[IPv6Address] = []
        bind: tuple[IPv4Address, IPv6Network, PortSet | None] | None = None
        for code, content in options(value):
            if code == _BR:
                if len(content) != 16:
                    raise Malformed(f"a BR address has 16 bytes, not {len(content)}")
                brs.append(IPv6Address(content))
            elif code == _V4V6BIND:
                if bind is not None:
                    raise Malformed("two bindings in one softwire container")
                bind = _parse_bind(content)
        if not brs:
            raise Malformed("a softwire container without a BR address")
        return cls(tuple(brs), *(bind or (None, None, None)))

    def pack(self) -> bytes:
        packed = b"".join(option(_BR, address.packed) for address in self.br_addresses)
        if self.ipv4 is None or self.bound is None:
            return packed
        length = self.bound.prefixlen
        content = self.ipv4.packed + bytes([length])
        content += self.bound.network_address.packed[: (length + 7) // 8]
        if self.port_set is not None:
            content += option(_PORTPARAMS, self.port_set.pack())
        return packed + option(_V4V6BIND, content)


def _parse_bind(value: bytes) -> tuple[IPv4Address, IPv6Network, PortSet | None]:
    """OPTION_S46_V4V6BIND (RFC 7598 section 4.4)."""
    if len(value) < 5 or value[4] > 128:
        raise Malformed("a binding of IPv4 address and IPv6 prefix that is none")
    length = value[4]
    end = 5 + (length + 7) // 8
    if len(value) < end:
        raise Malformed("the IPv6 prefix of a binding is cut off")
    prefix = IPv6Network((value[5:end].ljust(16, b"\0"), length), strict=False)
    port_set = None
    for code, content in options(value[end:]):
        if code == _PORTPARAMS:
            if port_set is not None:
                raise Malformed("two port sets in one binding")
            port_set = PortSet.parse(content)
    return IPv4Address(value[:4]), prefix, port_set


def option(code: int, value: bytes) -> bytes:
    """A DHCPv6 option (RFC 8415 section 21.1)."""
    return _TLV.pack(code, len(value)) + value


def options(data: bytes, at: int = 0) -> list[tuple[int, bytes]]:
    """The DHCPv6 options that fill ``data`` from ``at``. Raises Malformed when they do not."""
    found = []
    size = len(data)
    while at < size:
        if at + 4 > size:
            raise Malformed("a DHCPv6 option's header is cut off")
        code, length = _TLV.unpack_from(data, at)
        at += 4 + length
        if at > size:
            raise Malformed(f"DHCPv6 option {code} is cut off")
        found.append((code, data[at - length : at]))
    return found
