"""TCP connections on which every word comes back, opened anew when they break."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from dataclasses import dataclass, field

from topo.nodes import Nodes

WORD = b"lw4over6"
_REOPEN_SECONDS = 0.3
_SILENCE_SECONDS = 1.0


@dataclass
class Record:
    """What became of a connection: times."""

    opened: list[float] = field(default_factory=list)
    broken: list[float] = field(default_factory=list)
    echoes: list[float] = field(default_factory=list)

    def works(self, at: float) -> bool:
        """Whether words came back in the second before."""
        return any(at - _SILENCE_SECONDS <= when <= at for when in reversed(self.echoes))

    def survived(self, since: float, until: float) -> bool:
        """Whether it worked before, did not break between two times, and works at the end."""
        unbroken = not any(since <= when < until for when in self.broken)
        return self.works(since) and unbroken and self.works(until)


class Talker:
    """Keeps a connection open from a node to an address, and writes down what becomes of it."""

    def __init__(
        self, nodes: Nodes, selector: selectors.BaseSelector, node: str, address: tuple[str, int]
    ) -> None:
        self.record = Record()
        self._nodes = nodes
        self._selector = selector
        self._node = node
        self._address = address
        self._again = 0.0
        self._end: socket.socket | None = None

    def word(self) -> None:
        """Say a word, or open the connection again if it is time to."""
        if self._end is None:
            if time.monotonic() >= self._again:
                self._open()
            return
        try:
            self._end.send(WORD)
        except OSError:
            return  # not open yet, or full, or about to be read as broken
        if len(self.record.opened) == len(self.record.broken):
            self.record.opened.append(time.monotonic())

    def close(self) -> None:
        if self._end is not None:
            self._selector.unregister(self._end)
            self._end.close()
            self._end = None
            self._again = time.monotonic() + _REOPEN_SECONDS

    def _open(self) -> None:
        with self._nodes.inside(self._node):
            self._end = socket.socket()
        self._end.setblocking(False)
        self._end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(self._end, selectors.EVENT_READ, self._read)
        self._end.connect_ex(self._address)

    def _read(self) -> None:
        assert self._end is not None
        try:
            data = self._end.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        now = time.monotonic()
        if data:
            self.record.echoes.append(now)
            return
        if len(self.record.opened) > len(self.record.broken):
            self.record.broken.append(now)
        self.close()


class Answerer:
    """A host that sends back whatever comes to one of its ports."""

    def __init__(
        self, nodes: Nodes, selector: selectors.BaseSelector, node: str, port: int
    ) -> None:
        self._selector = selector
        with nodes.inside(node):
            self._ends = [socket.create_server(("", port))]
        self._ends[0].setblocking(False)
        selector.register(self._ends[0], selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            end, _ = self._ends[0].accept()
            end.setblocking(False)
            self._ends.append(end)
            self._selector.register(end, selectors.EVENT_READ, lambda: self._give_back(end))

    def _give_back(self, end: socket.socket) -> None:
        try:
            data = end.recv(65536)
            if data:
                end.send(data)
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._selector.unregister(end)
        self._ends.remove(end)
        end.close()
