"""The lab by its commands, and what is left of it."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from topo.build import RUN
from topo.failover.build import FailoverBuilder
from topo.labs import standing
from topo.plan import SERVER

NAME = "lw4o6-test"
LAB = Path(sys.executable).parent / "lw4o6-lab"


def lab(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(LAB), "--name", NAME, *command], capture_output=True, text=True, timeout=120
    )


def left() -> list[str]:
    """What there is of the lab on this machine."""
    namespaces = subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout.split()
    found = [name for name in namespaces if name.startswith(NAME)]
    if (RUN / NAME).exists():
        found.append(str(RUN / NAME))
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{RUN / NAME}".encode() in entry.read_bytes():
                found.append(entry.parent.name)
        except OSError:
            continue
    return found


def up(*options: str) -> FailoverBuilder:
    done = lab("up", "--failover", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    builder = standing("lw4o6-test")
    assert isinstance(builder, FailoverBuilder)
    return builder


PINGS_PER_SECOND = 100


class Ping:
    """From behind an lwB4 to the Internet host, until it is asked how it was."""

    def __init__(self, builder: FailoverBuilder, host: str) -> None:
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (a pipe would be full soon)
        self._process = subprocess.Popen(
            builder.command(
                host, "ping", "-i", str(1 / PINGS_PER_SECOND), "-w", "60", str(SERVER)
            ),
            stdout=self._said,
        )  # fmt: skip

    def lost(self) -> int:
        """How many were lost, but for one that was still under way."""
        self._process.send_signal(2)
        self._process.wait(10)
        with self._said:
            self._said.seek(0)
            text = self._said.read()
        answered = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl", text)}
        (sent,) = map(int, re.findall(r"(\d+) packets transmitted", text))
        expected = set(range(1, sent + 1)) - ({sent} - answered)
        return len(expected - answered)
