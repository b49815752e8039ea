"""Makes an Open vSwitch bridge ready for an instance: ports, addresses, routes, the shim.

What is to be run is planned first, as values, and then run in the network namespace and against
the ovsdb-server (``OVS_RUNDIR``) of whoever calls.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from ryu_lw4o6 import local_port, vswitchd
from ryu_lw4o6.core.errors import AdvisedError
from ryu_lw4o6.core.settings import Datapath, Instance
from ryu_lw4o6.softwire import shim
from ryu_lw4o6.softwire.commands import ShimError
from ryu_lw4o6.softwire.nic import nic_mtu

DEFAULT_CONTROLLER = "tcp:127.0.0.1:6653"
RECONNECT_SECONDS = 1
PROBE_SECONDS = 10
"""After so long without a word from the controller Open vSwitch asks, and after as long again
without an answer it reconnects."""
_OFFLOADS = ("rx", "tx", "gro", "gso", "tso", "rxvlan", "txvlan")
_OVS_SECONDS = "20"


class SwitchSetupError(AdvisedError):
    """The bridge cannot be built, or taken apart."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command to run. One that ``may_fail`` is a courtesy, such as an offload a NIC lacks."""

    command: tuple[str, ...]
    may_fail: bool = False


class Row(NamedTuple):
    """One thing there is, for people; ``good`` if it is as it should be."""

    what: str
    state: str
    good: bool = True


def _step(*command: str, may_fail: bool = False) -> Step:
    return Step(command, may_fail)


def _sysctl(name: str, value: str, *, may_fail: bool = False) -> Step:
    return _step("sh", "-c", f"echo {value} > /proc/sys/net/{name}", may_fail=may_fail)


def _nics(instance: Instance) -> list[str]:
    """The NICs of both sides, once if they share one."""
    return list(dict.fromkeys((instance.ipv6.port, instance.ipv4.port)))


def prepare_nics(instance: Instance) -> Iterator[Step]:
    """The NICs carry frames for Open vSwitch and nothing of their own."""
    for nic in _nics(instance):
        for offload in _OFFLOADS:
            yield _step("ethtool", "-K", nic, offload, "off", may_fail=True)
        # A link-local address on the NIC would make it a tunnel endpoint of Open vSwitch.
        yield _sysctl(f"ipv6/conf/{nic}/disable_ipv6", "1")
        yield _step("ip", "link", "set", "dev", nic, "up")


def build_bridge(instance: Instance, hwaddr: str) -> Iterator[Step]:
    """The bridge with its three ports. LOCAL has the IPv6 NIC's MAC address, for good."""
    bridge, softwire = instance.bridge, instance.softwire_port
    yield _step(
        "ovs-vsctl", f"--timeout={_OVS_SECONDS}",
        "--may-exist", "add-br", bridge,
        "--", "set", "bridge", bridge,
        f"datapath_type={instance.datapath}", "fail_mode=secure", "protocols=OpenFlow13",
        f"other-config:datapath-id={instance.datapath_id:016x}",
        "other-config:disable-in-band=true", f'other-config:hwaddr="{hwaddr}"',
        "--", "--may-exist", "add-port", bridge, instance.ipv6.port,
        "--", "--may-exist", "add-port", bridge, instance.ipv4.port,
        "--", "--may-exist", "add-port", bridge, softwire,
        "--", "set", "interface", softwire, "type=ip6gre", "options:remote_ip=flow",
        # The shim copies the TOS: inherited here, it would be a part of every datapath flow.
        "options:local_ip=flow", "options:tos=0", f"options:ttl={instance.ipv6.hop_limit}",
        "--", "set", "interface", bridge, f"mtu_request={local_mtu(instance)}",
    )  # fmt: skip


def let_go(bridge: str, nics: Sequence[str]) -> Iterator[Step]:
    """Take NICs out of the bridge, to be added anew."""
    for nic in nics:
        yield _step("ovs-vsctl", f"--timeout={_OVS_SECONDS}", "del-port", bridge, nic)


def local_mtu(instance: Instance) -> int:
    """The kernel's datapath checks a packet's GRE form, before the shim makes fragments of it,
    against LOCAL's MTU; the userspace datapath checks nothing."""
    if instance.datapath is Datapath.KERNEL:
        return nic_mtu(instance)
    return instance.ipv6.mtu


def address_local(instance: Instance) -> Iterator[Step]:
    """LOCAL has its addresses, and the way to lwB4s leads through it."""
    bridge = instance.bridge
    # It is a router: others on the link do not tell it where to send (RFC 4861 section 8.2).
    for told in ("accept_ra", "accept_redirects"):
        yield _sysctl(f"ipv6/conf/{bridge}/{told}", "0")
    yield _step("ip", "link", "set", "dev", bridge, "up")
    for address in local_port.addresses(instance):
        yield _step("ip", "addr", "replace", str(address), "dev", bridge, "nodad")
    if instance.ipv6.next_hop is not None:
        yield _step(
            "ip", "-6", "route", "replace", "default", "via", str(instance.ipv6.next_hop),
            "dev", bridge,
        )  # fmt: skip


def connect(instance: Instance, controller: str) -> Iterator[Step]:
    ovs_vsctl = "ovs-vsctl", f"--timeout={_OVS_SECONDS}"
    yield _step(*ovs_vsctl, "set-controller", instance.bridge, controller)
    # ovs-vswitchd heeds some of these only when they change on a connection that is up.
    yield _step(
        *ovs_vsctl, "set", "controller", instance.bridge,
        f"max_backoff={RECONNECT_SECONDS * 1000}", "connection_mode=out-of-band",
        f"inactivity_probe={PROBE_SECONDS * 1000}",
    )  # fmt: skip


def remove_bridge(instance: Instance) -> Iterator[Step]:
    yield _step("ovs-vsctl", f"--timeout={_OVS_SECONDS}", "--if-exists", "del-br", instance.bridge)


def dismantle(instance: Instance) -> Iterator[Step]:
    yield from remove_bridge(instance)
    for nic in _nics(instance):
        for offload in _OFFLOADS:
            yield _step("ethtool", "-K", nic, offload, "on", may_fail=True)
        yield _sysctl(f"ipv6/conf/{nic}/disable_ipv6", "0", may_fail=True)


def up(instance: Instance, controller: str = DEFAULT_CONTROLLER) -> None:
    """Build everything, or bring it in line; safe to run again while traffic flows.

    Raises SwitchSetupError and ShimError.
    """
    _require_database()
    _require_vswitchd()
    _require_default_route(instance)
    hwaddr = _nic_mac(instance.ipv6.port)
    _nic_mac(instance.ipv4.port)
    _run(prepare_nics(instance))
    shim.attach(instance)
    if not _link(instance.bridge):  # somebody has deleted it, which Open vSwitch does not mend
        _run(remove_bridge(instance))
    _run(let_go(instance.bridge, _unread(instance)))
    _run(build_bridge(instance, hwaddr))
    require_local(instance)
    with contextlib.suppress(OSError):  # a container may not let us; status shows what there is
        vswitchd.prepare(_packet_ports(instance))
    _run(address_local(instance))
    # Setting the same controller again would drop the connection.
    if _output("ovs-vsctl", "get-controller", instance.bridge) != controller:
        _run(connect(instance, controller))


def _packet_ports(instance: Instance) -> list[str]:
    """The NICs that ovs-vswitchd itself reads."""
    if instance.datapath is Datapath.KERNEL:
        return []
    return _nics(instance)


def _ports(bridge: str) -> list[str]:
    return _output("ovs-vsctl", "list-ports", bridge).split()


def _unread(instance: Instance) -> list[str]:
    """NICs in the bridge that ovs-vswitchd does not read: one that was away and has come back is
    another one to the kernel, which Open vSwitch does not notice."""
    buffers = _buffers(instance)
    if buffers is None:
        return []
    ports = _ports(instance.bridge)
    return [nic for nic in _packet_ports(instance) if nic in ports and nic not in buffers]


def _buffers(instance: Instance) -> dict[str, int] | None:
    """The receive buffers of the NICs that ovs-vswitchd reads; None if nobody lets us know."""
    try:
        return vswitchd.sizes(_packet_ports(instance))
    except OSError:
        return None


def down(instance: Instance) -> None:
    """Take everything apart. Raises SwitchSetupError and ShimError."""
    _require_database()
    _run(dismantle(instance))
    shim.detach(instance)


def status(instance: Instance) -> list[Row]:
    """What there is."""
    _require_database()
    bridge = instance.bridge
    if bridge not in _output("ovs-vsctl", "list-br").split():
        return [Row("bridge", f"{bridge} does not exist; run lw4o6 switch up", good=False)]
    rows = [Row("bridge", f"{bridge} ({instance.datapath})")]
    # The database goes on saying what ovs-vswitchd has told it last.
    if not _vswitchd_answers():
        rows.append(Row("ovs-vswitchd", "DOES NOT ANSWER; the rest may be out of date", good=False))
    rows += _port_rows(instance)
    with contextlib.suppress(ShimError):
        lost = ", ".join(local_port.missing(instance))
        rows.append(Row("addresses", f"MISSING: {lost}" if lost else "all there", good=not lost))
    controller = _output("ovs-vsctl", "get-controller", bridge)
    connected = _output("ovs-vsctl", "--bare", "--columns=is_connected", "list", "controller")
    good = "true" in connected.split()
    state = f"{controller}: {'connected' if good else 'not connected'}" if controller else "none"
    rows.append(Row("controller", state, good=good))
    attached = shim.status(instance).attached
    state = "attached" if attached else "NOT ATTACHED"
    return [*rows, Row("softwire shim", state, good=attached)]


def _port_rows(instance: Instance) -> Iterator[Row]:
    ports, unread = _ports(instance.bridge), _unread(instance)
    buffers = _buffers(instance) or {}
    for port in (*_nics(instance), instance.softwire_port):
        error = _output("ovs-vsctl", "get", "interface", port, "error").strip('"[]')
        if port not in ports:
            error = "MISSING"
        elif port in unread and not error:
            error = "NOT READ by ovs-vswitchd"
        state = error or "up"
        if port in buffers:
            state += f", receive buffer {buffers[port] >> 10} KiB"
        yield Row(f"port {port}", state, good=not error)


def _require_database() -> None:
    try:
        done = subprocess.run(
            ["ovs-vsctl", "--timeout=5", "list-br"], capture_output=True, text=True
        )
    except FileNotFoundError:
        raise SwitchSetupError(
            "Open vSwitch is not installed", "Install it: apt-get install openvswitch-switch"
        ) from None
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1]
        raise SwitchSetupError(
            f"Open vSwitch does not answer: {reason}",
            "Are you root?" if "Permission denied" in reason
            else "Start ovsdb-server and ovs-vswitchd, or set OVS_RUNDIR to where they run",
        )  # fmt: skip


def _vswitchd_answers() -> bool:
    return bool(_output("ovs-appctl", "--timeout=5", "version"))


def _require_vswitchd() -> None:
    """What it is to do is waited for, and half of it would be done when it starts."""
    if not _vswitchd_answers():
        raise SwitchSetupError("ovs-vswitchd does not answer", "Start it: ovs-ctl start")


def _require_default_route(instance: Instance) -> None:
    """Softwires take the machine's IPv6 default route, which must not be somebody else's: whoever
    manages the machine may have come by it, and Open vSwitch would take either. What its NICs have
    ends with their own IPv6."""
    if instance.ipv6.next_hop is None:
        return
    routes = _output("ip", "-6", "-o", "route", "show", "default").split()
    devices = {after for word, after in pairwise(routes) if word == "dev"}
    others = devices - {"lo", instance.bridge, instance.ipv6.port, instance.ipv4.port}
    if others:
        device = min(others)
        raise SwitchSetupError(
            f"the machine's IPv6 default route is by {device}, and softwires need it by "
            f"{instance.bridge}",
            f"Give what uses {device} routes of its own, or a VRF, and remove this one: "
            f"ip -6 route del default dev {device}",
        )


def require_local(instance: Instance) -> None:
    """ovs-vsctl does not mind if Open vSwitch could not make the bridge's own port."""
    if not _link(instance.bridge):
        modules = "Load the modules openvswitch, vport-gre and ip6_gre, or use datapath: netdev"
        kernel = instance.datapath is Datapath.KERNEL
        raise SwitchSetupError(
            f"Open vSwitch has made no interface {instance.bridge}",
            modules if kernel else "See its log, ovs-vswitchd.log",
        )


def _nic_mac(nic: str) -> str:
    link = _link(nic)
    if not link:
        raise SwitchSetupError(f"there is no interface {nic}", "See ip link for those there are")
    return link[2]


def _link(name: str) -> list[str]:
    """Name, state and MAC address; nothing if there is no such interface."""
    # Not from /sys, which may show the NICs of another network namespace.
    return _output("ip", "-br", "link", "show", "dev", name).split()


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def _run(steps: Iterator[Step]) -> None:
    for step in steps:
        try:
            done = subprocess.run(step.command, capture_output=True, text=True)
        except FileNotFoundError:
            if step.may_fail:
                continue
            raise SwitchSetupError(
                f"{step.command[0]} is not installed", "Install its Debian package"
            ) from None
        if done.returncode and not step.may_fail:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            hint = "Are you root?" if "permitted" in lines[-1] else "Try that command by itself"
            raise SwitchSetupError(f"{' '.join(step.command)}: {lines[-1].rstrip('.')}", hint)
