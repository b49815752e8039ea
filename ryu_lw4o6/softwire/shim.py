"""Attaches the softwire shim (softwire.bpf.c and its headers) to an instance's NICs, and takes it
off again.

The programs are loaded together, so that they share their maps, filled, and only then attached:
when they replace older ones, no packet meets an empty map. Nothing stays pinned; the programs and
maps live as long as they are attached, and are found again through the NIC. The file system that
the loading needs is mounted for that moment only, which also works inside network namespaces,
whose /sys is a fresh one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from ryu_lw4o6.core.errors import AdvisedError
from ryu_lw4o6.core.settings import IPV6_HEADER, Datapath, Dscp, FlowLabel, Instance, br_tag

ADDED = 18
"""Bytes by which a frame is longer between Open vSwitch and the shim than on the wire. The NIC's
MTU is set higher by as much: the kernel checks it before the shim has its turn."""

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
)
"""In the order of ``enum counter`` in shim.h."""

CACHE = Path("/var/cache/lw4o6")
_PREF = "4606"  # our place among a NIC's tc filters
_GENERIC = 2  # of the XDP modes that ip -j reports
_FLAGS = ("-O2", "-g", "-Wall", "-Werror", "-target", "bpf")


class ShimError(AdvisedError):
    """The shim cannot be loaded, attached or read."""


@dataclass(frozen=True, slots=True)
class Hook:
    """One place on a NIC where a program sits. ``kind`` is xdp, egress or ingress."""

    device: str
    kind: str
    program: str


@dataclass(frozen=True, slots=True)
class HookStatus:
    hook: Hook
    attached: bool
    mode: str = ""


@dataclass(frozen=True, slots=True)
class ShimStatus:
    """``current`` is False while an older version of the shim is attached."""

    hooks: tuple[HookStatus, ...]
    current: bool
    addresses: tuple[IPv6Address, ...]
    counters: dict[str, int]

    @property
    def attached(self) -> bool:
        return all(hook.attached for hook in self.hooks)


def hooks(instance: Instance) -> tuple[Hook, ...]:
    """Where the shim's programs go for this instance."""
    if instance.datapath is Datapath.USERSPACE:
        return _all_hooks(instance)
    # In the kernel datapath, tc ingress is where Open vSwitch itself gets its packets.
    return tuple(hook for hook in _all_hooks(instance) if hook.kind != "ingress")


def _all_hooks(instance: Instance) -> tuple[Hook, ...]:
    return tuple(
        Hook(nic, kind, program)
        for nic in _devices(instance)
        for kind, program in (
            ("xdp", "softwire_in"), ("egress", "softwire_out"), ("ingress", "hide"),
        )
    )  # fmt: skip


def attach(instance: Instance) -> None:
    """Attach the shim, or bring an attached one up to date: its addresses in place, its programs
    by replacing them without a gap.

    Raises ShimError. A shim that was attached before then stays, one that was not is taken off.
    """
    _require_root()
    source = _source()
    for device in _devices(instance):
        _refuse_foreign_programs(device, instance)
    maps, found = _maps(instance), _notes(instance)
    if maps is not None and _digest_of(maps) == _digest(source):
        _fill(instance, maps)
        _raise_mtu(instance)
    else:
        notes = _new_notes(instance, _digest(source), found)
        compiled = _compile(source)
        try:
            _load_and_attach(instance, compiled, notes)
            _raise_mtu(instance)
        except ShimError:
            if found is None:
                with contextlib.suppress(ShimError):
                    _take_off(instance, notes)
            raise
    for hook in set(_all_hooks(instance)) - set(hooks(instance)):
        _remove(hook)


def nic_mtu(instance: Instance) -> int:
    """What the IPv6 side's NIC has to take: a packet from the Internet is whole until the shim
    puts it into fragments."""
    return max(instance.ipv6.mtu, instance.ipv4.mtu + IPV6_HEADER) + ADDED


def detach(instance: Instance) -> None:
    """Take the shim off, and restore the MTU; nothing happens where it is not attached. Raises
    ShimError."""
    _require_root()
    notes = _notes(instance)
    if notes is not None:
        _take_off(instance, notes)


def status(instance: Instance) -> ShimStatus:
    """What is attached now, and its counters. Raises ShimError."""
    _require_root()
    found = []
    maps: dict[str, int] = {}
    for hook in hooks(instance):
        program = _program(hook) if _exists(hook.device) else None
        mode = ""
        if program is not None:
            maps = _maps_of_program(program) | maps
            if hook.kind == "xdp":
                mode = "generic" if _xdp(hook.device).get("mode") == _GENERIC else "native"
        found.append(HookStatus(hook, program is not None, mode))
    return ShimStatus(
        tuple(found),
        "settings" in maps and _digest_of(maps) == _digest(_source()),
        _addresses(maps["aftr_addresses"]) if "aftr_addresses" in maps else (),
        _counters(maps["counters"]) if "counters" in maps else {},
    )


def counters(instance: Instance) -> dict[str, int]:
    """The counters of the attached shim. Raises ShimError, also when there is none."""
    _require_root()
    hook = hooks(instance)[0]
    program = _program(hook)
    maps = {} if program is None else _maps_of_program(program)
    if "counters" not in maps:
        raise ShimError(
            f"the shim is not attached to {hook.device}", "Run lw4o6 softwire attach there"
        )
    return _counters(maps["counters"])


# --- loading --------------------------------------------------------------------------------------


_MAIN = "softwire.bpf.c"
_Source = dict[str, bytes]
"""The text of each file."""


def _source() -> _Source:
    files = resources.files("ryu_lw4o6.softwire")
    headers = ("shim.h", "mark.h", "decapsulate.h", "encapsulate.h")
    return {name: files.joinpath(name).read_bytes() for name in (*headers, _MAIN)}


def _digest(source: _Source) -> bytes:
    return hashlib.sha256(b"".join(source.values()) + " ".join(_FLAGS).encode()).digest()[:8]


def _compile(source: _Source) -> Path:
    """The compiled programs, from the cache if they have been compiled before."""
    target = CACHE / f"softwire-{_digest(source).hex()}.o"
    if target.exists():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    CACHE.chmod(0o700)
    with tempfile.TemporaryDirectory(dir=CACHE) as directory:
        c_file, o_file = Path(directory, _MAIN), Path(directory, "softwire.o")
        for name, text in source.items():
            Path(directory, name).write_bytes(text)
        include = f"/usr/include/{platform.machine()}-linux-gnu"
        _run(
            "clang", *_FLAGS, f"-I{include}", "-c", str(c_file), "-o", str(o_file),
            failure="the shim could not be compiled",
            suggestion="Install the headers it needs: apt-get install libbpf-dev linux-libc-dev",
        )  # fmt: skip
        o_file.replace(target)
    return target


@contextlib.contextmanager
def _bpf_file_system() -> Iterator[Path]:
    directory = tempfile.mkdtemp(prefix="lw4o6-bpf-", dir="/run")
    try:
        _run(
            "mount", "-t", "bpf", "bpf", directory,
            failure="the kernel has no BPF file system",
            suggestion="Use a kernel with CONFIG_BPF_SYSCALL, and run where mounting is allowed",
        )  # fmt: skip
        try:
            yield Path(directory)
        finally:
            _run("umount", directory)
    finally:
        os.rmdir(directory)


def _load_and_attach(instance: Instance, compiled: Path, notes: _Notes) -> None:
    with _bpf_file_system() as mounted:
        pins = mounted / "shim"
        _run(
            "bpftool", "prog", "loadall", str(compiled), str(pins),
            failure="the kernel refused the shim's programs",
            suggestion="It needs Linux 5.10 or newer with CONFIG_BPF_JIT and CONFIG_NET_CLS_BPF",
        )  # fmt: skip
        maps: dict[str, int] = {}
        for program in pins.iterdir():
            maps |= _map_ids(_json("bpftool", "-j", "prog", "show", "pinned", str(program)))
        _fill(instance, maps, notes)
        for device in _devices(instance):
            if not _has_clsact(device):
                _run(
                    "tc", "qdisc", "add", "dev", device, "clsact",
                    failure=f"{device} takes no clsact qdisc",
                    suggestion="Use a kernel with CONFIG_NET_SCH_INGRESS, or remove its "
                    "ingress qdisc",
                )  # fmt: skip
        for hook in hooks(instance):
            pin = str(pins / hook.program)
            if hook.kind == "xdp":
                _attach_xdp(hook.device, pin)
            else:
                _attach_tc(hook.device, hook.kind, pin)


def _attach_xdp(device: str, pin: str) -> None:
    attached = _xdp(device)
    if attached.get("mode") != _GENERIC:
        native = subprocess.run(
            ["ip", "-force", "link", "set", "dev", device, "xdpdrv", "pinned", pin],
            capture_output=True, text=True,
        )  # fmt: skip
        if native.returncode == 0:
            return
        if attached:
            raise ShimError(
                f"{device}: the XDP program could not be replaced ({native.stderr.strip()})",
                "Run lw4o6 softwire detach first, then attach again",
            )
    _run(
        "ip", "-force", "link", "set", "dev", device, "xdpgeneric", "pinned", pin,
        failure=f"{device} takes no XDP program",
        suggestion="Use a kernel with CONFIG_BPF_SYSCALL and an MTU below 3500",
    )  # fmt: skip


def _attach_tc(device: str, kind: str, pin: str) -> None:
    _run(
        "tc", "filter", "replace", "dev", device, kind, "pref", _PREF, "handle", "1",
        "bpf", "da", "object-pinned", pin,
        failure=f"{device} takes no BPF filter at {kind}",
        suggestion="Use a kernel with CONFIG_NET_CLS_BPF",
    )  # fmt: skip


def _take_off(instance: Instance, notes: _Notes) -> None:
    for hook in _all_hooks(instance):
        if _exists(hook.device):
            _remove(hook)
    for bit, device in enumerate(_devices(instance)):
        ours = notes.clsact_made & 1 << bit and _exists(device) and _has_clsact(device)
        if ours and not _filters(device):
            _run("tc", "qdisc", "del", "dev", device, "clsact")
    if _exists(instance.ipv6.port):
        _set_mtu(instance.ipv6.port, notes.mtu_before)


def _remove(hook: Hook) -> None:
    if _program(hook) is None:
        return
    if hook.kind == "xdp":
        mode = "xdpgeneric" if _xdp(hook.device).get("mode") == _GENERIC else "xdpdrv"
        _run("ip", "link", "set", "dev", hook.device, mode, "off")
    else:
        _run("tc", "filter", "del", "dev", hook.device, hook.kind, "pref", _PREF)


@dataclass(frozen=True, slots=True)
class _Notes:
    """What the loader writes down for itself in ``struct settings``."""

    digest: bytes
    mtu_before: int
    clsact_made: int

    def pack(self) -> bytes:
        return struct.pack("=8sII", self.digest, self.mtu_before, self.clsact_made)


def _new_notes(instance: Instance, digest: bytes, before: _Notes | None) -> _Notes:
    mtu = before.mtu_before if before else _link(instance.ipv6.port)["mtu"]
    made = before.clsact_made if before else 0
    for bit, device in enumerate(_devices(instance)):
        made |= (not _has_clsact(device)) << bit
    return _Notes(digest, mtu, made)


def _fill(instance: Instance, maps: dict[str, int], notes: _Notes | None = None) -> None:
    """Write the instance's addresses; remove those that are no longer its own."""
    addresses = instance.aftr_addresses
    _replace(maps["aftr_addresses"], {a.packed: b"\1" for a in addresses})
    _replace(
        maps["br_addresses"],
        {br_tag(a).to_bytes(4, sys.byteorder): a.packed for a in addresses},
    )
    kept = notes.pack() if notes else _settings(maps)[8:24]
    own = _mac(instance.ipv4.port) + struct.pack("=H", instance.softwire_mtu)
    sides = struct.pack(
        "=HHHH", instance.ipv6.vlan or 0, instance.ipv4.vlan or 0,
        instance.ipv6.flow_label is FlowLabel.HASHED, instance.ipv6.dscp is Dscp.OUTER,
    )  # fmt: skip
    _update(maps["settings"], bytes(4), own + kept + sides)


# --- looking ----------------------------------------------------------------------------------


def _devices(instance: Instance) -> tuple[str, ...]:
    """The IPv6 side's NIC and the IPv4 side's, once if it is the same."""
    return tuple(dict.fromkeys((instance.ipv6.port, instance.ipv4.port)))


def _exists(device: str) -> bool:
    # Not from /sys, which may show the NICs of another network namespace.
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
    return device in (line.rpartition(":")[0].strip() for line in lines)


def _link(device: str) -> dict[str, Any]:
    if not _exists(device):
        raise ShimError(f"there is no interface {device}", "See ip link for those there are")
    link: dict[str, Any] = _json("ip", "-j", "-d", "link", "show", "dev", device)[0]
    return link


def _xdp(device: str) -> dict[str, Any]:
    found: dict[str, Any] = _link(device).get("xdp", {})
    return found


def _mac(device: str) -> bytes:
    return bytes.fromhex(_link(device)["address"].replace(":", ""))


def _raise_mtu(instance: Instance) -> None:
    needed = nic_mtu(instance)
    if _link(instance.ipv6.port)["mtu"] < needed:
        _set_mtu(instance.ipv6.port, needed)


def _set_mtu(device: str, mtu: int) -> None:
    if _link(device)["mtu"] != mtu:
        _run(
            "ip", "link", "set", "dev", device, "mtu", str(mtu),
            failure=f"{device} does not take an MTU of {mtu}",
            suggestion=f"Lower ipv6.mtu or ipv4.mtu: a softwire packet has {IPV6_HEADER} bytes "
            f"more than the IPv4 packet in it, and the shim needs another {ADDED}",
        )  # fmt: skip


def _has_clsact(device: str) -> bool:
    qdiscs = _json("tc", "-j", "qdisc", "show", "dev", device)
    return any(qdisc.get("kind") == "clsact" for qdisc in qdiscs)


def _program(hook: Hook) -> int | None:
    """The id of our program at a hook, None if it is not there."""
    if hook.kind == "xdp":
        program = _xdp(hook.device).get("prog", {})
    else:
        program = _filter_at_our_place(hook.device, hook.kind).get("prog", {})
    return int(program["id"]) if program.get("name") == hook.program else None


def _filter_at_our_place(device: str, kind: str) -> dict[str, Any]:
    for row in _json("tc", "-j", "filter", "show", "dev", device, kind):
        if str(row.get("pref")) == _PREF and "options" in row:
            options: dict[str, Any] = row["options"]
            return options
    return {}


def _filters(device: str) -> list[Any]:
    return [
        row
        for kind in ("ingress", "egress")
        for row in _json("tc", "-j", "filter", "show", "dev", device, kind)
    ]


def _refuse_foreign_programs(device: str, instance: Instance) -> None:
    ours = {hook.program for hook in _all_hooks(instance)}
    name = _xdp(device).get("prog", {}).get("name")
    if name is not None and name not in ours:
        raise ShimError(
            f"{device} already has another XDP program ({name})",
            f"Take it off if it is not needed: ip link set dev {device} xdp off",
        )
    for kind in ("ingress", "egress"):
        options = _filter_at_our_place(device, kind)
        if options and options.get("prog", {}).get("name") not in ours:
            raise ShimError(
                f"{device} already has another tc filter with pref {_PREF} at {kind}",
                "Give that filter another pref; the shim needs this one",
            )


def _map_ids(program: dict[str, Any]) -> dict[str, int]:
    found = {}
    for number in program.get("map_ids", []):
        name = _json("bpftool", "-j", "map", "show", "id", str(number)).get("name", "")
        found[name] = int(number)
    return found


def _maps_of_program(number: int) -> dict[str, int]:
    return _map_ids(_json("bpftool", "-j", "prog", "show", "id", str(number)))


def _maps(instance: Instance) -> dict[str, int] | None:
    """The maps of the attached shim by name; None if it is not attached as a whole, or in parts
    that were not loaded together."""
    maps: dict[str, int] = {}
    for hook in hooks(instance):
        program = _program(hook)
        if program is None:
            return None
        found = _maps_of_program(program)
        if any(maps.get(name, number) != number for name, number in found.items()):
            return None
        maps |= found
    return maps if {"aftr_addresses", "br_addresses", "settings", "counters"} <= set(maps) else None


def _settings(maps: dict[str, int]) -> bytes:
    rows = _json("bpftool", "-j", "map", "dump", "id", str(maps["settings"]))
    return _bytes(rows[0]["value"])


def _digest_of(maps: dict[str, int]) -> bytes:
    return _settings(maps)[8:16]


def _notes(instance: Instance) -> _Notes | None:
    """What was written down when the shim was first attached; None if nothing of it is attached."""
    programs = [_program(hook) for hook in _all_hooks(instance) if _exists(hook.device)]
    attached = [number for number in programs if number is not None]
    for number in attached:
        maps = _maps_of_program(number)
        if "settings" in maps:
            return _Notes(*struct.unpack("=8sII", _settings(maps)[8:24]))
    if not attached:
        return None
    # Somebody took off the program that held the notes.
    mtu = _link(instance.ipv6.port)["mtu"] if _exists(instance.ipv6.port) else 0
    return _Notes(bytes(8), min(mtu, instance.ipv6.mtu), 0b11)


def _addresses(number: int) -> tuple[IPv6Address, ...]:
    rows = _json("bpftool", "-j", "map", "dump", "id", str(number))
    return tuple(sorted(IPv6Address(_bytes(row["key"])) for row in rows))


def _counters(number: int) -> dict[str, int]:
    totals = dict.fromkeys(COUNTERS, 0)
    for row in _json("bpftool", "-j", "map", "dump", "id", str(number)):
        index = int.from_bytes(_bytes(row["key"]), sys.byteorder)
        if index < len(COUNTERS):
            totals[COUNTERS[index]] = sum(
                int.from_bytes(_bytes(cpu["value"]), sys.byteorder) for cpu in row["values"]
            )
    return totals


# --- maps and commands ------------------------------------------------------------------------


def _bytes(values: Sequence[str]) -> bytes:
    return bytes(int(value, 16) for value in values)


def _hex(data: bytes) -> list[str]:
    return ["hex", *(f"{byte:02x}" for byte in data)]


def _update(number: int, key: bytes, value: bytes) -> None:
    _run("bpftool", "map", "update", "id", str(number), "key", *_hex(key), "value", *_hex(value))


def _replace(number: int, wanted: dict[bytes, bytes]) -> None:
    rows = _json("bpftool", "-j", "map", "dump", "id", str(number))
    for key, value in wanted.items():
        _update(number, key, value)
    for row in rows:
        key = _bytes(row["key"])
        if key not in wanted:
            _run("bpftool", "map", "delete", "id", str(number), "key", *_hex(key))


_PACKAGES = {"clang": "clang", "bpftool": "bpftool", "ip": "iproute2", "tc": "iproute2"}


def _run(
    *command: str,
    failure: str = "",
    suggestion: str = "See the kernel's log (dmesg) for the reason",
) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        package = _PACKAGES.get(command[0], command[0])
        raise ShimError(
            f"{command[0]} is not installed", f"Install it: apt-get install {package}"
        ) from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        what = failure or f"{' '.join(command[:4])} failed"
        raise ShimError(f"{what}: {lines[-1]}", suggestion)
    return done.stdout


def _json(*command: str) -> Any:
    text = _run(*command).strip()
    return json.loads(text) if text else []


def _require_root() -> None:
    if os.geteuid() != 0:
        raise ShimError("only root may load BPF programs", "Run it as root, with sudo for instance")
