"""Bindings as JSON, and JSON as bindings with every problem named by field."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Any, TypeVar

from rest.http import Problem
from ryu_lw4o6.core.binding import Binding, BindingKey, BindingTable, Origin, UnknownPrefix
from ryu_lw4o6.core.settings import Settings
from ryu_lw4o6.service import Applied

FIELDS = ("lwb4", "ipv4", "psid", "br_address", "lifetime", "psid_offset", "psid_length")
MAX_LIFETIME = 10 * 365 * 86400

T = TypeVar("T")


def binding_json(binding: Binding, states: dict[str, Applied], *, ports: bool) -> dict[str, Any]:
    """A binding as the API shows it; ``ports`` adds the ranges of its port set."""
    params = binding.params
    body: dict[str, Any] = {
        "lwb4": str(binding.lwb4),
        "ipv4": str(binding.ipv4),
        "psid": binding.psid,
        "psid_offset": params.psid_offset,
        "psid_length": params.psid_length,
        "br_address": str(binding.br_address) if binding.br_address else None,
        "origin": str(binding.origin),
        "expires_at": _time(binding.expires_at),
        "state": {
            name: {"state": str(applied.state)}
            | ({"error": applied.error} if applied.error else {})
            for name, applied in states.items()
        },
    }
    if ports:
        body["ports"] = [f"{r[0]}-{r[-1]}" for r in params.port_ranges(binding.psid)]
    return body


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class Errors:
    """Collects what is wrong with a body, to be told in one go."""

    def __init__(self, where: str = "") -> None:
        self.found: list[dict[str, str]] = []
        self._where = where

    def at(self, where: str) -> Errors:
        """The same collection, for the part of the body called ``where``."""
        child = Errors(where)
        child.found = self.found
        return child

    def add(self, field: str, reason: str, suggestion: str) -> None:
        name = f"{self._where}.{field}" if self._where and field else self._where or field
        self.found.append({"field": name, "reason": reason, "suggestion": suggestion})

    def check(self) -> None:
        """Raise a 422 problem if anything was found."""
        if self.found:
            fields = ", ".join(dict.fromkeys(e["field"] for e in self.found))
            raise Problem(422, f"cannot be used: {fields}", errors=self.found)


def parse_binding(
    body: Any, settings: Settings, table: BindingTable, errors: Errors, now: float
) -> Binding | None:
    """The binding that a JSON object describes; None, and ``errors``, if it describes none."""
    if not isinstance(body, dict):
        errors.add("", "this is not a JSON object", f"Give {', '.join(FIELDS[:3])}")
        return None
    before = len(errors.found)
    for name in body:
        if name not in FIELDS:
            errors.add(str(name), "unknown field", f"Known are {', '.join(FIELDS)}")
    lwb4 = _field(body, "lwb4", errors, ipv6, required=True)
    ipv4_address = _field(body, "ipv4", errors, ipv4, required=True)
    psid = _field(body, "psid", errors, _integer(0, 65535)) or 0
    br_address = _field(body, "br_address", errors, ipv6)
    lifetime = _field(body, "lifetime", errors, _seconds)
    if lwb4 is not None and (lwb4.is_multicast or lwb4.is_unspecified or lwb4.is_loopback):
        errors.add("lwb4", f"{lwb4} is no unicast address", "Use the lwB4's own address")
    own = {address for instance in settings.instances for address in instance.aftr_addresses}
    if lwb4 in own:
        errors.add("lwb4", f"{lwb4} is an address of the lwAFTR", "Use the lwB4's own address")
    if br_address is not None and br_address not in own:
        errors.add(
            "br_address", f"{br_address} is no instance's",
            f"Use one of {', '.join(sorted(map(str, own)))}, or leave it out",
        )  # fmt: skip
    if ipv4_address is None:
        return None
    try:
        params = table.prefix_of(ipv4_address).params
    except UnknownPrefix as error:
        known = ", ".join(str(prefix.network) for prefix in settings.prefixes)
        errors.add("ipv4", str(error), f"Use an address of {known}")
        return None
    for name in ("psid_offset", "psid_length"):
        given = _field(body, name, errors, _integer(0, 16))
        if given is not None and given != getattr(params, name):
            errors.add(name, f"the prefix has {getattr(params, name)}, not {given}", "Leave it out")
    try:
        params.check_psid(psid)
    except ValueError as error:
        errors.add("psid", str(error), "Correct it, or the prefix's psid_length")
    if len(errors.found) > before or lwb4 is None:
        return None
    expires_at = None if lifetime is None else now + lifetime
    return Binding(lwb4, ipv4_address, psid, params, br_address, Origin.REST, expires_at)


def parse_key(body: Any, errors: Errors) -> BindingKey | None:
    """The key that ``{"ipv4": ..., "psid": ...}`` names."""
    if not isinstance(body, dict):
        errors.add("", "this is not a JSON object", "Give ipv4 and psid")
        return None
    for name in body:
        if name not in ("ipv4", "psid"):
            errors.add(str(name), "unknown field", "Known are ipv4, psid")
    address = _field(body, "ipv4", errors, ipv4, required=True)
    psid = _field(body, "psid", errors, _integer(0, 65535)) or 0
    return None if address is None else BindingKey(address, psid)


def ipv4(value: Any) -> IPv4Address:
    return _address(value, IPv4Address, "an IPv4 address", "192.0.2.1")


def ipv6(value: Any) -> IPv6Address:
    return _address(value, IPv6Address, "an IPv6 address", "2001:db8:b4::1")


class Bad(Exception):
    """A value that is wrong: (reason, suggestion)."""


def _address(value: Any, kind: Callable[[str], T], what: str, example: str) -> T:
    try:
        if isinstance(value, str):
            return kind(value)
    except ValueError:
        pass
    shown = value if isinstance(value, str) else type(value).__name__
    raise Bad(f"{shown[:60]!r} is not {what}", f"Write it like {example}")


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Bad(f"{str(value)[:60]} is not a whole number in range", f"Use {low} to {high}")
        return value

    return convert


def _seconds(value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0 < value <= MAX_LIFETIME:
        raise Bad(f"{str(value)[:60]} is no lifetime", f"Use seconds, above 0 to {MAX_LIFETIME}")
    return float(value)


def _field(
    body: dict[str, Any],
    name: str,
    errors: Errors,
    convert: Callable[[Any], T],
    *,
    required: bool = False,
) -> T | None:
    value = body.get(name)
    if value is None:
        if required:
            errors.add(name, "is missing", f"Add {name}")
        return None
    try:
        return convert(value)
    except Bad as bad:
        errors.add(name, bad.args[0], bad.args[1])
        return None
