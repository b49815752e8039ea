"""Room for bursts in the packet sockets through which ovs-vswitchd reads its NICs.

Open vSwitch leaves its sockets' buffers at net.core.rmem_default, about fifty frames: a userspace
datapath that the scheduler sets aside for a few milliseconds loses packets. That setting belongs to
the whole machine, and cannot be written in a network namespace; so the sockets of this
ovs-vswitchd, and no others, are given more.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

SIZE = 8 << 20
"""Bytes asked for. The kernel doubles it, for its own bookkeeping."""

_SO_RCVBUFFORCE = 33
_PIDFD_GETFD = 438
_PROCESS = "ovs-vswitchd"
_LIBC = ctypes.CDLL(None, use_errno=True)


def enlarge(nics: Sequence[str], size: int = SIZE) -> dict[str, int]:
    """Give every packet socket of ovs-vswitchd on ``nics`` room for ``size`` bytes.

    Returns what the smallest socket of each NIC has now; a NIC without a socket is missing.
    Raises OSError where the kernel does not let us.
    """

    def grow(borrowed: socket.socket) -> None:
        if borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < size:
            borrowed.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)

    return _visit(nics, grow)


def sizes(nics: Sequence[str]) -> dict[str, int]:
    """The receive buffer, in bytes, of the smallest socket of each NIC. Raises OSError."""
    return _visit(nics, lambda _: None)


def packet_sockets(table: str) -> dict[int, int]:
    """Inode and interface index of every packet socket that receives, from /proc/net/packet."""
    rows = (line.split() for line in table.splitlines()[1:])
    return {int(row[8]): int(row[4]) for row in rows if int(row[3], 16) and int(row[4])}


def _visit(nics: Sequence[str], use: Callable[[socket.socket], None]) -> dict[str, int]:
    names = {socket.if_nametoindex(nic): nic for nic in nics}
    inodes = packet_sockets(Path("/proc/thread-self/net/packet").read_text())
    wanted = {inode: names[index] for inode, index in inodes.items() if index in names}
    found: dict[str, int] = {}
    for pid in _processes():
        for descriptor, inode in _descriptors(pid):
            if inode in wanted:
                with _borrow(pid, descriptor) as borrowed:
                    use(borrowed)
                    size = borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
                nic = wanted[inode]
                found[nic] = min(size, found.get(nic, size))
    return found


def _processes() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "comm").read_text().strip() == _PROCESS:
                yield int(entry.name)


def _descriptors(pid: int) -> Iterator[tuple[int, int]]:
    """Descriptor and inode of every socket a process has open."""
    directory = Path(f"/proc/{pid}/fd")
    for entry in list(directory.iterdir()):
        with contextlib.suppress(OSError):  # closed in the meantime
            target = os.readlink(entry)
            if target.startswith("socket:["):
                yield int(entry.name), int(target[8:-1])


@contextlib.contextmanager
def _borrow(pid: int, descriptor: int) -> Iterator[socket.socket]:
    process = os.pidfd_open(pid)
    try:
        copy = _LIBC.syscall(_PIDFD_GETFD, process, descriptor, 0)
    finally:
        os.close(process)
    if copy < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    with socket.socket(fileno=copy) as borrowed:
        yield borrowed
