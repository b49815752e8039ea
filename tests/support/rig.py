"""A whole lwAFTR between two wires: Open vSwitch, shim and ryu-manager as they are run, and a
router with a raw socket at the far end of either NIC."""

from __future__ import annotations

import contextlib
import platform
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ryu_lw4o6.core.config import load
from ryu_lw4o6.core.ethernet import mac_bytes
from ryu_lw4o6.core.settings import Instance
from ryu_lw4o6.softwire import shim
from tests.support.controller import BIN, Controller
from tests.support.netns import Wire, inside, namespace
from tests.support.ovs import Ovs, run, wait_for

NIC6, ROUTER6 = "02:00:00:00:06:01", "02:00:00:00:06:fe"
NIC4, ROUTER4 = "02:00:00:00:04:01", "02:00:00:00:04:fe"
IPV6, NEXT_HOP6 = "2001:db8:1::1", "2001:db8:1::fe"
IPV4, NEXT_HOP4 = "198.51.100.1", "198.51.100.254"

CONFIG = """\
store: sqlite:///{directory}/bindings.sqlite
prefixes:
  - {{prefix: 192.0.2.0/24, psid_offset: 6, psid_length: 6}}
  - {{prefix: 198.18.0.0/30, psid_offset: 0, psid_length: 4}}
  - {{prefix: 203.0.113.0/29}}
bindings:
  - {{lwb4: "2001:db8:b4::1", ipv4: 192.0.2.1, psid: 3}}
  - {{lwb4: "2001:db8:b4::2", ipv4: 192.0.2.1, psid: 4}}
  - {{lwb4: "2001:db8:b4::3", ipv4: 203.0.113.1}}
  - {{lwb4: "2001:db8:b4::4", ipv4: 198.18.0.1, psid: 15, br_address: "2001:db8:ffff::2"}}
instances:
  - name: lwaftr1
    datapath_id: 1
    bridge: br0
    aftr_addresses: ["2001:db8:ffff::1", "2001:db8:ffff::2"]
    ipv6: {{port: eth6, address: "2001:db8:1::1/64", next_hop: "2001:db8:1::fe", mtu: 1500}}
    ipv4: {{port: eth4, address: 198.51.100.1/24, next_hop: 198.51.100.254}}
"""

ROUTINE = {
    "translated_in", "translated_out", "passed_in", "marked_in", "source_restored",
    "hidden_from_kernel",
}  # fmt: skip
"""Counters of the shim that count what it always does; neighbour discovery moves them as well."""


def in_vlans(config: str, vlan6: int, vlan4: int) -> str:
    """A configuration with a VLAN on either side, 0 for none."""
    for side, vlan in (("ipv6", vlan6), ("ipv4", vlan4)):
        if vlan:
            config = config.replace(f"{side}: {{{{", f"{side}: {{{{vlan: {vlan}, ")
    return config


def tag(device: str, vlans: tuple[int, int], directory: Path) -> None:
    """Let the kernel at this end of a wire send and receive tagged frames (tags.c)."""
    target = str(directory / "tags.o")
    run(
        "clang", "-O2", "-g", "-target", "bpf",
        f"-I/usr/include/{platform.machine()}-linux-gnu",
        f"-DVLAN6={vlans[0]}", f"-DVLAN4={vlans[1]}",
        "-c", str(Path(__file__).with_name("tags.c")), "-o", target,
    )  # fmt: skip
    # A tag that is not in the frame is one that XDP at the other end does not see.
    run("ethtool", "-K", device, "txvlan", "off")
    run("tc", "qdisc", "add", "dev", device, "clsact")
    for kind in ("ingress", "egress"):
        run("tc", "filter", "add", "dev", device, kind, "bpf", "da", "obj", target, "sec", kind)


class Rig:
    """``wire6`` and ``wire4`` are the far ends of the NICs; ``router`` is the namespace that
    ``wire6`` is in. It is ready when its next hops are ``resolved``, if they can be.

    ``vlans`` are the tags on either wire, 0 for none. On a ``stick`` there is one NIC and one wire,
    on which ``wire4`` shows what belongs to its VLAN, under addresses of its own. One that
    ``purges`` brings its counters up to date by emptying the datapath, which is quick.
    """

    router: str

    def __init__(
        self, config: str = CONFIG, *, resolved: bool = True,
        vlans: tuple[int, int] = (0, 0), stick: bool = False, purges: bool = False,
    ) -> None:  # fmt: skip
        self._exits = contextlib.ExitStack()
        self.routers: dict[str, str] = {}
        self._instance: Instance | None = None
        self._purges = purges
        self._counted = -1  # how many frames had been sent when the counters were last read
        self._last: tuple[Counter[str], Counter[str]] | None = None
        try:
            self.ovs = Ovs()
            self._exits.callback(self.ovs.stop)
            self.controller = Controller(self.ovs, config)
            # It takes a second or two to start: beside what else is to be done.
            self._exits.callback(self.controller.kill)
            self.controller.launch()
            self._vlans = vlans
            self.wire6 = self._wire("6", NIC6, ROUTER6, NEXT_HOP6 + "/64", vlans[0], stick)
            if stick:
                self.wire4 = self._same_wire(vlans[1])
            else:
                self.wire4 = self._wire("4", NIC4, ROUTER4, NEXT_HOP4 + "/24", vlans[1], False)
            # Counters are brought up to date every 100 instead of every 500 ms.
            self.ovs("ovs-vsctl", "--no-wait", "set", "Open_vSwitch", ".",
                     "other_config:max-revalidator=100")  # fmt: skip
            self.lw4o6("switch", "up")
            self.controller.wait()
            if resolved:
                wait_for("both next hops are known", self.neighbours_known)
        except BaseException:
            self.stop()
            raise

    def lw4o6(self, *command: str) -> str:
        return self.ovs(str(BIN / "lw4o6"), *command, str(self.controller.config))

    def _wire(
        self, side: str, nic_mac: str, router_mac: str, address: str, vlan: int, stick: bool
    ) -> Wire:
        """A NIC of the lwAFTR, and a router in a namespace of its own at the other end."""
        self.routers[side] = router = self._exits.enter_context(namespace())
        if side == "6":
            self.router = router
        # No duplicate address detection, and no IPv6 where only IPv4 is at home.
        setting = "accept_dad=0" if side == "6" else "disable_ipv6=1"
        for scope in ("all", "default"):
            name = f"net.ipv6.conf.{scope}.{setting}"
            run("ip", "netns", "exec", router, "sysctl", "-qw", name)
        run(
            "ip", "link", "add", f"eth{side}", "address", nic_mac, "netns", self.ovs.name,
            "type", "veth", "peer", "name", f"wire{side}", "address", router_mac, "mtu", "2000",
            "netns", router,
        )  # fmt: skip
        run("ip", "-n", router, "addr", "add", address, "dev", f"wire{side}", "nodad")
        run("ip", "-n", router, "link", "set", f"wire{side}", "up")
        with inside(router):
            if any(self._vlans):
                tag(f"wire{side}", self._vlans, self.ovs.directory)
            wire = Wire(f"wire{side}", vlan, others=not stick)
        self._exits.callback(wire.close)
        return wire

    def _same_wire(self, vlan: int) -> Wire:
        """The IPv4 side of a wire that both sides share."""
        run("ip", "-n", self.router, "addr", "add", NEXT_HOP4 + "/24", "dev", "wire6")
        renamed = {mac_bytes(NIC4): mac_bytes(NIC6), mac_bytes(ROUTER4): mac_bytes(ROUTER6)}
        with inside(self.router):
            wire = Wire("wire6", vlan, others=False, renamed=renamed)
        self._exits.callback(wire.close)
        return wire

    def neighbours_known(self) -> bool:
        switch = self.controller.switch()
        return all(switch[n]["state"] == "reachable" for n in ("next_hop", "ipv6_next_hop"))

    def counters(self) -> Counter[str]:
        """Packets by the name of each counter, up to date."""
        if self._purges:
            self.ovs("ovs-appctl", "revalidator/purge")
        elif self._sent != self._counted:
            for _ in range(2):  # the round that is under way may have passed a flow already
                self.ovs("ovs-appctl", "revalidator/wait")
        self._counted, self._last = self._sent, None
        status, body = self.controller.rest("GET", "/v1/counters/lwaftr1")
        assert status == 200
        return Counter({name: value["packets"] for name, value in body["counters"].items()})

    def all_counters(self, *, known: bool = False) -> tuple[Counter[str], Counter[str]]:
        """Those of the switch, and those of what the shim has refused or changed. If they are
        ``known``, those of the last time will do, unless something was sent since."""
        if not known or self._last is None or self._sent != self._counted:
            self._last = self.counters(), self.shim_counters()
        return self._last

    @property
    def _sent(self) -> int:
        return self.wire6.sent + self.wire4.sent

    def shim_counters(self) -> Counter[str]:
        """What the shim has refused or changed, by the name of each counter."""
        if self._instance is None:
            self._instance = load(self.controller.config).instances[0]
        with inside(self.ovs.name):
            found = shim.counters(self._instance)
        return Counter({name: found[name] for name in found if name not in ROUTINE})

    def stop(self) -> None:
        self._exits.close()


def frames(wire: Wire, enough: int, timeout: float = 2.0) -> list[bytes]:
    """The IPv4 and IPv6 frames that come in by a wire, but for what routers say to each other:
    until there are ``enough``, or for ``timeout`` seconds."""
    return list(_frames(wire, enough, timeout))


def _frames(wire: Wire, enough: int, timeout: float) -> Iterator[bytes]:
    deadline = time.monotonic() + timeout
    while enough > 0 and (left := deadline - time.monotonic()) > 0:
        frame = wire.receive(left)
        if frame is not None and not is_chatter(frame):
            enough -= 1
            yield frame


def is_chatter(frame: bytes) -> bool:
    """ARP, neighbour discovery and multicast listener reports."""
    kind = frame[12:14]
    if kind == b"\x86\xdd":
        return frame[20] == 0 or (frame[20] == 58 and 130 <= frame[54] <= 143)
    return kind != b"\x08\x00"
