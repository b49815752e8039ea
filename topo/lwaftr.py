"""One lwAFTR of the lab: its Open vSwitch, its ryu-manager, and what to ask them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from topo.nodes import PATIENCE, LabError, Nodes, kill, wait_for

REST_PORT = 8080
SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
PROCESSES = ("ovsdb-server", "ovs-vswitchd", "ryu-manager")


class Lwaftr:
    """The lwAFTR in node ``name``."""

    def __init__(self, nodes: Nodes, name: str) -> None:
        self.name = name
        self.directory = nodes.directory / name
        self.config = self.directory / "lw4o6.yaml"
        self._nodes = nodes

    # --- its processes ---

    def start(self) -> None:
        """Start what does not run, the controller first: a new Open vSwitch that finds none tries
        less and less often."""
        if not self.pid("ryu-manager"):
            self.start_controller()
        wait_for(f"{self.name}: the controller answers", lambda: self.ask("/v1/switches"))
        self.start_switch()

    def start_switch(self) -> None:
        """Open vSwitch, as far as it does not run yet, with the bridge as configured."""
        if not self.pid("ovsdb-server"):
            self._start_database()
        if not self.pid("ovs-vswitchd"):
            self._start_vswitchd()
        self._nodes.run(self.name, "lw4o6", "switch", "up", str(self.config))

    def start_controller(self) -> None:
        self._start(
            "ryu-manager", "ryu-manager", "ryu_lw4o6.app", "rest.app",
            "--lw4o6-config", str(self.config),
            "--pid-file", str(self._pid_file("ryu-manager")),
        )  # fmt: skip

    def _start_database(self) -> None:
        database, sock = self.directory / "conf.db", self.directory / "db.sock"
        if not database.exists():
            subprocess.run(
                ["ovsdb-tool", "create", str(database), str(SCHEMA)],
                check=True, capture_output=True,
            )  # fmt: skip
        sock.unlink(missing_ok=True)
        self._start(
            "ovsdb-server", "ovsdb-server", str(database), f"--remote=punix:{sock}",
            f"--pidfile={self._pid_file('ovsdb-server')}",
        )  # fmt: skip
        wait_for("ovsdb-server listens", sock.exists)
        self._nodes.run(self.name, "ovs-vsctl", "--no-wait", "init")

    def _start_vswitchd(self) -> None:
        pid_file = self._pid_file("ovs-vswitchd")
        pid_file.unlink(missing_ok=True)
        self._start(
            "ovs-vswitchd", "ovs-vswitchd", f"unix:{self.directory}/db.sock",
            f"--pidfile={pid_file}", "-vconsole:warn",
        )  # fmt: skip
        wait_for("ovs-vswitchd runs", pid_file.exists)

    def _start(self, process: str, *command: str) -> None:
        self._nodes.start(self.name, f"{self.name}/{process}", *command)

    def _pid_file(self, process: str) -> Path:
        return self.directory / f"{process}.pid"

    def pid(self, process: str) -> int | None:
        """The process id of one of ``PROCESSES`` or of ExaBGP, None if it is not there."""
        name = f"exabgp-{self.name}" if process == "exabgp" else process
        return self._nodes.running(self.name, self._pid_file(name))

    def kill(self, *processes: str) -> None:
        """``kill -9`` these processes, and wait until they are gone."""
        pids = [(process, self.pid(process)) for process in processes]
        for process, pid in pids:
            if pid is None:
                raise LabError(f"{self.name}: {process} is not running")
        kill([pid for _, pid in pids if pid is not None])

    # --- what to ask it ---

    def rest(self, method: str, path: str, body: Any = None, timeout: float = 30) -> Any:
        """Call the controller's REST API from its own namespace: (status, JSON)."""
        timeout *= PATIENCE
        command = ["curl", "-sS", "-m", str(timeout), "-X", method, "-w", "\n%{http_code}"]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        done = self._nodes.run(
            self.name, *command, f"http://127.0.0.1:{REST_PORT}{path}", timeout=timeout + 5
        )
        text, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(text) if text.strip() else None

    def ask(self, path: str) -> Any:
        """What the controller says about ``path``, None if it does not answer."""
        try:
            status, found = self.rest("GET", path, timeout=3)
        except (LabError, subprocess.TimeoutExpired, ValueError):
            return None
        return found if status == 200 else None

    def ready(self) -> bool:
        """Whether the controller answers and its switch is reconciled and forwarding."""
        found = self.ask("/v1/switches")
        return found is not None and all(
            switch["state"] == "ready" and switch["next_hop"]["state"] == "reachable"
            for switch in found["switches"]
        )

    def announced(self) -> bool:
        """Whether all routers are told to send packets here."""
        found = self.ask(f"/v1/failover/{self.name}")
        announcements = found and found["announcements"]
        return bool(
            announcements
            and announcements["announced"]
            and set(announcements["peers"].values()) == {"up"}
        )

    def counters(self) -> dict[str, int]:
        """Packets per counter."""
        _, found = self.rest("GET", "/v1/counters")
        return {k: v["packets"] for k, v in found["counters"][0]["counters"].items()}
