"""Kea's lease database as supporting system, by its lease commands (libdhcp_lease_cmds.so).

The relays write into each lease which lwB4 it is for, and lease port sets as addresses of their own
(``core.leases``): so Kea knows who holds what. Kea answers commands between packets and has no way
to tell of changes: the leases are read anew every now and then, page by page, with pauses.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from ryu_lw4o6.core.binding import Binding, BindingKey, Origin
from ryu_lw4o6.core.dhcp_relay import holder
from ryu_lw4o6.core.dhcpv4 import INFINITE
from ryu_lw4o6.core.leases import Leases
from ryu_lw4o6.core.settings import Settings
from ryu_lw4o6.core.times import end_of
from ryu_lw4o6.supporting.kea_control import Answer, Control, connect
from ryu_lw4o6.supporting.paging import in_pages
from ryu_lw4o6.supporting.unavailable import SystemUnavailable

PAGE = 500
PAGE_SECONDS = 5.0
"""How long a page may take; nobody waits for it."""
_FOUND, _EMPTY = 0, 3
_ASSIGNED = 0


class KeaSystem:
    """``endpoint`` is the path of kea-dhcp4's control socket, or the control agent's URL."""

    def __init__(self, endpoint: str, settings: Settings) -> None:
        self._endpoint = endpoint
        self._leases = Leases(settings.prefixes)
        self._deadline = settings.supporting_system.deadline
        self._refresh = settings.supporting_system.refresh
        self._known: dict[BindingKey, Binding] | None = None
        self._read_next = 0.0

    def find(self, keys: Collection[BindingKey]) -> dict[BindingKey, Binding]:
        found: dict[BindingKey, Binding] = {}
        with connect(self._endpoint, self._deadline) as control:
            for key in keys:
                leased = self._leases.to_server(key)
                if leased is None:
                    continue
                answer = _ask(control, "lease4-get", {"ip-address": str(leased)})
                lease = answer.get("arguments") if answer["result"] == _FOUND else None
                binding = self._binding(lease)
                if binding is not None and binding.key == key:
                    found[key] = binding
        return found

    def wait_for_changes(self, seconds: float) -> list[BindingKey] | None:
        left = self._read_next - time.monotonic()
        if left > 0:
            time.sleep(min(left, seconds))
            with connect(self._endpoint, self._deadline) as control:
                _ask(control, "version-get", {})  # finds out whether it is still there
            return []
        self._read_next = time.monotonic() + min(self._refresh, PAGE_SECONDS)  # if it fails
        known = {binding.key: binding for binding in self._read()}
        before, self._known = self._known, known
        self._read_next = time.monotonic() + self._refresh
        if before is None:
            return None
        return [key for key in {**before, **known} if before.get(key) != known.get(key)]

    def changed(self, keys: Collection[BindingKey]) -> list[Binding]:
        known = self._known or {}
        return [known[key] for key in keys if key in known]

    def pages(self, network: IPv4Network | None = None) -> Iterator[list[Binding]]:
        """As of the last reading: the next one tells what is different."""
        return in_pages(lambda: self._known or {})

    def close(self) -> None:
        pass

    def _read(self) -> Iterator[Binding]:
        """Every lease that is a binding."""
        last = "start"
        with connect(self._endpoint, PAGE_SECONDS) as control:
            while True:
                began = time.monotonic()
                answer = _ask(control, "lease4-get-page", {"from": last, "limit": PAGE})
                if answer["result"] == _EMPTY:
                    return
                leases = _leases(answer)
                for lease in leases:
                    binding = self._binding(lease)
                    if binding is not None:
                        yield binding
                last = str(leases[-1].get("ip-address"))
                # Half of Kea's time is for its clients.
                time.sleep(time.monotonic() - began)

    def _binding(self, lease: Any) -> Binding | None:
        """What a lease says; None if it is not assigned to an lwB4."""
        try:
            found = self._leases.from_server(IPv4Address(lease["ip-address"]))
            if found is None or lease["state"] != _ASSIGNED:
                return None
            key, prefix = found
            seconds = int(lease["valid-lft"])
            expires_at = None if seconds == INFINITE else end_of(float(lease["cltt"] + seconds))
            lwb4, br_address = holder(_agent(lease))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            return None
        return Binding(
            lwb4, key.ipv4, key.psid, prefix.params, br_address, Origin.VALIDATED, expires_at
        )


def _ask(control: Control, command: str, arguments: Answer) -> Answer:
    answer = control.ask(command, arguments)
    if answer["result"] not in (_FOUND, _EMPTY):
        raise SystemUnavailable(
            f"Kea: {command}: {str(answer.get('text'))[:200]}",
            "See whether kea-dhcp4 loads libdhcp_lease_cmds.so",
        )
    return answer


def _leases(answer: Answer) -> list[dict[str, Any]]:
    """The leases of a page. Raises SystemUnavailable."""
    arguments = answer.get("arguments")
    leases = arguments.get("leases") if isinstance(arguments, dict) else None
    if not isinstance(leases, list) or not leases or not all(isinstance(x, dict) for x in leases):
        raise SystemUnavailable("Kea: a page of leases that is none", "See what answers there")
    return leases


def _agent(lease: dict[str, Any]) -> bytes:
    """The relay agent information that Kea keeps with a lease (``store-extended-info``); newer
    versions keep more than that."""
    kept = lease["user-context"]["ISC"]["relay-agent-info"]
    if isinstance(kept, dict):
        kept = kept["sub-options"]
    return bytes.fromhex(kept.removeprefix("0x"))
