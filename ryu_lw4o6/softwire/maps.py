"""The shim's maps: what it is told of the instance, what it counts, and the loader's notes."""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

from openflow_rules.tables import QUIET_SECONDS
from ryu_lw4o6.core.icmp import HOP_LIMIT
from ryu_lw4o6.core.settings import Dscp, FlowLabel, Instance, br_tag
from ryu_lw4o6.softwire import nic
from ryu_lw4o6.softwire.commands import read, run

COUNTERS = (
    "translated_in",
    "translated_out",
    "passed_in",
    "options_stripped",
    "refused_gre_from_wire",
    "refused_vlan",
    "refused_not_ipv4",
    "refused_truncated",
    "refused_options",
    "refused_ecn",
    "refused_unknown_br_tag",
    "refused_no_room",
    "refused_gso",
    "marked_in",
    "source_restored",
    "hidden_from_kernel",
    "fragmented_out",
    "refused_checksum",
    "refused_fragment",
    "refused_martian",
    "answered",
    "answered_bytes",
    "answered_lately",
    "refused_crowd",
)
"""In the order of ``enum counter`` in shim.h."""

LEAST_CROWD = 5_000
"""How many first packets of lwB4s get in per second, however small ``unknown_rate`` is: those with
bindings are among them."""

ALLOWANCE = "allowance"
"""The map of ``struct allowance`` in crowd.h."""

_CROWD_SECONDS = (1 << 25) / 1e9  # WINDOW_BITS of crowd.h

_NOTES = slice(8, 24)
"""Where the notes are in ``struct settings``."""

Maps = dict[str, int]
"""The kernel's number of each map, by its name."""


@dataclass(frozen=True, slots=True)
class Notes:
    """What the loader writes down for itself in ``struct settings``."""

    digest: bytes
    mtu_before: int
    clsact_made: int

    def pack(self) -> bytes:
        return struct.pack("=8sII", self.digest, self.mtu_before, self.clsact_made)


def crowd(instance: Instance) -> int:
    """How many packets of lwB4s that are new, or were refused, get in within a window."""
    return int(max(instance.unknown_rate, LEAST_CROWD) * _CROWD_SECONDS)


# --- finding them -----------------------------------------------------------------------------


def of_description(program: dict[str, Any]) -> Maps:
    """The maps of a program that bpftool has described."""
    found = {}
    for number in program.get("map_ids", []):
        name = read("bpftool", "-j", "map", "show", "id", str(number)).get("name", "")
        found[name] = int(number)
    return found


def of_program(number: int) -> Maps:
    return of_description(read("bpftool", "-j", "prog", "show", "id", str(number)))


def of_instance(instance: Instance) -> Maps | None:
    """The maps of the attached shim; None if it is not attached as a whole, or in parts that were
    not loaded together."""
    maps: Maps = {}
    for hook in nic.hooks(instance):
        program = nic.program(hook)
        if program is None:
            return None
        found = of_program(program)
        if any(maps.get(name, number) != number for name, number in found.items()):
            return None
        maps |= found
    return maps if {"aftr_addresses", "br_addresses", "settings", "counters"} <= set(maps) else None


# --- reading them -----------------------------------------------------------------------------


def digest(maps: Maps) -> bytes:
    """Of the source that runs."""
    return _settings(maps)[8:16]


def notes(instance: Instance) -> Notes | None:
    """What was written down when the shim was first attached; None if nothing of it is attached."""
    programs = [nic.program(hook) for hook in nic.all_hooks(instance) if nic.exists(hook.device)]
    attached = [number for number in programs if number is not None]
    for number in attached:
        maps = of_program(number)
        if "settings" in maps:
            return Notes(*struct.unpack("=8sII", _settings(maps)[_NOTES]))
    if not attached:
        return None
    # Somebody took off the program that held the notes.
    mtu = nic.mtu(instance.ipv6.port) if nic.exists(instance.ipv6.port) else 0
    return Notes(bytes(8), min(mtu, instance.ipv6.mtu), 0b11)


def addresses(number: int) -> tuple[IPv6Address, ...]:
    rows = read("bpftool", "-j", "map", "dump", "id", str(number))
    return tuple(sorted(IPv6Address(_bytes(row["key"])) for row in rows))


def counters(number: int) -> dict[str, int]:
    totals = dict.fromkeys(COUNTERS, 0)
    for row in read("bpftool", "-j", "map", "dump", "id", str(number)):
        index = int.from_bytes(_bytes(row["key"]), sys.byteorder)
        if index < len(COUNTERS):
            totals[COUNTERS[index]] = sum(
                int.from_bytes(_bytes(cpu["value"]), sys.byteorder) for cpu in row["values"]
            )
    return totals


def _settings(maps: Maps) -> bytes:
    rows = read("bpftool", "-j", "map", "dump", "id", str(maps["settings"]))
    return _bytes(rows[0]["value"])


def _bytes(values: Sequence[str]) -> bytes:
    return bytes(int(value, 16) for value in values)


# --- writing them -----------------------------------------------------------------------------


def fill(instance: Instance, maps: Maps, new: Notes | None = None) -> None:
    """Write the instance's addresses; remove those that are no longer its own."""
    own = instance.aftr_addresses
    _replace(maps["aftr_addresses"], {a.packed: b"\1" for a in own})
    _replace(maps["br_addresses"], {br_tag(a).to_bytes(4, sys.byteorder): a.packed for a in own})
    kept = new.pack() if new else _settings(maps)[_NOTES]
    parts = (
        nic.mac(instance.ipv4.port),
        struct.pack("=H", instance.softwire_mtu),
        kept,
        struct.pack("=HH", instance.ipv6.vlan or 0, instance.ipv4.vlan or 0),
        struct.pack("=H", instance.ipv6.flow_label is FlowLabel.HASHED),
        struct.pack("=H", instance.ipv6.dscp is Dscp.OUTER),
        struct.pack("=III", QUIET_SECONDS * 1000, HOP_LIMIT, instance.ipv4.mtu),
        struct.pack("=I", crowd(instance)),
    )
    _update(maps["settings"], bytes(4), b"".join(parts))


def _update(number: int, key: bytes, value: bytes) -> None:
    run("bpftool", "map", "update", "id", str(number), "key", *_hex(key), "value", *_hex(value))


def _replace(number: int, wanted: dict[bytes, bytes]) -> None:
    rows = read("bpftool", "-j", "map", "dump", "id", str(number))
    for key, value in wanted.items():
        _update(number, key, value)
    for row in rows:
        key = _bytes(row["key"])
        if key not in wanted:
            run("bpftool", "map", "delete", "id", str(number), "key", *_hex(key))


def _hex(data: bytes) -> list[str]:
    return ["hex", *(f"{byte:02x}" for byte in data)]
