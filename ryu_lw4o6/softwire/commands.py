"""The programs that load and show BPF, run as root."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from ryu_lw4o6.core.errors import AdvisedError

_PACKAGES = {"clang": "clang", "bpftool": "bpftool", "ip": "iproute2", "tc": "iproute2"}


class ShimError(AdvisedError):
    """The shim cannot be loaded, attached or read."""


def require_root() -> None:
    if os.geteuid() != 0:
        raise ShimError("only root may load BPF programs", "Run it as root, with sudo for instance")


def run(
    *command: str,
    failure: str = "",
    suggestion: str = "See the kernel's log (dmesg) for the reason",
) -> str:
    """What a command prints. Raises ShimError with ``failure`` and the command's last words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        package = _PACKAGES.get(command[0], command[0])
        raise ShimError(
            f"{command[0]} is not installed", f"Install it: apt-get install {package}"
        ) from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        what = failure or f"{' '.join(command[:4])} failed"
        raise ShimError(f"{what}: {lines[-1]}", suggestion)
    return done.stdout


def read(*command: str) -> Any:
    """The JSON that a command prints. Raises ShimError."""
    text = run(*command).strip()
    return json.loads(text) if text else []
