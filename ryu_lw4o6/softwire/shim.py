"""Attaches the softwire shim (softwire.bpf.c) to an instance's NICs, and takes it off again.

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
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from ryu_lw4o6.core.settings import Datapath, Instance, br_tag

ADDED = 18
"""Bytes by which a frame is longer between Open vSwitch and the shim than on the wire. The NIC's
MTU is set higher by as much: the kernel checks it before the shim has its turn."""

COUNTERS = (
    "translated_in",
    "translated_out",
    "passed_in",
    "options_stripped",
    "refused_gre_from_wire",
    "refused_not_ipv4",
    "refused_truncated",
    "refused_options",
    "refused_unknown_br_tag",
    "refused_no_room",
    "icmp_marked",
    "source_restored",
    "hidden_from_kernel",
)
"""In the order of ``enum counter`` in softwire.bpf.c."""

CACHE = Path("/var/cache/lw4o6")
_PREF = "4606"  # our place among a NIC's tc filters
_FLAGS = ("-O2", "-g", "-Wall", "-Werror", "-target", "bpf")


class ShimError(Exception):
    """``reason`` says what went wrong, ``suggestion`` what to do about it."""

    def __init__(self, reason: str, suggestion: str) -> None:
        super().__init__(f"{reason}. {suggestion}")
        self.reason = reason
        self.suggestion = suggestion


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
    nic6, nic4 = instance.ipv6.port, instance.ipv4.port
    found = [
        Hook(nic6, "xdp", "softwire_in"),
        Hook(nic6, "egress", "softwire_out"),
        Hook(nic4, "xdp", "ipv4_in"),
        Hook(nic4, "egress", "ipv4_out"),
    ]
    if instance.datapath is Datapath.USERSPACE:
        # In the kernel datapath this is where Open vSwitch itself gets its packets.
        found += [Hook(nic6, "ingress", "hide"), Hook(nic4, "ingress", "hide")]
    return tuple(found)


def attach(instance: Instance) -> None:
    """Attach the shim, or bring an attached one up to date: its addresses in place, its programs
    by replacing them without a gap. Raises ShimError; what was attached then stays."""
    _require_root()
    source = resources.files("ryu_lw4o6.softwire").joinpath("softwire.bpf.c").read_bytes()
    wanted = hooks(instance)
    for device in dict.fromkeys(hook.device for hook in wanted):
        _refuse_foreign_xdp(device, wanted)
    maps = _maps(instance)
    if maps is not None and _is_current(instance, maps, source):
        _fill(instance, maps, _digest(source))
    else:
        _load_and_attach(instance, _compile(source), _digest(source))
    _set_mtu(instance.ipv6.port, instance.ipv6.mtu + ADDED)


def detach(instance: Instance) -> None:
    """Take the shim off; nothing happens where it is not attached. Raises ShimError."""
    _require_root()
    wanted = hooks(instance)
    devices = [d for d in dict.fromkeys(h.device for h in wanted) if _exists(d)]
    for hook in wanted:
        if hook.device not in devices or not _program(hook):
            continue
        if hook.kind == "xdp":
            mode = "xdpgeneric" if _xdp(hook.device).get("mode") == 2 else "xdpdrv"
            _run("ip", "link", "set", "dev", hook.device, mode, "off")
        else:
            _run("tc", "filter", "del", "dev", hook.device, hook.kind, "pref", _PREF)
    for device in devices:
        has_qdisc = any(
            q.get("kind") == "clsact" for q in _json("tc", "-j", "qdisc", "show", "dev", device)
        )
        if has_qdisc and not any(
            _json("tc", "-j", "filter", "show", "dev", device, kind)
            for kind in ("ingress", "egress")
        ):
            _run("tc", "qdisc", "del", "dev", device, "clsact")
    if instance.ipv6.port in devices:
        _set_mtu(instance.ipv6.port, instance.ipv6.mtu)


def status(instance: Instance) -> ShimStatus:
    """What is attached now, and its counters. Raises ShimError."""
    _require_root()
    source = resources.files("ryu_lw4o6.softwire").joinpath("softwire.bpf.c").read_bytes()
    found = []
    for hook in hooks(instance):
        program = _program(hook) if _exists(hook.device) else None
        mode = ""
        if program and hook.kind == "xdp":
            mode = "generic" if _xdp(hook.device).get("mode") == 2 else "native"
        found.append(HookStatus(hook, program is not None, mode))
    maps = _maps(instance) if _exists(instance.ipv6.port) else None
    if maps is None:
        return ShimStatus(tuple(found), False, (), {})
    rows = _json("bpftool", "-j", "map", "dump", "id", str(maps["aftr_addresses"]))
    addresses = sorted(IPv6Address(_bytes(row["key"])) for row in rows)
    return ShimStatus(
        tuple(found), _has_digest(maps, source), tuple(addresses), _counters(maps["counters"])
    )


# --- loading --------------------------------------------------------------------------------------


def _digest(source: bytes) -> bytes:
    return hashlib.sha256(source + " ".join(_FLAGS).encode()).digest()[:8]


def _compile(source: bytes) -> Path:
    """The compiled programs, from the cache if they have been compiled before."""
    target = CACHE / f"softwire-{_digest(source).hex()}.o"
    if target.exists():
        return target
    CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as directory:
        c_file, o_file = Path(directory, "softwire.bpf.c"), Path(directory, "softwire.o")
        c_file.write_bytes(source)
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


def _load_and_attach(instance: Instance, compiled: Path, digest: bytes) -> None:
    with _bpf_file_system() as mounted:
        pins = mounted / "shim"
        _run(
            "bpftool", "prog", "loadall", str(compiled), str(pins),
            failure="the kernel refused the shim's programs",
            suggestion="It needs Linux 5.10 or newer with CONFIG_BPF_JIT and CONFIG_NET_CLS_BPF",
        )  # fmt: skip
        maps: dict[str, int] = {}
        for program in pins.iterdir():
            maps |= _maps_of(_json("bpftool", "-j", "prog", "show", "pinned", str(program)))
        _fill(instance, maps, digest)
        for hook in hooks(instance):
            pin = str(pins / hook.program)
            if hook.kind == "xdp":
                _attach_xdp(hook.device, pin)
            else:
                _attach_tc(hook.device, hook.kind, pin)


def _attach_xdp(device: str, pin: str) -> None:
    attached = _xdp(device)
    if attached.get("mode") != 2:
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
    if not any(
        q.get("kind") == "clsact" for q in _json("tc", "-j", "qdisc", "show", "dev", device)
    ):
        _run(
            "tc", "qdisc", "add", "dev", device, "clsact",
            failure=f"{device} takes no clsact qdisc",
            suggestion="Use a kernel with CONFIG_NET_SCH_INGRESS, or remove its ingress qdisc",
        )  # fmt: skip
    _run(
        "tc", "filter", "replace", "dev", device, kind, "pref", _PREF, "handle", "1",
        "bpf", "da", "object-pinned", pin,
        failure=f"{device} takes no BPF filter at {kind}",
        suggestion="Use a kernel with CONFIG_NET_CLS_BPF",
    )  # fmt: skip


def _fill(instance: Instance, maps: dict[str, int], digest: bytes) -> None:
    """Write the instance's addresses; remove those that are no longer its own."""
    addresses = instance.aftr_addresses
    _replace(maps["aftr_addresses"], {a.packed: b"\1" for a in addresses})
    _replace(
        maps["br_addresses"],
        {br_tag(a).to_bytes(4, sys.byteorder): a.packed for a in addresses},
    )
    _update(maps["settings"], bytes(4), _mac(instance.ipv4.port) + bytes(2) + digest)


# --- looking ----------------------------------------------------------------------------------


def _exists(device: str) -> bool:
    return Path("/proc/self/net/dev").read_text().find(f"{device}:") >= 0


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


def _set_mtu(device: str, mtu: int) -> None:
    if _link(device)["mtu"] != mtu:
        _run(
            "ip", "link", "set", "dev", device, "mtu", str(mtu),
            failure=f"{device} does not take an MTU of {mtu}",
            suggestion=f"Lower ipv6.mtu: the shim needs {ADDED} bytes more than the wire",
        )  # fmt: skip


def _program(hook: Hook) -> int | None:
    """The id of our program at a hook, None if it is not there."""
    if hook.kind == "xdp":
        program = _xdp(hook.device).get("prog", {})
        ours = program.get("name") == hook.program
        return int(program["id"]) if ours else None
    for row in _json("tc", "-j", "filter", "show", "dev", hook.device, hook.kind):
        if str(row.get("pref")) == _PREF and "prog" in row.get("options", {}):
            return int(row["options"]["prog"]["id"])
    return None


def _refuse_foreign_xdp(device: str, wanted: Iterable[Hook]) -> None:
    ours = {hook.program for hook in wanted}
    name = _xdp(device).get("prog", {}).get("name")
    if name is not None and name not in ours:
        raise ShimError(
            f"{device} already has another XDP program ({name})",
            f"Take it off if it is not needed: ip link set dev {device} xdp off",
        )


def _maps_of(program: dict[str, Any]) -> dict[str, int]:
    found = {}
    for number in program.get("map_ids", []):
        name = _json("bpftool", "-j", "map", "show", "id", str(number)).get("name", "")
        found[name] = int(number)
    return found


def _maps(instance: Instance) -> dict[str, int] | None:
    """The maps of the attached shim by name; None if it is not attached as a whole."""
    maps: dict[str, int] = {}
    for hook in hooks(instance):
        program = _program(hook)
        if program is None:
            return None
        maps |= _maps_of(_json("bpftool", "-j", "prog", "show", "id", str(program)))
    return maps


def _has_digest(maps: dict[str, int], source: bytes) -> bool:
    rows = _json("bpftool", "-j", "map", "dump", "id", str(maps["settings"]))
    return _bytes(rows[0]["value"])[8:] == _digest(source)


def _is_current(instance: Instance, maps: dict[str, int], source: bytes) -> bool:
    return {"aftr_addresses", "br_addresses", "settings", "counters"} <= set(maps) and _has_digest(
        maps, source
    )


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
