"""A real Open vSwitch in a network namespace of its own, for tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


def run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=check, text=True, capture_output=True)


def wait_for(what: str, condition: Callable[[], object], timeout: float = 15.0) -> None:
    """Wait until ``condition()`` is true; fail with ``what`` after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:.0f} s: {what}")
        time.sleep(0.02)


class Ovs:
    """ovsdb-server and ovs-vswitchd with a run directory and a network namespace of their own."""

    def __init__(self) -> None:
        self.name = f"t{uuid.uuid4().hex[:8]}"
        self.directory = Path(tempfile.mkdtemp(prefix="lw4o6-ovs-"))
        self.environment = {
            **os.environ,
            **{f"OVS_{k}DIR": str(self.directory) for k in ("RUN", "LOG", "DB", "SYSCONF")},
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        run("ip", "netns", "add", self.name)
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        run("ovsdb-tool", "create", f"{self.directory}/conf.db", SCHEMA)
        self.start()

    def popen(self, *command: str, **kwargs: Any) -> subprocess.Popen[bytes]:
        """Start a process inside the namespace."""
        return subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.name}", *command],
            env=self.environment, **kwargs,
        )  # fmt: skip

    def __call__(self, *command: str, check: bool = True) -> str:
        """Run a command inside the namespace and return what it printed."""
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.name}", *command],
            env=self.environment, text=True, capture_output=True, timeout=60,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.stderr.strip()}")
        return done.stdout

    def start(self) -> None:
        self.start_database()
        self.start_switch()

    def start_database(self) -> None:
        sock = self.directory / "db.sock"
        sock.unlink(missing_ok=True)
        self._processes["ovsdb-server"] = self.popen(
            "ovsdb-server", f"{self.directory}/conf.db", f"--remote=punix:{sock}",
            "-vconsole:off", f"--log-file={self.directory}/ovsdb.log",
        )  # fmt: skip
        wait_for("ovsdb-server listens", sock.exists)
        self("ovs-vsctl", "--no-wait", "init")

    def start_switch(self) -> None:
        self._processes["ovs-vswitchd"] = self.popen(
            "ovs-vswitchd", f"unix:{self.directory}/db.sock", "--pidfile",
            "-vconsole:off", f"--log-file={self.directory}/vswitchd.log",
        )  # fmt: skip
        pid_file = self.directory / "ovs-vswitchd.pid"
        wait_for("ovs-vswitchd runs", pid_file.exists)

    def kill(self, name: str, signal_number: int = signal.SIGKILL) -> None:
        process = self._processes.pop(name)
        process.send_signal(signal_number)
        process.wait(10)
        if name == "ovs-vswitchd":
            (self.directory / "ovs-vswitchd.pid").unlink(missing_ok=True)

    @property
    def switch_pid(self) -> int:
        return int((self.directory / "ovs-vswitchd.pid").read_text())

    def bridge(self, name: str, *ports: str, controller: str = "tcp:127.0.0.1:6653") -> None:
        """A userspace bridge with dummy veth ports, a softwire port and a controller."""
        for port in ports:
            self("ip", "link", "add", port, "type", "veth", "peer", "name", f"p-{port}")
            for end in (port, f"p-{port}"):
                self("ip", "link", "set", end, "up")
        command = [
            "ovs-vsctl", "add-br", name, "--", "set", "bridge", name, "datapath_type=netdev",
            "fail_mode=secure", "protocols=OpenFlow13", "other-config:datapath-id=0000000000000001",
            "other-config:disable-in-band=true",
        ]  # fmt: skip
        for port in ports:
            command += ["--", "add-port", name, port]
        command += [
            "--", "add-port", name, "softwire0", "--", "set", "interface", "softwire0",
            "type=ip6gre", "options:remote_ip=flow", "options:local_ip=flow",
            "options:ttl=255",
            "--", "set-controller", name, controller,
        ]  # fmt: skip
        self(*command)

    def reconnect(self, bridge: str) -> None:
        """Let the bridge connect to its controller now, instead of after its back-off."""
        # Another name for the same controller. Without any controller for a moment, Open vSwitch
        # would flush the flows.
        target = self("ovs-vsctl", "get-controller", bridge).strip()
        same = {"tcp:127.0.0.1:6653": "tcp:127.0.0.1"}.get(target, "tcp:127.0.0.1:6653")
        self("ovs-vsctl", "set-controller", bridge, same)

    def flows(self, bridge: str) -> list[str]:
        """The flows of a bridge, statistics removed, sorted."""
        text = self("ovs-ofctl", "-OOpenFlow13", "--no-stats", "--no-names", "dump-flows", bridge)
        return sorted(line.strip() for line in text.splitlines() if "actions=" in line)

    def stop(self) -> None:
        for name in list(self._processes):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.kill(name, signal.SIGTERM)
        run("ip", "netns", "del", self.name, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)
