"""The lab's lwB4 between a LAN host and a wire: namespaces, the agent as it is run, and a raw
socket where the access network begins."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from tests.support.controller import BIN
from tests.support.netns import Wire, inside, namespace
from tests.support.ovs import run, wait_for
from topo.lwb4.process import ask
from topo.lwb4.softwire import Tunnel

LWB4, GATEWAY = "2001:db8:b4:1::1", "2001:db8:b4:1::fe"
AFTR = "2001:db8:ffff::1"
WAN_MAC, GATEWAY_MAC = "02:00:00:00:b4:01", "02:00:00:00:b4:fe"
HOST, LAN = "192.168.1.2", "192.168.1.1"


def ip(name: str, *command: str) -> None:
    run("ip", "-n", name, *command)


class Lwb4:
    """``host``, ``nat``, ``tun`` and ``access`` are namespaces; ``wan`` the far end of the wire,
    unless ``access`` is somebody else's, who then routes to the lwB4 by himself."""

    def __init__(self, access: str | None = None, lwb4: str = LWB4) -> None:
        self._exits = contextlib.ExitStack()
        self.lwb4 = lwb4
        gateway = str(IPv6Address(int(IPv6Address(lwb4)) - 1 + 0xFE))
        try:
            self.directory = Path(
                self._exits.enter_context(tempfile.TemporaryDirectory(prefix="lw4o6-lwb4-"))
            )
            self.host, self.nat, self.tun = (
                self._exits.enter_context(namespace()) for _ in range(3)
            )
            self.access = access or self._exits.enter_context(namespace())
            for name in (self.host, self.nat, self.tun, self.access):
                self._configure(name)
            self._link(self.host, "eth0", self.nat, "lan")
            self._link(self.nat, "softwire", self.tun, "v4")
            self._link(self.tun, "wan", self.access, "sub1")
            ip(self.host, "addr", "add", f"{HOST}/24", "dev", "eth0")
            ip(self.host, "route", "add", "default", "via", LAN)
            ip(self.nat, "addr", "add", f"{LAN}/24", "dev", "lan")
            ip(self.tun, "addr", "add", "192.0.0.2/32", "dev", "v4")
            ip(self.tun, "addr", "add", f"{lwb4}/64", "dev", "wan", "nodad")
            ip(self.tun, "-6", "route", "add", "default", "via", gateway)
            ip(self.access, "addr", "add", f"{gateway}/64", "dev", "sub1", "nodad")
            with inside(self.access):
                self.wan = Wire("sub1")
            self._exits.callback(self.wan.close)
            self._process: subprocess.Popen[bytes] | None = None
            self._exits.callback(self.kill)
        except BaseException:
            self.stop()
            raise

    def _configure(self, name: str) -> None:
        for setting in (
            "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0",
            "net.ipv6.conf.all.forwarding=1", "net.ipv4.ip_forward=1",
            "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0",
        ):  # fmt: skip
            run("ip", "netns", "exec", name, "sysctl", "-qw", setting)

    def _link(self, left: str, left_name: str, right: str, right_name: str) -> None:
        mtu = "1540" if left_name == "wan" else "1500"
        address = ["address", WAN_MAC] if left_name == "wan" else []
        peer = ["address", GATEWAY_MAC] if left_name == "wan" else []
        run("ip", "link", "add", left_name, *address, "mtu", mtu, "netns", left, "type", "veth",
            "peer", "name", right_name, *peer, "mtu", mtu, "netns", right)  # fmt: skip
        for name, device in ((left, left_name), (right, right_name)):
            ip(name, "link", "set", device, "up")
            offloads = ("tx", "off", "gso", "off", "tso", "off")
            run("nsenter", f"--net=/run/netns/{name}", "ethtool", "-K", device, *offloads)

    # --- the agent ---

    def start(self, provisioning: str, *options: str, tunnel: Tunnel = Tunnel.SRV6) -> None:
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.tun}", str(BIN / "lw4o6-lwb4"), "run",
                 str(self.directory), "--provisioning", provisioning, "--lwb4", self.lwb4,
                 "--aftr", AFTR, "--translator", self.nat, "--tunnel", tunnel, *options],
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        wait_for("the agent answers", self._answers)

    def _answers(self) -> bool:
        assert self._process is None or self._process.poll() is None, self.log
        try:
            self.status()
        except (OSError, ValueError):
            return False
        return True

    def status(self, word: str = "status") -> dict[str, Any]:
        return ask(self.directory / "control", word)

    @property
    def counters(self) -> dict[str, int]:
        found: dict[str, int] = self.status()["counters"]
        return found

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def events(self, name: str) -> list[dict[str, str]]:
        """The details of the log's lines about one kind of event."""
        lines = [line.split() for line in self.log.splitlines()]
        return [
            dict(word.partition("=")[::2] for word in words[2:])
            for words in lines
            if words[1:2] == [name]
        ]

    def wait_until_bound(self, ipv4: str) -> None:
        wait_for(f"the lwB4 has {ipv4}", lambda: self.status()["ipv4"] == ipv4)

    def terminate(self) -> None:
        """Tell it to end, and wait until it has."""
        self.kill(signal.SIGTERM)

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)
            self._process = None

    # --- its surroundings ---

    def on_host(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.host}", *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def connections(self) -> list[dict[str, Any]]:
        """What the translator translates: lines of conntrack, cut into words."""
        shown = run("nsenter", f"--net=/run/netns/{self.nat}", "conntrack", "-L", check=False)
        return [{"words": line.split()} for line in shown.stdout.splitlines()]

    def ruleset(self) -> Any:
        shown = run("nsenter", f"--net=/run/netns/{self.nat}", "nft", "-j", "list", "ruleset")
        return json.loads(shown.stdout)

    def stop(self) -> None:
        self._exits.close()


@contextlib.contextmanager
def lwb4(access: str | None = None) -> Iterator[Lwb4]:
    built = Lwb4(access)
    try:
        yield built
    finally:
        built.stop()
