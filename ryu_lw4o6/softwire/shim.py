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
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path

from ryu_lw4o6.core.settings import Instance
from ryu_lw4o6.softwire import maps, nic, source
from ryu_lw4o6.softwire.commands import ShimError, read, require_root, run
from ryu_lw4o6.softwire.maps import Maps, Notes
from ryu_lw4o6.softwire.nic import Hook

RUN = Path("/run")


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


def attach(instance: Instance) -> None:
    """Attach the shim, or bring an attached one up to date: its addresses in place, its programs
    by replacing them without a gap.

    Raises ShimError. A shim that was attached before then stays, one that was not is taken off.
    """
    require_root()
    text = source.source()
    wanted = source.digest(text)
    for device in nic.devices(instance):
        nic.refuse_foreign_programs(device)
    own, found = maps.of_instance(instance), maps.notes(instance)
    if own is not None and maps.digest(own) == wanted:
        maps.fill(instance, own)
        nic.raise_mtu(instance)
    else:
        notes = _new_notes(instance, wanted, found)
        programs = source.compiled(text)
        try:
            _load_and_attach(instance, programs, notes)
            nic.raise_mtu(instance)
        except ShimError:
            if found is None:
                with contextlib.suppress(ShimError):
                    _take_off(instance, notes)
            raise
    for hook in set(nic.all_hooks(instance)) - set(nic.hooks(instance)):
        _remove(hook)


def detach(instance: Instance) -> None:
    """Take the shim off, and restore the MTU; nothing happens where it is not attached. Raises
    ShimError."""
    require_root()
    notes = maps.notes(instance)
    if notes is not None:
        _take_off(instance, notes)


def status(instance: Instance) -> ShimStatus:
    """What is attached now, and its counters. Raises ShimError."""
    require_root()
    found = []
    own: Maps = {}
    for hook in nic.hooks(instance):
        program = nic.program(hook) if nic.exists(hook.device) else None
        mode = ""
        if program is not None:
            own = maps.of_program(program) | own
            if hook.kind == "xdp":
                mode = "generic" if nic.xdp(hook.device).get("mode") == nic.GENERIC else "native"
        found.append(HookStatus(hook, program is not None, mode))
    return ShimStatus(
        tuple(found),
        "settings" in own and maps.digest(own) == source.digest(source.source()),
        maps.addresses(own["aftr_addresses"]) if "aftr_addresses" in own else (),
        maps.counters(own["counters"]) if "counters" in own else {},
    )


def counters(instance: Instance) -> dict[str, int]:
    """The counters of the attached shim. Raises ShimError, also when there is none."""
    return maps.counters(counters_map(instance))


def counters_map(instance: Instance) -> int:
    """The map they are in. Raises ShimError."""
    require_root()
    hook = nic.hooks(instance)[0]
    program = nic.program(hook)
    own = {} if program is None else maps.of_program(program)
    if "counters" not in own:
        raise ShimError(
            f"the shim is not attached to {hook.device}", "Run lw4o6 softwire attach there"
        )
    return own["counters"]


# --- loading --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _bpf_file_system() -> Iterator[Path]:
    directory = tempfile.mkdtemp(prefix="lw4o6-bpf-", dir=RUN)
    try:
        run(
            "mount", "-t", "bpf", "bpf", directory,
            failure="the kernel has no BPF file system",
            suggestion="Use a kernel with CONFIG_BPF_SYSCALL, and run where mounting is allowed",
        )  # fmt: skip
        try:
            yield Path(directory)
        finally:
            run("umount", directory)
    finally:
        os.rmdir(directory)


def _load_and_attach(instance: Instance, compiled: Path, notes: Notes) -> None:
    with _bpf_file_system() as mounted:
        pins = mounted / "shim"
        run(
            "bpftool", "prog", "loadall", str(compiled), str(pins),
            failure="the kernel refused the shim's programs",
            suggestion="It needs Linux 5.10 or newer with CONFIG_BPF_JIT and CONFIG_NET_CLS_BPF",
        )  # fmt: skip
        own: Maps = {}
        for program in pins.iterdir():
            own |= maps.of_description(
                read("bpftool", "-j", "prog", "show", "pinned", str(program))
            )
        maps.fill(instance, own, notes)
        for device in nic.devices(instance):
            if not nic.has_clsact(device):
                run(
                    "tc", "qdisc", "add", "dev", device, "clsact",
                    failure=f"{device} takes no clsact qdisc",
                    suggestion="Use a kernel with CONFIG_NET_SCH_INGRESS, or remove its "
                    "ingress qdisc",
                )  # fmt: skip
        for hook in nic.hooks(instance):
            pin = str(pins / hook.program)
            if hook.kind == "xdp":
                _attach_xdp(hook.device, pin)
            else:
                _attach_tc(hook.device, hook.kind, pin)


def _attach_xdp(device: str, pin: str) -> None:
    attached = nic.xdp(device)
    if attached.get("mode") != nic.GENERIC:
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
    run(
        "ip", "-force", "link", "set", "dev", device, "xdpgeneric", "pinned", pin,
        failure=f"{device} takes no XDP program",
        suggestion="Use a kernel with CONFIG_BPF_SYSCALL and an MTU below 3500",
    )  # fmt: skip


def _attach_tc(device: str, kind: str, pin: str) -> None:
    run(
        "tc", "filter", "replace", "dev", device, kind, "pref", nic.PREF, "handle", "1",
        "bpf", "da", "object-pinned", pin,
        failure=f"{device} takes no BPF filter at {kind}",
        suggestion="Use a kernel with CONFIG_NET_CLS_BPF",
    )  # fmt: skip


def _take_off(instance: Instance, notes: Notes) -> None:
    for hook in reversed(nic.all_hooks(instance)):
        if nic.exists(hook.device):
            _remove(hook)
    for bit, device in enumerate(nic.devices(instance)):
        ours = notes.clsact_made & 1 << bit and nic.exists(device) and nic.has_clsact(device)
        if ours and not nic.filters(device):
            run("tc", "qdisc", "del", "dev", device, "clsact")
    if nic.exists(instance.ipv6.port):
        nic.set_mtu(instance.ipv6.port, notes.mtu_before)


def _remove(hook: Hook) -> None:
    if nic.program(hook) is None:
        return
    if hook.kind == "xdp":
        mode = "xdpgeneric" if nic.xdp(hook.device).get("mode") == nic.GENERIC else "xdpdrv"
        run("ip", "link", "set", "dev", hook.device, mode, "off")
    else:
        run("tc", "filter", "del", "dev", hook.device, hook.kind, "pref", nic.PREF)


def _new_notes(instance: Instance, digest: bytes, before: Notes | None) -> Notes:
    mtu = before.mtu_before if before else nic.mtu(instance.ipv6.port)
    made = before.clsact_made if before else 0
    for bit, device in enumerate(nic.devices(instance)):
        made |= (not nic.has_clsact(device)) << bit
    return Notes(digest, mtu, made)
