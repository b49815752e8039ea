"""What ovs-vswitchd needs and has no setting for, where it reads NICs through packet sockets.

*Room for bursts.* Open vSwitch leaves its sockets' buffers at net.core.rmem_default, about fifty
frames: a datapath that the scheduler sets aside for a few milliseconds loses packets. That setting
belongs to the whole machine, and cannot be written in a network namespace; so the sockets of this
ovs-vswitchd, and no others, are given more.

*Revalidators that make way.* After every change of flows they look at all that the datapath has.
While thousands of bindings are made this is as much work as forwarding, but not in such a hurry:
where processors are few, the thread that forwards goes first.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SIZE = 8 << 20
"""Bytes asked for. The kernel doubles it, for its own bookkeeping."""
NICE = 10
"""Of threads that make way: they have a tenth of a processor that somebody else wants, too."""

_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_PIDFD_GETFD = 438
_PROCESS = "ovs-vswitchd"
_REVALIDATOR = "revalidator"
_LIBC = ctypes.CDLL(None, use_errno=True)


def prepare(nics: Sequence[str], size: int = SIZE) -> None:
    """Give every packet socket of ovs-vswitchd on ``nics`` room for ``size`` bytes, and let its
    revalidators make way. Raises OSError where the kernel does not let us."""
    pids = set()
    for pid, _, borrowed in _sockets(nics):
        pids.add(pid)
        if borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < size:
            borrowed.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    for pid in pids:
        for thread in revalidators(pid):
            with contextlib.suppress(ProcessLookupError):
                if os.getpriority(os.PRIO_PROCESS, thread) < NICE:
                    os.setpriority(os.PRIO_PROCESS, thread, NICE)


def sizes(nics: Sequence[str]) -> dict[str, int]:
    """The receive buffer, in bytes, of the smallest socket of each NIC; a NIC without a socket is
    missing. Raises OSError."""
    found: dict[str, int] = {}
    for _, nic, borrowed in _sockets(nics):
        size = borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        found[nic] = min(size, found.get(nic, size))
    return found


@dataclass(frozen=True, slots=True)
class Queue:
    """A packet socket of ovs-vswitchd: packets wait there until it reads them."""

    pid: int
    descriptor: int
    inode: int


def queues(nics: Sequence[str]) -> list[Queue]:
    """Where packets from ``nics`` wait. Raises OSError."""
    return [queue for queue, _ in _queues(nics)]


def fill(queue: Queue) -> float:
    """How much of the room is taken, of 1. Raises OSError if the socket is closed.

    It is borrowed anew each time: one that ovs-vswitchd has left behind would go on receiving.
    """
    with _borrow(queue.pid, queue.descriptor) as borrowed:
        if os.fstat(borrowed.fileno()).st_ino != queue.inode:
            raise OSError(errno.EBADF, "another socket")
        taken, room = struct.unpack_from(
            "=II", borrowed.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 64)
        )
    return float(taken / room)


def revalidators(pid: int) -> list[int]:
    """Their thread ids."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            if (task / "comm").read_text().startswith(_REVALIDATOR):
                found.append(int(task.name))
    return found


def packet_sockets(table: str) -> dict[int, int]:
    """Inode and interface index of every packet socket that receives, from /proc/net/packet."""
    rows = (line.split() for line in table.splitlines()[1:])
    return {int(row[8]): int(row[4]) for row in rows if int(row[3], 16) and int(row[4])}


def _sockets(nics: Sequence[str]) -> Iterator[tuple[int, str, socket.socket]]:
    """Every packet socket on ``nics`` that an ovs-vswitchd has: its process, the NIC, and the
    socket, borrowed for as long as the caller looks at it."""
    for queue, nic in _queues(nics):
        with _borrow(queue.pid, queue.descriptor) as borrowed:
            yield queue.pid, nic, borrowed


def _queues(nics: Sequence[str]) -> Iterator[tuple[Queue, str]]:
    names = {socket.if_nametoindex(nic): nic for nic in nics}
    inodes = packet_sockets(Path("/proc/thread-self/net/packet").read_text())
    wanted = {inode: names[index] for inode, index in inodes.items() if index in names}
    for pid in _processes():
        for descriptor, inode in _descriptors(pid):
            if inode in wanted:
                yield Queue(pid, descriptor, inode), wanted[inode]


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
    try:
        borrowed = socket.socket(fileno=copy)
    except OSError:  # the number has become that of something else
        os.close(copy)
        raise
    with borrowed:
        yield borrowed
