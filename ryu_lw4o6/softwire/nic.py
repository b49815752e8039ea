"""The NICs that the shim sits on: which programs are where, and what else there is to know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ryu_lw4o6.core.settings import IPV6_HEADER, Datapath, Instance
from ryu_lw4o6.softwire.commands import ShimError, read, run

ADDED = 18
"""Bytes by which a frame is longer between Open vSwitch and the shim than on the wire. The NIC's
MTU is set higher by as much: the kernel checks it before the shim has its turn."""

PREF = "4606"
"""Our place among a NIC's tc filters."""
GENERIC = 2
"""Of the XDP modes that ip -j reports."""
_PROGRAMS = (("egress", "softwire_out"), ("xdp", "softwire_in"), ("ingress", "hide"))


@dataclass(frozen=True, slots=True)
class Hook:
    """One place on a NIC where a program sits. ``kind`` is xdp, egress or ingress."""

    device: str
    kind: str
    program: str


def devices(instance: Instance) -> tuple[str, ...]:
    """The IPv6 side's NIC and the IPv4 side's, once if it is the same."""
    return tuple(dict.fromkeys((instance.ipv6.port, instance.ipv4.port)))


def hooks(instance: Instance) -> tuple[Hook, ...]:
    """Where the shim's programs go for this instance, in the order in which they are attached:
    what comes in is made ready for what goes out."""
    if instance.datapath is Datapath.USERSPACE:
        return all_hooks(instance)
    # In the kernel datapath, tc ingress is where Open vSwitch itself gets its packets.
    return tuple(hook for hook in all_hooks(instance) if hook.kind != "ingress")


def all_hooks(instance: Instance) -> tuple[Hook, ...]:
    """The same for either datapath."""
    return tuple(Hook(nic, *program) for program in _PROGRAMS for nic in devices(instance))


def program(hook: Hook) -> int | None:
    """The id of our program at a hook, None if it is not there."""
    if hook.kind == "xdp":
        found = xdp(hook.device).get("prog", {})
    else:
        found = _filter_at_our_place(hook.device, hook.kind).get("prog", {})
    return int(found["id"]) if found.get("name") == hook.program else None


def exists(device: str) -> bool:
    # Not from /sys, which may show the NICs of another network namespace.
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
    return device in (line.rpartition(":")[0].strip() for line in lines)


def xdp(device: str) -> dict[str, Any]:
    found: dict[str, Any] = _link(device).get("xdp", {})
    return found


def mac(device: str) -> bytes:
    return bytes.fromhex(_link(device)["address"].replace(":", ""))


def _link(device: str) -> dict[str, Any]:
    if not exists(device):
        raise ShimError(f"there is no interface {device}", "See ip link for those there are")
    link: dict[str, Any] = read("ip", "-j", "-d", "link", "show", "dev", device)[0]
    return link


# --- MTU --------------------------------------------------------------------------------------


def nic_mtu(instance: Instance) -> int:
    """What the IPv6 side's NIC has to take: a packet from the Internet is whole until the shim
    puts it into fragments."""
    return max(instance.ipv6.mtu, instance.ipv4.mtu + IPV6_HEADER) + ADDED


def mtu(device: str) -> int:
    return int(_link(device)["mtu"])


def raise_mtu(instance: Instance) -> None:
    needed = nic_mtu(instance)
    if mtu(instance.ipv6.port) < needed:
        set_mtu(instance.ipv6.port, needed)


def set_mtu(device: str, value: int) -> None:
    if mtu(device) != value:
        run(
            "ip", "link", "set", "dev", device, "mtu", str(value),
            failure=f"{device} does not take an MTU of {value}",
            suggestion=f"Lower ipv6.mtu or ipv4.mtu: a softwire packet has {IPV6_HEADER} bytes "
            f"more than the IPv4 packet in it, and the shim needs another {ADDED}",
        )  # fmt: skip


# --- tc ---------------------------------------------------------------------------------------


def has_clsact(device: str) -> bool:
    qdiscs = read("tc", "-j", "qdisc", "show", "dev", device)
    return any(qdisc.get("kind") == "clsact" for qdisc in qdiscs)


def filters(device: str) -> list[Any]:
    return [
        row
        for kind in ("ingress", "egress")
        for row in read("tc", "-j", "filter", "show", "dev", device, kind)
    ]


def _filter_at_our_place(device: str, kind: str) -> dict[str, Any]:
    for row in read("tc", "-j", "filter", "show", "dev", device, kind):
        if str(row.get("pref")) == PREF and "options" in row:
            options: dict[str, Any] = row["options"]
            return options
    return {}


def refuse_foreign_programs(device: str) -> None:
    """Raises ShimError if somebody else's programs are where ours are to go."""
    ours = {name for _, name in _PROGRAMS}
    name = xdp(device).get("prog", {}).get("name")
    if name is not None and name not in ours:
        raise ShimError(
            f"{device} already has another XDP program ({name})",
            f"Take it off if it is not needed: ip link set dev {device} xdp off",
        )
    for kind in ("ingress", "egress"):
        options = _filter_at_our_place(device, kind)
        if options and options.get("prog", {}).get("name") not in ours:
            raise ShimError(
                f"{device} already has another tc filter with pref {PREF} at {kind}",
                "Give that filter another pref; the shim needs this one",
            )
