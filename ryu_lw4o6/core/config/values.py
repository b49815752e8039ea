"""Single values: from text to what ``Settings`` holds. Everything raises Bad."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from urllib.parse import urlsplit

from ryu_lw4o6.core import addresses
from ryu_lw4o6.core.config.problems import Bad, did_you_mean, quote, shorten
from ryu_lw4o6.core.settings import Datapath, Failover
from ryu_lw4o6.core.times import rfc3339, unix_time

_INTERFACE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LENGTH = re.compile(r"[^/]+/[0-9]{1,3}")
_STORE = re.compile(r"(?:sqlite(?:\+\w+)?:////.|postgresql(?:\+\w+)?://).*", re.DOTALL)
_MOST_SOCKET_PATH = 107  # sockaddr_un has 108 bytes, and ends with a zero byte
# "This network", loopback, link-local, and multicast to the end (RFC 6890 section 2.2.2).
_NOT_HOSTS = tuple(map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")))


def text(value: str) -> str:
    return value


def ipv4(value: str) -> IPv4Address:
    try:
        return addresses.ipv4(value)
    except ValueError:
        raise _not_an(value, "IPv4", "address", "192.0.2.1") from None


def ipv6(value: str) -> IPv6Address:
    try:
        return addresses.ipv6(value)
    except ValueError:
        if "%" in value:
            raise Bad(f"{quote(value)} has a zone", "Leave out % and what follows") from None
        raise _not_an(value, "IPv6", "address", "2001:db8:b4::1") from None


def ipv4_host(value: str) -> IPv4Address:
    address = ipv4(value)
    if any(address in network for network in _NOT_HOSTS):
        raise Bad(f"{address} is not the address of a host", "Use a unicast address")
    return address


def ipv6_host(value: str) -> IPv6Address:
    """An address that a host beyond the link can have."""
    address = ipv6(value)
    if not addresses.is_host(address):
        raise Bad(
            f"{address} is not the address of a single host", "Use a routable unicast address"
        )
    return address


def host(value: str) -> IPv4Address | IPv6Address:
    return ipv6_host(value) if ":" in value else ipv4_host(value)


def ipv6_next_hop(value: str) -> IPv6Address:
    address = ipv6(value)
    return address if address.is_link_local else ipv6_host(value)


def ipv4_interface(value: str) -> IPv4Interface:
    _require_length(value, "IPv4", "address", "198.51.100.1/24")
    try:
        interface = IPv4Interface(value)
    except ValueError:
        raise _not_an(value, "IPv4", "address with prefix length", "198.51.100.1/24") from None
    ipv4_host(str(interface.ip))
    check_in_subnet(interface.ip, interface)
    return interface


def ipv6_interface(value: str) -> IPv6Interface:
    _require_length(value, "IPv6", "address", "2001:db8:1::1/64")
    try:
        interface = IPv6Interface(value)
    except ValueError:
        raise _not_an(value, "IPv6", "address with prefix length", "2001:db8:1::1/64") from None
    ipv6_host(str(interface.ip))
    return interface


def check_in_subnet(address: IPv4Address, interface: IPv4Interface) -> None:
    """Raise Bad unless ``address`` is a host's in the interface's subnet."""
    network = interface.network
    if address not in network:
        raise Bad(f"{address} is not in {network}", "Use an address of that subnet")
    # A subnet of two or of one has no address to spare for itself (RFC 3021 section 2.1).
    ends = (network.network_address, network.broadcast_address)
    if network.prefixlen < 31 and address in ends:
        raise Bad(f"{address} is the first or last of {network}", "Use an address between them")


def ipv4_network(value: str) -> IPv4Network:
    _require_length(value, "IPv4", "prefix", "192.0.2.0/24")
    try:
        network = IPv4Network(value, strict=False)
    except ValueError:
        raise _not_an(value, "IPv4", "prefix", "192.0.2.0/24") from None
    if value.split("/")[0] != str(network.network_address):
        raise Bad(f"{value} has host bits set", f"Did you mean {network}?")
    if any(network.overlaps(other) for other in _NOT_HOSTS):
        raise Bad(f"{network} has addresses that no host can have", "Use a unicast prefix")
    return network


def ipv4_range(value: str) -> tuple[IPv4Address, IPv4Address]:
    """The first and the last address of a prefix, or of FIRST-LAST."""
    if "/" in value:
        network = ipv4_network(value)
        return network[0], network[-1]
    first, _, last = value.partition("-")
    ends = ipv4_host(first.strip()), ipv4_host((last or first).strip())
    if ends[0] > ends[1]:
        raise Bad(f"{ends[0]} comes after {ends[1]}", f"Write {ends[1]}-{ends[0]}")
    return ends


def ipv6_network(value: str) -> IPv6Network:
    """A prefix, or an address alone."""
    try:
        network = IPv6Network(value, strict=False)
        address = addresses.ipv6(value.partition("/")[0])
    except ValueError:
        raise _not_an(value, "IPv6", "prefix", "2001:db8:ac::/64") from None
    if address != network.network_address:
        raise Bad(f"{value} has host bits set", f"Did you mean {network}?")
    return network


def integer(low: int, high: int) -> Callable[[str], int]:
    def convert(value: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,20}", value):
            raise Bad(f"{quote(value)} is not a whole number", f"Use {low} to {high}")
        # YAML 1.1 would read an octal number, YAML 1.2 a decimal one.
        if re.match(r"-?0[0-9]", value):
            raise Bad(f"{value} starts with 0", "Leave out leading zeros")
        number = int(value)
        if not low <= number <= high:
            raise Bad(f"{number} is out of range", f"Use {low} to {high}")
        return number

    return convert


def datapath_id(value: str) -> int:
    """A number, ``0x1``, or 16 hexadecimal digits, as Open vSwitch prints it."""
    if re.fullmatch(r"0x[0-9a-fA-F]{1,16}|[0-9a-fA-F]{16}", value):
        number = int(value, 16)
    elif re.fullmatch(r"0|[1-9][0-9]{0,19}", value):
        number = int(value)
    else:
        raise Bad(
            f"{quote(value)} is not a datapath id", "Use a number, 0x1f, or 16 hexadecimal digits"
        )
    if not 0 < number < 1 << 64:
        raise Bad(f"{value} is out of range", "A datapath id has 64 bits and is not 0")
    return number


def boolean(value: str) -> bool:
    word = value.lower()
    if word in ("true", "yes", "on"):
        return True
    if word in ("false", "no", "off"):
        return False
    raise Bad(f"{quote(value)} is neither true nor false", "Use true or false")


def interface_name(value: str) -> str:
    if not _INTERFACE_NAME.fullmatch(value):
        raise Bad(
            f"{quote(value)} is not an interface name",
            "Use 1 to 15 letters, digits, '_', '.' and '-', the first a letter, digit or '_'",
        )
    return value


def name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise Bad(
            f"{quote(value)} is not a name",
            "Use 1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit",
        )
    return value


def datapath(value: str) -> Datapath:
    try:
        return Datapath(value)
    except ValueError:
        raise Bad(
            f"{quote(value)} is not a datapath", "Use netdev (userspace) or system (kernel)"
        ) from None


def failover(value: str) -> Failover:
    try:
        return Failover(value)
    except ValueError:
        raise Bad(
            f"{quote(value)} is not a failover mechanism", did_you_mean(value, list(Failover))
        ) from None


def seconds(low: float, high: float) -> Callable[[str], float]:
    def convert(value: str) -> float:
        if not re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,6})?", value):
            raise Bad(f"{quote(value)} is not a number of seconds", f"Use {low:g} to {high:g}")
        number = float(value)
        if not low <= number <= high:
            raise Bad(f"{value} is out of range", f"Use {low:g} to {high:g}")
        return number

    return convert


def moment(value: str) -> float:
    """Unix time: a number, or RFC 3339's date and time."""
    try:
        seconds = float(value) if re.fullmatch(r"[0-9.]{1,20}", value) else unix_time(value)
        rfc3339(seconds)
        return seconds
    except (ValueError, OverflowError, OSError):
        raise Bad(
            f"{quote(value)} is no date and time", "Write 2026-12-31T23:59:59Z, or Unix time"
        ) from None


def choice(*known: str) -> Callable[[str], str]:
    def convert(value: str) -> str:
        if value not in known:
            raise Bad(f"{quote(value)} is none of {', '.join(known)}", did_you_mean(value, known))
        return value

    return convert


def store_url(value: str) -> str:
    # It may hold a password: what comes before an @ is not shown. The current directory of a
    # daemon is anybody's guess, so a file has to be named by its full path.
    if not _STORE.fullmatch(value):
        raise Bad(
            f"{quote(value.split('@')[-1])} is not the URL of a store",
            "Use sqlite:////var/lib/lw4o6/bindings.sqlite (four slashes: a full path) or "
            "postgresql+psycopg://USER@HOST/NAME",
        )
    return value


def bindings_file(value: str) -> str:
    """The name of a file of bindings: its ending says how to read it."""
    if not value.endswith((".csv", ".json")):
        raise Bad(f"{quote(value)} is neither .csv nor .json", "Name the file by its format")
    return value


def kea_endpoint(value: str) -> str:
    """The path of a control socket, or the URL of a control agent, which may hold a password."""
    shown = quote(value.rpartition("@")[2])
    hint = "Use /run/kea/kea4-ctrl-socket, or http://127.0.0.1:8000"
    if value.startswith("/"):
        if len(value.encode()) > _MOST_SOCKET_PATH or "\0" in value:
            raise Bad(f"{shown} is too long for the path of a socket", hint)
        return value
    try:
        parts = urlsplit(value)
        right = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    if not right or not value.isprintable() or not value.isascii() or " " in value:
        raise Bad(f"{shown} is neither the path of a socket nor a http:// URL", hint)
    return value


def token(value: str) -> str:
    """A bearer token (RFC 6750 section 2.1), alone on its line."""
    word = value.strip()
    if not word:
        raise Bad("empty", "Write a token of at least 8 characters into it")
    if not re.fullmatch(r"[A-Za-z0-9._~+/=-]{8,}", word):
        raise Bad(
            "holds no bearer token",
            "Write 8 or more letters, digits or ._~+/=- into it, on one line",
        )
    return word


def _require_length(value: str, family: str, what: str, example: str) -> None:
    if "/" not in value and _family(value) == family:
        raise Bad(f"{value} has no prefix length", f"Write it like {example}")
    if _family(value) == family and not _LENGTH.fullmatch(value):
        raise _not_an(value, family, f"{what} with prefix length", example)


def _not_an(value: str, family: str, what: str, example: str) -> Bad:
    found = _family(value)
    reason = f"{quote(value)} is not an {family} {what}"
    if found is not None and found != family:
        reason = f"{shorten(value)} is {found}, not an {family} {what}"
    return Bad(reason, f"Write it like {example}")


def _family(value: str) -> str | None:
    """The family of an address or prefix."""
    for family, kind in (("IPv4", IPv4Interface), ("IPv6", IPv6Interface)):
        try:
            kind(value)
        except ValueError:
            continue
        return family
    return None
