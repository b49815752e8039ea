"""What every benchmark needs: an lwAFTR between two wires, traffic with sequence numbers, a table.

    outside namespace                  lwAFTR's namespace
    wire6 (access network)  ---------  eth6  \\
                                              Open vSwitch, ryu-manager
    wire4 (Internet)        ---------  eth4  /

Both wires end in one namespace, whose kernel answers ARP and neighbour discovery and throws the
rest away, after packet sockets have seen it.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from ryu_lw4o6.core.binding import Binding
from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.store import Store
from tests.support.controller import BIN, Controller
from tests.support.netns import inside, namespace
from tests.support.ovs import Ovs, run, wait_for
from tests.support.rig import tag

OUTPUT = Path("build/bench")
BRIDGE = "br0"
AFTR = "2001:db8:ffff::1"
SERVER = "203.0.113.80"
PARAMS = PortParams(6, 6)
MTU = 1540
NIC6, WIRE6 = "02:00:00:00:06:01", "02:00:00:00:06:fe"
NIC4, WIRE4 = "02:00:00:00:04:01", "02:00:00:00:04:fe"

INSTANCE = f"""\
instances:
  - name: lwaftr1
    datapath_id: 1
    bridge: {BRIDGE}
    aftr_addresses: ["{AFTR}"]
    ipv6: {{{{port: eth6, address: "2001:db8:1::1/64", next_hop: "2001:db8:1::fe", mtu: {MTU}}}}}
    ipv4: {{{{port: eth4, address: 198.51.100.1/24, next_hop: 198.51.100.254}}}}
"""
"""The instance of every benchmark; what differs is added behind it."""
CONFIG = f"""\
store: sqlite:///{{directory}}/bindings.sqlite
prefixes:
  - {{{{prefix: 198.18.0.0/15, psid_offset: {PARAMS.psid_offset},
      psid_length: {PARAMS.psid_length}}}}}
{INSTANCE}\
"""


def bindings(count: int, first: int = 0) -> list[Binding]:
    """Subscribers number ``first`` and up, 64 of them to an IPv4 address."""
    lwb4, ipv4 = int(IPv6Address("2001:db8:b4::")), int(IPv4Address("198.18.0.0"))
    return [
        Binding(IPv6Address(lwb4 + i), IPv4Address(ipv4 + (i >> 6)), i & 63, PARAMS)
        for i in range(first, first + count)
    ]


def upstream(binding: Binding, payload: bytes, port: int = 0) -> bytes:
    """A frame on wire6, from the lwB4; ``port`` counts the ports of its port set."""
    return bytes(
        Ether(dst=NIC6, src=WIRE6)
        / IPv6(src=str(binding.lwb4), dst=AFTR, nh=4)
        / IP(src=str(binding.ipv4), dst=SERVER)
        / UDP(sport=_port(binding, port), dport=9, chksum=0)
        / Raw(payload)
    )


def downstream(binding: Binding, payload: bytes, port: int = 0) -> bytes:
    """A frame on wire4, to the subscriber."""
    return bytes(
        Ether(dst=NIC4, src=WIRE4)
        / IP(src=SERVER, dst=str(binding.ipv4))
        / UDP(sport=9, dport=_port(binding, port), chksum=0)
        / Raw(payload)
    )


def _port(binding: Binding, index: int) -> int:
    ports = next(iter(binding.params.port_ranges(binding.psid)))
    return ports[index % len(ports)]


class Rig:
    """The lwAFTR and both ends of its wires. Made by ``lwaftr``."""

    def __init__(self, ovs: Ovs, outside: str, controller: Controller) -> None:
        self.ovs = ovs
        self.outside = outside
        self.controller = controller

    def ready(self) -> bool:
        """Whether the controller's switch is reconciled and both next hops are known."""
        if not self.controller.ready():
            return False
        switch = self.controller.switch()
        return all(switch[hop]["state"] == "reachable" for hop in ("next_hop", "ipv6_next_hop"))

    def wait_ready(self) -> None:
        wait_for("the lwAFTR is ready", self.ready, 120)


@contextlib.contextmanager
def lwaftr(
    count: int, config: str = CONFIG, vlans: tuple[int, int] = (0, 0), *, stick: bool = False
) -> Iterator[Rig]:
    """A whole lwAFTR with ``count`` bindings in its store, its controller not yet started.
    ``vlans`` are the tags on either wire; on a ``stick`` there is only wire6."""
    with contextlib.ExitStack() as undo:
        ovs = Ovs()
        undo.callback(ovs.stop)
        outside = undo.enter_context(namespace())
        wires = {"wire6": (WIRE6, "eth6", NIC6), "wire4": (WIRE4, "eth4", NIC4)}
        if stick:
            del wires["wire4"]
        for device, (mac, nic, nic_mac) in wires.items():
            link(ovs, nic, nic_mac, outside, device, mac)
            if any(vlans):
                with inside(outside):
                    tag(device, vlans, ovs.directory)
        run("ip", "-n", outside, "addr", "add", "198.51.100.254/24", "dev", device)
        run("ip", "-n", outside, "addr", "add", "2001:db8:1::fe/64", "dev", "wire6", "nodad")
        discard(outside, *wires)
        controller = Controller(ovs, config)
        undo.callback(controller.kill)
        store = Store(f"sqlite:///{ovs.directory}/bindings.sqlite")
        store.save(bindings(count), [])
        store.close()
        ovs(str(BIN / "lw4o6"), "switch", "up", str(controller.config))
        yield Rig(ovs, outside, controller)


def link(ovs: Ovs, nic: str, nic_mac: str, outside: str, wire: str, mac: str) -> None:
    """A veth from the lwAFTR's namespace to the outside."""
    run(
        "ip", "link", "add", nic, "address", nic_mac, "mtu", str(MTU), "netns", ovs.name,
        "type", "veth", "peer", "name", wire, "address", mac, "mtu", str(MTU), "netns", outside,
    )  # fmt: skip
    for name, device in ((ovs.name, nic), (outside, wire)):
        run("ip", "-n", name, "link", "set", device, "up")


def discard(outside: str, *wires: str) -> None:
    """Throw traffic away as soon as it has been counted, before the kernel spends time on it."""
    hook = f"type filter hook ingress devices = {{ {', '.join(wires)} }} priority 0;"
    rules = "ip protocol udp drop; ip6 nexthdr 4 drop; icmpv6 type 1 drop;"
    ruleset = f"table netdev {wires[0]} {{ chain wires {{ {hook} {rules} }}; }}"
    run("nsenter", f"--net=/run/netns/{outside}", "nft", ruleset)


# --- traffic --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loss:
    sent: int
    lost: int
    packets_per_second: float


_TAG = b"numbered packet "


@dataclass
class _Way:
    """One direction: a frame that lacks its number, where it is sent, where it arrives."""

    frame: bytes
    out: socket.socket
    into: socket.socket
    arrived: set[int] = field(default_factory=set)


class Stream:
    """One subscriber's packets, both ways, each with its number; for use as a context.

    ``loss`` is known afterwards.
    """

    loss: Loss

    def __init__(self, rig: Rig, binding: Binding, packets_per_second: int = 1000) -> None:
        self._interval = 1 / packets_per_second
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        with inside(rig.outside):
            wire6, wire4 = wire("wire6"), wire("wire4")
        self._ways = (
            _Way(upstream(binding, _TAG + bytes(4))[:-4], wire6, wire4),
            _Way(downstream(binding, _TAG + bytes(4))[:-4], wire4, wire6),
        )
        self._sent = 0

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for way in self._ways:
            way.out.close()

    def _run(self) -> None:
        started = time.monotonic()
        while not self._stop.is_set():
            number = self._sent.to_bytes(4, "big")
            for way in self._ways:
                way.out.send(way.frame + number)
            self._sent += 1
            self._collect()
            time.sleep(self._interval)
        seconds = time.monotonic() - started
        time.sleep(0.5)
        self._collect()
        sent = 2 * self._sent
        lost = sent - sum(len(way.arrived) for way in self._ways)
        self.loss = Loss(sent, lost, sent / seconds)

    def _collect(self) -> None:
        for way in self._ways:
            with contextlib.suppress(BlockingIOError):
                while True:
                    frame = way.into.recv(2048)
                    if frame[-4 - len(_TAG) : -4] == _TAG:
                        way.arrived.add(int.from_bytes(frame[-4:], "big"))


def wire(device: str) -> socket.socket:
    packet_ignore_outgoing, force = 23, 33
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    found.setsockopt(263, packet_ignore_outgoing, 1)
    found.setsockopt(socket.SOL_SOCKET, force, 8 << 20)
    found.bind((device, 0))
    found.setblocking(False)
    return found


# --- results --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One line of a result: ``met`` is None for what has no target."""

    what: str
    seen: str
    target: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Result:
    """What a benchmark found; ``figures`` are the raw numbers, for a program to read."""

    rows: Sequence[Row]
    figures: dict[str, Any]

    def show(self) -> None:
        for row in self.rows:
            met = {True: "met", False: "NOT MET", None: ""}[row.met]
            print(f"  {row.what:<40} {row.seen:<30} {row.target:<18} {met}".rstrip(), flush=True)

    def save(self, name: str) -> None:
        OUTPUT.mkdir(parents=True, exist_ok=True)
        rows = [asdict(row) for row in self.rows]
        text = json.dumps({"rows": rows, "figures": self.figures}, indent=1)
        (OUTPUT / f"{name}.json").write_text(text + "\n")
