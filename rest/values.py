"""Single values as clients write them. Every reader raises Bad, never anything else."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any, TypeVar

from ryu_lw4o6.core import addresses
from ryu_lw4o6.core.binding import BindingKey

T = TypeVar("T")

_SHOWN = 60


class Bad(Exception):
    """A value that is wrong: ``reason`` and ``suggestion`` are for the client."""

    def __init__(self, reason: str, suggestion: str) -> None:
        super().__init__(reason, suggestion)
        self.reason = reason
        self.suggestion = suggestion

    def error(self, field: str) -> dict[str, str]:
        return {"field": field, "reason": self.reason, "suggestion": self.suggestion}


def shown(value: Any) -> str:
    """A client's value for a message: JSON on one line, cut short."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value[:_SHOWN] if isinstance(value, str) else value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def ipv4(value: Any) -> IPv4Address:
    return _address(value, addresses.ipv4, "an IPv4 address", "192.0.2.1")


def ipv6(value: Any) -> IPv6Address:
    what = "an IPv6 address without a zone" if "%" in str(value) else "an IPv6 address"
    return _address(value, addresses.ipv6, what, "2001:db8:b4::1")


def host(value: Any) -> IPv6Address:
    """An address that packets can come from and go to across routers."""
    address = ipv6(value)
    if not addresses.is_host(address):
        raise Bad(f"{address} is no unicast address of a host", "Use the lwB4's own address")
    return address


def network(value: Any) -> IPv4Network:
    try:
        if isinstance(value, str):
            return IPv4Network(value)
    except ValueError:
        try:
            fixed = IPv4Network(value, strict=False)
        except ValueError:
            pass
        else:
            raise Bad(f"{shown(value)} has host bits set", f"Did you mean {fixed}?") from None
    raise Bad(f"{shown(value)} is not an IPv4 prefix", "Write it like 192.0.2.0/28")


def integer(low: int, high: int) -> Callable[[Any], int]:
    """A reader of JSON integers from ``low`` to ``high``."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise Bad(f"{shown(value)} is not a whole number", f"Use {low} to {high}")
        if not low <= value <= high:
            raise Bad(f"{shown(value)} is out of range", f"Use {low} to {high}")
        return value

    return read


def digits(low: int, high: int) -> Callable[[str], int]:
    """A reader of whole numbers that are written as text, as in a query."""
    check = integer(low, high)

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,15}", text):
            raise Bad(f"{shown(text)} is not a whole number", f"Use {low} to {high}")
        return check(int(text))

    return read


def seconds(low: int, high: int) -> Callable[[str], float]:
    def read(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,20})?", text) or not low <= float(text) <= high:
            raise Bad(f"{shown(text)} is no time in seconds", f"Use {low} to {high}")
        return float(text)

    return read


def choice(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            near = difflib.get_close_matches(text[:_SHOWN], choices, 1)
            known = f"Did you mean {near[0]}?" if near else f"Use {' or '.join(choices)}"
            raise Bad(f"{shown(text)} is not known", known)
        return text

    return read


def key(text: str) -> BindingKey:
    """A binding's key as its path writes it, such as 192.0.2.1/3."""
    address, slash, psid = text.partition("/")
    if not slash:
        raise Bad(f"{shown(text)} is not the key of a binding", "Write it like 192.0.2.1/3")
    return BindingKey(ipv4(address), digits(0, 65535)(psid))


def _address(value: Any, read: Callable[[str], T], what: str, example: str) -> T:
    try:
        if isinstance(value, str):
            return read(value)
    except ValueError:
        pass
    raise Bad(f"{shown(value)} is not {what}", f"Write it like {example}")
