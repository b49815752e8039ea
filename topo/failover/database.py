"""The lab's PostgreSQL: a server of its own, in the lab's directory, on a Unix socket."""

from __future__ import annotations

import subprocess
from pathlib import Path

from topo.failover.plan import DATABASE
from topo.nodes import LabError, Nodes, wait_for

BIN = Path("/usr/lib/postgresql/15/bin")
USER = "postgres"  # the server refuses to run as root
_AS_USER = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")


class Database:
    """The server in node ``database``."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._directory = nodes.directory / DATABASE

    def start(self) -> None:
        """Start it, with an empty database ``lw4o6`` if there is none yet."""
        data = self._directory / "data"
        new = not data.exists()
        if new:
            self._directory.mkdir(exist_ok=True)
            subprocess.run(["chown", USER, str(self._directory)], check=True)
            self._run("initdb", "-D", str(data), "-A", "trust", "-E", "UTF8", "--no-sync")
        self._nodes.start(
            DATABASE, "postgresql", *_AS_USER, str(BIN / "postgres"), "-D", str(data),
            "-k", str(self._directory), "-c", "listen_addresses=",
        )  # fmt: skip
        wait_for("PostgreSQL takes connections", self.answers)
        if new:
            self._run("createdb", "-h", str(self._directory), "lw4o6")

    def answers(self) -> bool:
        return self._do("pg_isready", "-q", "-h", str(self._directory)).returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        done = self._do(program, *arguments)
        if done.returncode:
            raise LabError(f"{program}: {done.stderr.strip()}")

    def _do(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*_AS_USER, str(BIN / program), *arguments], capture_output=True, text=True,
            timeout=60, cwd="/",
        )  # fmt: skip
