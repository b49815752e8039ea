"""Network namespaces for tests: make one, step inside, send and receive frames."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import socket
import struct
import time
import uuid
from collections.abc import Iterator, Mapping

from tests.support.ovs import run

_CLONE_NEWNET = 0x40000000
_SOL_PACKET, _PACKET_AUXDATA, _VLAN_VALID = 263, 8, 1 << 4
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
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
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


def _vlan(ancillary: list[tuple[int, int, bytes]]) -> int:
    """What the kernel took off a frame: struct tpacket_auxdata of <linux/if_packet.h>."""
    for level, kind, data in ancillary:
        if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
            status, vlan = struct.unpack_from("=I12xH", data)
            return vlan & 0xFFF if status & _VLAN_VALID else 0
    return 0


def _tagged(frame: bytes, vlan: int) -> bytes:
    return frame[:12] + b"\x81\x00" + vlan.to_bytes(2, "big") + frame[12:]


def _renamed(frame: bytes, names: Mapping[bytes, bytes]) -> bytes:
    return b"".join(names.get(mac, mac) for mac in (frame[:6], frame[6:12])) + frame[12:]


class Wire:
    """A raw socket on an interface, which sees the frames that come in by it.

    Frames that come in by ``vlan`` are shown without their tag, others with it, or not at all
    without ``others``. ``renamed`` are MAC addresses here and on the wire.
    """

    def __init__(
        self, device: str, vlan: int = 0, *, others: bool = True,
        renamed: Mapping[bytes, bytes] | None = None,
    ) -> None:  # fmt: skip
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind((device, 0))
        self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        self.sent = 0
        self._vlan = vlan
        self._others = others
        self._to_wire = dict(renamed or {})
        self._from_wire = {there: here for here, there in self._to_wire.items()}

    def send(self, frame: bytes) -> None:
        self._socket.send(_renamed(frame, self._to_wire))
        self.sent += 1

    def receive(self, timeout: float = 2.0) -> bytes | None:
        """The next frame that came in; None when there is none for ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._socket], [], [], left)[0]:
                return None
            frame, ancillary, _, address = self._socket.recvmsg(65536, 256)
            if address[2] != socket.PACKET_OUTGOING:
                frame = _renamed(frame, self._from_wire)
                if (vlan := _vlan(ancillary)) == self._vlan:
                    return frame
                if self._others:
                    return _tagged(frame, vlan)
        return None

    def close(self) -> None:
        self._socket.close()
