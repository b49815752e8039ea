"""A real Kea, for tests: kea-dhcp4, kea-dhcp6 and, if asked for, kea-ctrl-agent, in a network
namespace and a directory of its own."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ryu_lw4o6.provisioning.kea_config import KeaServer
from tests.support.ovs import wait_for
from tests.support.postgres import USER, Postgres

SCHEMA = Path("/usr/share/kea/scripts/pgsql/dhcpdb_create.pgsql")
PROGRAMS = {"dhcp4": "kea-dhcp4", "dhcp6": "kea-dhcp6", "agent": "kea-ctrl-agent"}


def server(directory: Path, interface: str = "lo", **fields: Any) -> KeaServer:
    """A server that keeps everything in ``directory``."""
    place = str(directory)
    return KeaServer(interface, run=place, state=place, log=f"{place}/kea.log", **fields)


def database(server: Postgres) -> dict[str, str]:
    """A fresh lease database in PostgreSQL, as Kea's configuration names it."""
    server.new_database("kea", SCHEMA)
    return {"type": "postgresql", "name": "kea", "user": USER, "host": str(server.directory)}


class Kea:
    """``configurations`` are those of the programs to be started, by their names above."""

    def __init__(
        self, directory: Path, configurations: dict[str, Any], namespace: str | None = None
    ) -> None:
        self.directory = directory
        self._enter = ["nsenter", f"--net=/run/netns/{namespace}"] if namespace else []
        self._environment = {
            **os.environ,
            **{f"KEA_{k}_DIR": str(directory) for k in ("PIDFILE", "LOCKFILE")},
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for name, configuration in configurations.items():
            self._file(name).write_text(json.dumps(configuration, indent=1))

    def _file(self, name: str) -> Path:
        return self.directory / f"kea-{name}.json"

    @property
    def names(self) -> list[str]:
        return [name for name in PROGRAMS if self._file(name).exists()]

    def start(self, *names: str) -> None:
        """Start programs, all of them by default, and wait until they work."""
        for name in names or self.names:
            with (self.directory / f"{name}.out").open("ab") as output:
                self._processes[name] = subprocess.Popen(
                    [*self._enter, PROGRAMS[name], "-c", str(self._file(name))],
                    env=self._environment, stdout=output, stderr=output, cwd=self.directory,
                )  # fmt: skip
        for name in names or self.names:
            wait_for(f"{name} works", functools.partial(self._works, name), 20)

    def _works(self, name: str) -> bool:
        process = self._processes[name]
        if process.poll() is not None:
            raise AssertionError((self.directory / f"{name}.out").read_text()[-2000:])
        if name == "agent":
            log = self.directory / "kea.log"
            return log.exists() and "HTTP_SERVICE_STARTED" in log.read_text()
        with contextlib.suppress(OSError, ValueError):
            return bool(self.command({"command": "status-get"}, int(name[-1]))["result"] == 0)
        return False

    def command(self, command: dict[str, Any], service: int = 4) -> dict[str, Any]:
        """Send a command to a server's control socket."""
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.settimeout(10)
            connection.connect(f"{self.directory}/kea{service}-ctrl-socket")
            connection.sendall(json.dumps(command).encode())
            received = b""
            while part := connection.recv(65536):
                received += part
        found: dict[str, Any] = json.loads(received)
        return found

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def leases(self) -> list[dict[str, Any]]:
        """Every IPv4 lease, expired ones too."""
        return list(
            self.command({"command": "lease4-get-all"}).get("arguments", {}).get("leases", [])
        )

    def kill(self, *names: str, number: int = signal.SIGKILL) -> None:
        """``kill -9`` programs, all of them by default."""
        for name in names or list(self._processes):
            process = self._processes.pop(name)
            process.send_signal(signal.SIGCONT)
            process.send_signal(number)
            process.wait(10)
            (self.directory / f"kea{name[-1]}-ctrl-socket").unlink(missing_ok=True)

    @contextlib.contextmanager
    def frozen(self, *names: str) -> Iterator[None]:
        """The programs stand still: no answer, and no error either."""
        processes = [self._processes[name] for name in names or self._processes]
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)

    def log(self) -> str:
        path = self.directory / "kea.log"
        return path.read_text() if path.exists() else ""

    def stop(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.kill(number=signal.SIGTERM)
