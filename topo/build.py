"""Builds a lab and takes it down."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from topo.kea import Kea
from topo.lwaftr import Lwaftr
from topo.lwb4s import Lwb4s
from topo.nodes import Nodes, ip, wait_for
from topo.plan import SERVER, Lab
from topo.provisioning import Provisioning

RUN = Path("/run/lw4o6-lab")
OPTIONS = "lab.json"
"""Says, in a lab's directory, which lab it is."""

_SETTINGS = (
    "ipv6/conf/all/accept_dad=0",
    "ipv6/conf/default/accept_dad=0",
    "ipv6/conf/all/forwarding=1",
    "ipv4/ip_forward=1",
    "ipv4/conf/all/rp_filter=0",
    "ipv4/conf/default/rp_filter=0",
)

Progress = Callable[[str], None]


def _silent(_: str) -> None:
    pass


class Builder(Nodes):
    """One lab on this machine, built or not."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab.name, RUN / lab.name)
        self.lab = lab
        self.lwb4s = Lwb4s(self, lab)
        self.kea = Kea(self, lab) if lab.provisioning is Provisioning.DHCP else None
        self.lwaftrs = {site.name: Lwaftr(self, site.name) for site in lab.sites}

    @property
    def lwaftr(self) -> Lwaftr:
        """The first one, which in the simple lab is the only one."""
        return next(iter(self.lwaftrs.values()))

    def exists(self) -> bool:
        return bool(self.standing(self.lab.nodes))

    def up(self, progress: Progress = _silent) -> None:
        """Build the lab. A lab that stands is left as it is; a part of one is built anew."""
        if self.exists():
            if self.healthy():
                progress("the lab is up already")
                return
            progress("removing what is left of an older lab")
            self.down()
        shutil.rmtree(self.directory, ignore_errors=True)  # the logs of one that was not built
        self.directory.mkdir(parents=True)
        (self.directory / OPTIONS).write_text(json.dumps(self.lab.options()))
        try:
            progress("namespaces, links and addresses")
            self._build_network()
            progress("Internet host: HTTP, iperf3 and echo servers")
            self._start_internet()
            self._start(progress)
        except BaseException:
            self.down(keep_logs=True)
            raise

    def _start(self, progress: Progress) -> None:
        """What makes it an lw4o6 network."""
        self._start_lwaftrs(progress)
        self._start_lwb4s(progress)

    def _start_lwaftrs(self, progress: Progress) -> None:
        if self.kea is not None:
            progress("DHCP server: Kea")
            self.kea.start()
        progress(f"{', '.join(self.lwaftrs)}: Open vSwitch, the softwire shim, ryu-manager")
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._start_lwaftr, self.lwaftrs.values()))
        for name, lwaftr in self.lwaftrs.items():
            wait_for(f"{name} is ready", lwaftr.ready)

    def _start_lwb4s(self, progress: Progress) -> None:
        if self.lab.provisioned:
            progress(f"lwB4s: provisioned by {self.lab.provisioning.upper()}")
            self.lwb4s.start()

    def _start_lwaftr(self, lwaftr: Lwaftr) -> None:
        lwaftr.directory.mkdir(exist_ok=True)
        (site,) = (site for site in self.lab.sites if site.name == lwaftr.name)
        lwaftr.config.write_text(self.lab.config(site, str(self.directory)))
        lwaftr.start()

    def down(self, *, keep_logs: bool = False) -> None:
        """Take down whatever there is of the lab."""
        self.remove(self.lab.nodes)
        if not keep_logs:
            shutil.rmtree(self.directory, ignore_errors=True)
            with contextlib.suppress(OSError):  # there are other labs, or none
                RUN.rmdir()

    def healthy(self) -> bool:
        nodes = self.lab.nodes
        return (
            len(self.standing(nodes)) == len(nodes)
            and all(lwaftr.ready() for lwaftr in self.lwaftrs.values())
            and self.lwb4s.bound()
        )

    def _build_network(self) -> None:
        lab = self.lab
        self.make(lab.nodes)
        for node in lab.nodes:
            # Before there are interfaces, which begin with these settings: no duplicate address
            # detection, forwarding, loose routing.
            pairs = (setting.partition("=") for setting in (*_SETTINGS, *lab.settings(node)))
            self._script(node, [f"echo {value} > /proc/sys/net/{name}" for name, _, value in pairs])
        scripts = {node: ["ip link set lo up"] for node in lab.nodes}
        for link in lab.links:
            ip(
                "link", "add", link.left_name, "mtu", str(link.mtu),
                "netns", self.namespace(link.left),
                "type", "veth", "peer", "name", link.right_name, "mtu", str(link.mtu),
                "netns", self.namespace(link.right),
            )  # fmt: skip
            for node, name in ((link.left, link.left_name), (link.right, link.right_name)):
                # Open vSwitch reads frames as they are on a wire: whole, with their checksums.
                scripts[node] += [
                    f"ip link set {name} up",
                    f"ethtool -K {name} tx off gso off tso off >/dev/null",
                ]
        for node, command in lab.addresses():
            scripts[node].append(shlex.join(["ip", *command]))
        for node, lines in scripts.items():
            self._script(node, lines)
        for sub in () if lab.provisioned else lab.subscribers:
            self.run(sub.nat, "nft", "-f", "-", text=lab.napt(sub))
            self.run(sub.tun, "nft", "-f", "-", text=lab.softwire_rules(sub))

    def _script(self, node: str, lines: list[str]) -> None:
        self.run(node, "sh", "-ex", text="\n".join(lines))

    def _start_internet(self) -> None:
        pages = self.directory / "www"
        pages.mkdir()
        (pages / "index.html").write_text("<h1>This is the IPv4 Internet.</h1>\n")
        (pages / "large").write_bytes(bytes(range(256)) * 4096 * 4)
        self.start(
            "inet", "http", sys.executable, "-m", "http.server", "80", "--bind", str(SERVER),
            "--directory", str(pages),
        )  # fmt: skip
        self.start("inet", "iperf3", "iperf3", "-s", "-B", str(SERVER))
        self.start("inet", "echo", sys.executable, "-m", "topo.echo", str(SERVER))
        for what, port in (("HTTP", 80), ("echo", 7)):
            wait_for(f"the {what} server answers", lambda port=port: self.listening("inet", port))  # type: ignore[misc]

    def listening(self, node: str, port: int) -> bool:
        return f":{port} " in self.run(node, "ss", "-Hltn").stdout
