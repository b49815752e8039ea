"""A PostgreSQL server of its own: in a directory, on a Unix socket, gone afterwards."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

BIN = Path("/usr/lib/postgresql/15/bin")
USER = "postgres"  # the server refuses to run as root
_SOCKET = ".s.PGSQL.5432"


class Postgres:
    """A running server. ``directory`` must not be below one that only root can enter."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        directory.mkdir(parents=True, exist_ok=True)
        subprocess.run(["chown", USER, str(directory)], check=True)
        self._run(BIN / "initdb", "-D", self.data, "-A", "trust", "-E", "UTF8", "--no-sync")
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self._run(BIN / "createdb", "-h", directory, "lw4o6")

    @property
    def directory(self) -> Path:
        """Where its Unix socket is."""
        return self._directory

    @property
    def url(self) -> str:
        return self.url_at(self._directory)

    def url_at(self, host: object) -> str:
        """The URL of the database at an address, or at the socket in a directory."""
        return f"postgresql+psycopg://{USER}@/lw4o6?host={host}"

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            # After a kill, processes of the old server may still be on their way out.
            if self._process is None or self._process.poll() is not None:
                self._process = self._popen()
            done = self._run(BIN / "pg_isready", "-h", self._directory, check=False)
            if done.returncode == 0:
                return
            time.sleep(0.05)
        raise TimeoutError(f"PostgreSQL did not start:\n{(self._directory / 'log').read_text()}")

    def _popen(self) -> subprocess.Popen[bytes]:
        with (self._directory / "log").open("ab") as log:
            return subprocess.Popen(
                [str(BIN / "postgres"), "-D", str(self.data), "-k", str(self._directory),
                 "-c", "listen_addresses="],
                stdout=log, stderr=log, user=USER, group=USER, extra_groups=[], cwd="/",
            )  # fmt: skip

    def kill(self) -> None:
        """``kill -9`` the server; its other processes leave when they see that it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The server stands still, with its connections open: no answer, and no error either."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        pids = [self._process.pid, *map(int, children.read_text().split())]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            # The server last: it clears away those that have ended.
            for pid in reversed(pids):
                os.kill(pid, signal.SIGCONT)

    def new_database(self, name: str, script: Path) -> None:
        """A database of this name, made by a script, in the place of the one there was."""
        for command in ("drop database if exists", "create database"):
            self.sql(f"{command} {name}")
        self._run(BIN / "psql", "-h", self._directory, "-d", name, "-qX", "-f", script)

    def sql(self, statement: str) -> str:
        done = self._run(
            BIN / "psql", "-h", self._directory, "-d", "lw4o6", "-AtqX", "-c", statement
        )
        return done.stdout.strip()

    def _run(self, *command: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(part) for part in command], user=USER, group=USER, extra_groups=[], cwd="/",
            check=check, capture_output=True, text=True, timeout=60,
        )  # fmt: skip


def listener_in(directory: Path) -> socket.socket:
    """Where the database's library looks for a server that is said to be in this directory."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(directory / _SOCKET))
    listener.listen()
    return listener


class Way:
    """Another way to a server. When the next commit ``is_lost``, the server does it, and the
    connection breaks instead of bringing its answer."""

    def __init__(self, server: Postgres, listener: socket.socket) -> None:
        self.is_lost = False
        self._target = str(server.directory / _SOCKET)
        self._listener = listener
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(self._target)
            ends = {client: server, server: client}
            lost = False
            while True:
                for source in select.select(ends, (), ())[0]:
                    data = source.recv(1 << 16)
                    if not data or (lost and source is server):
                        return
                    if self.is_lost and b"COMMIT" in data:
                        self.is_lost, lost = False, True
                    ends[source].sendall(data)
