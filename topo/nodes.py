"""Namespaces of a lab, and what runs in them.

Every process in one of those namespaces is the lab's: taking a lab down needs no notes, and works
after a crash as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
PATIENCE = float(os.environ.get("LW4O6_LAB_PATIENCE", "1"))
"""How many times longer than usual to wait, for a machine that is emulated."""

_SHOWN = 3
"""Lines of what a command that failed said last."""
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """Something in the lab did not do what it should; the message says what and where to look."""


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


class Nodes:
    """The nodes of the lab called ``name``; their logs are in ``directory``."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory

    def namespace(self, node: str) -> str:
        return f"{self.name}-{node}"

    def command(self, node: str, *command: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.namespace(node)}", *command]

    def environment(self, node: str) -> dict[str, str]:
        """Each node has an Open vSwitch or a Kea of its own, if it has one."""
        place = str(self.directory / node)
        own = {f"OVS_{kind}DIR": place for kind in ("RUN", "LOG", "DB", "SYSCONF")}
        own |= {f"KEA_{kind}_DIR": place for kind in ("PIDFILE", "LOCKFILE")}
        return {**os.environ, **own, "PATH": f"{BIN}:{os.environ['PATH']}"}

    def run(
        self, node: str, *command: str, check: bool = True, text: str | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """Run a command in a node. Raises LabError if it fails and ``check`` is set."""
        done = subprocess.run(
            self.command(node, *command), capture_output=True, text=True, input=text,
            env=self.environment(node), cwd="/", timeout=timeout * PATIENCE,
        )  # fmt: skip
        if check and done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines()[-_SHOWN:]
            message = "; ".join(lines) or f"status {done.returncode}"
            raise LabError(f"{node}: {' '.join(command)}: {message}")
        return done

    def start(self, node: str, log: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a process in a node; its output goes to a log of the lab."""
        with (self.directory / f"{log}.log").open("ab") as output:
            return subprocess.Popen(
                self.command(node, *command), stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True, env=self.environment(node),
                cwd="/",
            )  # fmt: skip

    def running(self, node: str, pid_file: Path) -> int | None:
        """The process of a node whose id is in a file, None if there is none: the id of one that
        has died may be another's by now."""
        try:
            pid = int(pid_file.read_text())
            place = os.stat(f"/proc/{pid}/ns/net").st_ino
            home = os.stat(f"/run/netns/{self.namespace(node)}").st_ino
        except (OSError, ValueError):
            return None
        return pid if place == home and alive(pid) else None

    @contextlib.contextmanager
    def inside(self, node: str) -> Iterator[None]:
        """Let this thread live in a node: sockets made meanwhile stay there."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        target = os.open(f"/run/netns/{self.namespace(node)}", os.O_RDONLY)
        try:
            _enter(target)
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(home)
            os.close(target)

    def make(self, nodes: Iterable[str]) -> None:
        for node in nodes:
            ip("netns", "add", self.namespace(node))

    def standing(self, nodes: Iterable[str]) -> list[str]:
        """Which of these nodes there are."""
        return [node for node in nodes if Path("/run/netns", self.namespace(node)).exists()]

    def remove(self, nodes: Iterable[str]) -> None:
        """End what runs in these nodes, and remove them."""
        namespaces = [self.namespace(node) for node in self.standing(nodes)]
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + 3
            for pid in _processes(namespaces):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            while _processes(namespaces) and time.monotonic() < deadline:
                time.sleep(0.02)
        for namespace in namespaces:
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)


def ip(*command: str) -> None:
    """Run ``ip`` where we are. Raises LabError."""
    done = subprocess.run(["ip", *command], capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"ip {' '.join(command)}: {done.stderr.strip()}")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def kill(pids: Sequence[int]) -> None:
    """``kill -9`` all of them at once, and wait until they are gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for("what was killed is gone", lambda: not any(map(alive, pids)))


def _processes(namespaces: Sequence[str]) -> list[int]:
    pids: list[int] = []
    for name in namespaces:
        done = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
        pids += [int(pid) for pid in done.stdout.split() if int(pid) != os.getpid()]
    return pids


def _enter(descriptor: int) -> None:
    if _LIBC.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
