"""Bindings as JSON, and JSON as bindings with every problem named by field."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any, TypeVar

from rest import values
from rest.values import Bad, shown
from ryu_lw4o6.core.binding import Binding, BindingKey, BindingTable, Origin, UnknownPrefix
from ryu_lw4o6.core.settings import Settings
from ryu_lw4o6.core.times import rfc3339
from ryu_lw4o6.service import Applied

FIELDS = ("lwb4", "ipv4", "psid", "br_address", "lifetime", "psid_offset", "psid_length")
READ_ONLY = ("ports", "origin", "expires_at", "state")
MAX_LIFETIME = 10 * 365 * 86400

T = TypeVar("T")


def binding_json(binding: Binding, states: Mapping[str, Applied], *, ports: bool) -> dict[str, Any]:
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
        "expires_at": None
        if binding.expires_at is None
        else rfc3339(binding.expires_at, "seconds"),
        "state": {
            name: {"state": str(applied.state)}
            | ({"error": applied.error} if applied.error else {})
            for name, applied in states.items()
        },
    }
    if ports:
        body["ports"] = [f"{r[0]}-{r[-1]}" for r in params.port_ranges(binding.psid)]
    return body


class Errors:
    """Problems found in a body, each {field, reason, suggestion}; ``at`` names a part of it."""

    def __init__(self, found: list[dict[str, str]] | None = None, at: str = "") -> None:
        self.found: list[dict[str, str]] = [] if found is None else found
        self._at = at

    def at(self, where: str) -> Errors:
        return Errors(self.found, where)

    def add(self, field: str, bad: Bad) -> None:
        self.found.append(bad.error(".".join(filter(None, (self._at, field)))))


class Reader:
    """Reads bindings against a configuration and its table."""

    def __init__(self, settings: Settings, table: BindingTable) -> None:
        self._settings = settings
        self._table = table
        self._aftr = {a for instance in settings.instances for a in instance.aftr_addresses}
        self._own = {a for instance in settings.instances for a in instance.own_addresses}
        self._offset = values.integer(0, 15)
        self._length = values.integer(0, 16)
        self._psid = values.integer(0, 65535)

    def binding(self, body: Any, errors: Errors, now: float) -> Binding | None:
        """The binding that a JSON object describes; None, and ``errors``, if it describes none.

        ``now`` is Unix time: a lifetime begins then.
        """
        if not isinstance(body, dict):
            errors.add("", Bad(f"{shown(body)} is not a JSON object", "Give an object with lwb4"))
            return None
        before = len(errors.found)
        _check_names(body, FIELDS, errors)
        lwb4 = _field(body, "lwb4", errors, self._lwb4, required=True)
        ipv4 = _field(body, "ipv4", errors, values.ipv4, required=True)
        psid = _field(body, "psid", errors, self._psid) or 0
        br_address = _field(body, "br_address", errors, self._br_address)
        lifetime = _field(body, "lifetime", errors, _seconds)
        offset = _field(body, "psid_offset", errors, self._offset)
        length = _field(body, "psid_length", errors, self._length)
        if ipv4 is None:
            return None
        try:
            prefix = self._table.prefix_of(ipv4)
        except UnknownPrefix as error:
            errors.add("ipv4", Bad(str(error), f"Use an address of {self._prefixes()}"))
            return None
        params = prefix.params
        for name, given, right in (
            ("psid_offset", offset, params.psid_offset),
            ("psid_length", length, params.psid_length),
        ):
            if given is not None and given != right:
                errors.add(name, Bad(f"{prefix.network} has {right}, not {given}", "Leave it out"))
        try:
            params.check_psid(psid)
        except ValueError as error:
            errors.add("psid", Bad(str(error), f"Use 0 to {params.psid_count - 1}"))
        if len(errors.found) > before or lwb4 is None:
            return None
        expires_at = None if lifetime is None else now + lifetime
        binding = Binding(lwb4, ipv4, psid, params, br_address, Origin.REST, expires_at)
        return binding if self._carried(binding, errors) else None

    def key(self, body: Any, errors: Errors) -> BindingKey | None:
        """The key that ``{"ipv4": ..., "psid": ...}`` names. A PSID that is left out is 0, but
        for shared addresses it must be there: a slip must not hit somebody else's binding."""
        if not isinstance(body, dict):
            errors.add("", Bad(f"{shown(body)} is not a JSON object", "Give ipv4 and psid"))
            return None
        before = len(errors.found)
        _check_names(body, ("ipv4", "psid"), errors)
        ipv4 = _field(body, "ipv4", errors, values.ipv4, required=True)
        psid = _field(body, "psid", errors, self._psid)
        if ipv4 is not None and body.get("psid") is None and self._shared(ipv4):
            errors.add("psid", Bad("is missing", f"Say which port set of {ipv4}"))
        if ipv4 is None or len(errors.found) > before:
            return None
        return BindingKey(ipv4, psid or 0)

    def _lwb4(self, value: Any) -> IPv6Address:
        address = values.host(value)
        if address in self._own:
            raise Bad(f"{address} is an address of the lwAFTR", "Use the lwB4's own address")
        return address

    def _br_address(self, value: Any) -> IPv6Address:
        address = values.ipv6(value)
        if address not in self._aftr:
            known = ", ".join(str(own) for own in sorted(self._aftr))
            raise Bad(f"{address} is no instance's", f"Use one of {known}, or leave it out")
        return address

    def _carried(self, binding: Binding, errors: Errors) -> bool:
        """Whether any instance serves this binding; one that none serves would never work."""
        if any(instance.carries(binding) for instance in self._settings.instances):
            return True
        field = "ipv4" if binding.br_address is None else "br_address"
        reason = f"no instance serves {binding.ipv4}"
        if binding.br_address is not None:
            reason += f" from {binding.br_address}"
        errors.add(field, Bad(reason, "See aftr_addresses and prefixes of the instances"))
        return False

    def _shared(self, ipv4: IPv4Address) -> bool:
        try:
            return self._table.prefix_of(ipv4).params.shared
        except UnknownPrefix:
            return False

    def _prefixes(self) -> str:
        return ", ".join(str(prefix.network) for prefix in self._settings.prefixes)


def _check_names(body: dict[str, Any], known: tuple[str, ...], errors: Errors) -> None:
    for name in body:
        if name in known:
            continue
        if name in READ_ONLY:
            hint = "Give lifetime, in seconds" if name == "expires_at" else "Leave it out"
            errors.add(name, Bad("is not yours to set", hint))
        else:
            near = difflib.get_close_matches(name[:60], known, 1)
            hint = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(known)}"
            errors.add(name[:60], Bad("unknown field", hint))


def _seconds(value: Any) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 < value <= MAX_LIFETIME
        or not math.isfinite(value)
    ):
        raise Bad(f"{shown(value)} is no lifetime", f"Use seconds, above 0 up to {MAX_LIFETIME}")
    return float(value)


def _field(
    body: dict[str, Any],
    name: str,
    errors: Errors,
    read: Callable[[Any], T],
    *,
    required: bool = False,
) -> T | None:
    value = body.get(name)
    if value is None:
        if required:
            errors.add(name, Bad("is missing", f"Add {name}"))
        return None
    try:
        return read(value)
    except Bad as bad:
        errors.add(name, bad)
        return None
