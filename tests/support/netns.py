"""Network namespaces for tests: make one, step inside, send and receive frames."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import socket
import time
import uuid
from collections.abc import Iterator

from tests.support.ovs import run

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    """A new network namespace, by name, gone at the end."""
    name = f"t{uuid.uuid4().hex[:8]}"
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        run("ip", "netns", "del", name, check=False)


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """Let this thread, and the processes it starts, live in a network namespace."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    target = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        _set(target)
        try:
            yield
        finally:
            _set(home)
    finally:
        os.close(home)
        os.close(target)


def _set(descriptor: int) -> None:
    if _LIBC.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Wire:
    """A raw socket on an interface, which sees the frames that come in by it."""

    def __init__(self, device: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind((device, 0))
        self.sent = 0

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)
        self.sent += 1

    def receive(self, timeout: float = 2.0) -> bytes | None:
        """The next frame that came in; None when there is none for ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._socket], [], [], left)[0]:
                return None
            frame, address = self._socket.recvfrom(65536)
            if address[2] != socket.PACKET_OUTGOING:
                return frame
        return None

    def close(self) -> None:
        self._socket.close()
