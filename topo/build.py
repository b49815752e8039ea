"""Builds the lab and takes it down.

Everything belongs to the lab's own namespaces and its own directory: every process in one of
those namespaces is the lab's, so taking it down needs no notes and works after a crash as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from topo.plan import SERVER, Lab

RUN = Path("/run/lw4o6-lab")
SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
REST_PORT = 8080
SWITCH = "lwaftr1"
_BIN = Path(sys.executable).parent


class LabError(Exception):
    """Something in the lab did not do what it should; the message says what and where to look."""


PATIENCE = float(os.environ.get("LW4O6_LAB_PATIENCE", "1"))
"""How many times longer than usual to wait, for a machine that is emulated."""


def wait_for(what: str, condition: Callable[[], Any], timeout: float = 20.0) -> Any:
    """Wait until ``condition()`` is true and return it; LabError after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout * PATIENCE
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise LabError(f"not within {timeout:.0f} s: {what}")
        time.sleep(0.05)


class Builder:
    """One lab on this machine, built or not."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.directory = RUN / lab.name
        self.logs = self.directory

    # --- running things in a node ---

    def command(self, node: str, *command: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.lab.namespace(node)}", *command]

    def run(
        self, node: str, *command: str, check: bool = True, text: str | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """Run a command in a node. Raises LabError if it fails and ``check`` is set."""
        done = subprocess.run(
            self.command(node, *command), capture_output=True, text=True, input=text,
            env=self.environment, timeout=timeout * PATIENCE,
        )  # fmt: skip
        if check and done.returncode:
            message = (done.stderr or done.stdout).strip() or f"status {done.returncode}"
            raise LabError(f"{node}: {' '.join(command)}: {message}")
        return done

    def start(self, node: str, log: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a process in a node; its output goes to a log of the lab."""
        with (self.logs / f"{log}.log").open("ab") as output:
            return subprocess.Popen(
                self.command(node, *command), stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True, env=self.environment,
            )  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        ovs = {f"OVS_{kind}DIR": str(self.directory) for kind in ("RUN", "LOG", "DB", "SYSCONF")}
        return {**os.environ, **ovs, "PATH": f"{_BIN}:{os.environ['PATH']}"}

    # --- up and down ---

    def exists(self) -> bool:
        return any(Path("/run/netns", self.lab.namespace(node)).exists() for node in self.lab.nodes)

    def up(self, progress: Callable[[str], None] = lambda _: None) -> None:
        """Build the lab. A lab that stands is left as it is; a part of one is built anew."""
        if self.exists():
            if self.healthy():
                progress("the lab is up already")
                return
            progress("removing what is left of an older lab")
            self.down()
        self.directory.mkdir(parents=True)
        try:
            progress("namespaces, links and addresses")
            self._build_network()
            progress("Internet host: HTTP and iperf3 servers")
            self._start_internet()
            progress("lwAFTR: Open vSwitch and the softwire shim")
            self._start_ovs()
            progress("lwAFTR: ryu-manager")
            self.start_controller()
            wait_for("the switch is ready", self.ready)
        except BaseException:
            self.down(keep_logs=True)
            raise

    def down(self, *, keep_logs: bool = False) -> None:
        """Take down whatever there is of the lab."""
        namespaces = [n for n in map(self.lab.namespace, self.lab.nodes) if _namespace_exists(n)]
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + 3
            pids = _processes(namespaces)
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            while _processes(namespaces) and time.monotonic() < deadline:
                time.sleep(0.02)
        for namespace in namespaces:
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)
        if not keep_logs:
            shutil.rmtree(self.directory, ignore_errors=True)
            with contextlib.suppress(OSError):
                RUN.rmdir()

    def healthy(self) -> bool:
        return (
            all(_namespace_exists(self.lab.namespace(n)) for n in self.lab.nodes) and self.ready()
        )

    def _build_network(self) -> None:
        lab = self.lab
        for node in lab.nodes:
            _ip("netns", "add", lab.namespace(node))
            self.run(node, "ip", "link", "set", "lo", "up")
            # Settings of a namespace: no duplicate address detection, forwarding, loose routing.
            for setting in (
                "ipv6/conf/all/accept_dad=0", "ipv6/conf/default/accept_dad=0",
                "ipv6/conf/all/forwarding=1", "ipv4/ip_forward=1",
                "ipv4/conf/all/rp_filter=0", "ipv4/conf/default/rp_filter=0",
            ):  # fmt: skip
                name, value = setting.split("=")
                self.run(node, "sh", "-c", f"echo {value} > /proc/sys/net/{name}")
        for link in lab.links:
            _ip(
                "link", "add", link.left_name, "mtu", str(link.mtu),
                "netns", lab.namespace(link.left),
                "type", "veth", "peer", "name", link.right_name, "mtu", str(link.mtu),
                "netns", lab.namespace(link.right),
            )  # fmt: skip
            for node, name in ((link.left, link.left_name), (link.right, link.right_name)):
                self.run(node, "ip", "link", "set", name, "up")
                # Open vSwitch reads frames as they are on a wire: whole, with their checksums.
                self.run(node, "ethtool", "-K", name, "tx", "off", "gso", "off", "tso", "off")
        for node, command in lab.addresses():
            self.run(node, "ip", *command)
        for sub in lab.subscribers:
            self.run(sub.nat, "nft", "-f", "-", text=lab.napt(sub))
            self.run(sub.tun, "nft", "-f", "-", text=lab.softwire_rules(sub))

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
        wait_for("the HTTP server answers", lambda: self.listening("inet", 80))

    def listening(self, node: str, port: int) -> bool:
        return f":{port} " in self.run(node, "ss", "-Hltn").stdout

    def _start_ovs(self) -> None:
        self.start_database()
        self.start_switch()
        (self.directory / "lw4o6.yaml").write_text(self.lab.config(str(self.directory)))
        self.prepare_switch()

    def prepare_switch(self) -> None:
        """Does no harm to a switch that is ready."""
        self.run(SWITCH, "lw4o6", "switch", "up", str(self.directory / "lw4o6.yaml"))

    def start_database(self) -> None:
        database, sock = self.directory / "conf.db", self.directory / "db.sock"
        if not database.exists():
            subprocess.run(
                ["ovsdb-tool", "create", str(database), str(SCHEMA)],
                check=True, capture_output=True,
            )  # fmt: skip
        sock.unlink(missing_ok=True)
        self.start(
            SWITCH, "ovsdb-server", "ovsdb-server", str(database), f"--remote=punix:{sock}",
            f"--pidfile={self.directory}/ovsdb-server.pid",
        )  # fmt: skip
        wait_for("ovsdb-server listens", sock.exists)
        self.run(SWITCH, "ovs-vsctl", "--no-wait", "init")

    def start_switch(self) -> None:
        pid_file = self.directory / "ovs-vswitchd.pid"
        pid_file.unlink(missing_ok=True)
        self.start(
            SWITCH, "ovs-vswitchd", "ovs-vswitchd", f"unix:{self.directory}/db.sock",
            f"--pidfile={pid_file}", "-vconsole:warn",
        )  # fmt: skip
        wait_for("ovs-vswitchd runs", pid_file.exists)

    def start_controller(self) -> subprocess.Popen[bytes]:
        return self.start(
            SWITCH, "ryu-manager", "ryu-manager", "ryu_lw4o6.app", "rest.app",
            "--lw4o6-config", str(self.directory / "lw4o6.yaml"),
            "--pid-file", str(self.directory / "ryu-manager.pid"),
        )  # fmt: skip

    def pid(self, process: str) -> int | None:
        """The process id of ryu-manager, ovs-vswitchd or ovsdb-server, None if it is not there."""
        try:
            pid = int((self.directory / f"{process}.pid").read_text())
            os.kill(pid, 0)
        except (OSError, ValueError):
            return None
        return pid

    def kill(self, process: str) -> None:
        """``kill -9`` one of the lwAFTR's processes, and wait until it is gone."""
        pid = self.pid(process)
        if pid is None:
            raise LabError(f"{process} is not running")
        os.kill(pid, signal.SIGKILL)
        wait_for(f"{process} is gone", lambda: not _alive(pid))

    # --- REST ---

    def rest(self, method: str, path: str, body: Any = None, timeout: float = 30) -> Any:
        """Call the controller's REST API from its own namespace: (status, JSON)."""
        timeout *= PATIENCE
        command = ["curl", "-sS", "-m", str(timeout), "-X", method, "-w", "\n%{http_code}"]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        done = self.run(
            SWITCH, *command, f"http://127.0.0.1:{REST_PORT}{path}", timeout=timeout + 5
        )
        text, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(text) if text.strip() else None

    def ready(self) -> bool:
        """Whether the controller answers and its switch is reconciled and forwarding."""
        try:
            status, switches = self.rest("GET", "/v1/switches", timeout=3)
        except (LabError, subprocess.TimeoutExpired, ValueError):
            return False
        return status == 200 and all(
            s["state"] == "ready" and s["next_hop"]["state"] == "reachable"
            for s in switches["switches"]
        )

    def counters(self) -> dict[str, int]:
        """Packets per counter of the lwAFTR."""
        _, found = self.rest("GET", "/v1/counters")
        return {k: v["packets"] for k, v in found["counters"][0]["counters"].items()}


def _namespace_exists(name: str) -> bool:
    return Path("/run/netns", name).exists()


def _processes(namespaces: Sequence[str]) -> list[int]:
    pids: list[int] = []
    for name in namespaces:
        done = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
        pids += [int(pid) for pid in done.stdout.split() if int(pid) != os.getpid()]
    return pids


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def _ip(*command: str) -> None:
    done = subprocess.run(["ip", *command], capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"ip {' '.join(command)}: {done.stderr.strip()}")
