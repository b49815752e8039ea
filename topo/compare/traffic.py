"""What subscribers do while an lwAFTR dies: numbered packets both ways, and TCP connections.

One process has all ends: a socket stays in the network namespace in which it was made. So there is
one clock, and nothing to collect afterwards.
"""

from __future__ import annotations

import contextlib
import itertools
import selectors
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address

from topo import echo
from topo.build import Builder
from topo.compare.connections import WORD, Answerer, Record, Talker
from topo.nodes import LabError, wait_for
from topo.plan import INBOUND_PORT, SERVER, Subscriber

INTERVAL = 0.01
"""Seconds between two packets of a stream."""
_WORDS_EVERY = 2
"""Connections carry a word with every second packet."""
_UDP_PORT = 9000
_NUMBER = struct.Struct("!HI")


@dataclass
class Stream:
    """Numbered packets of one subscriber, one way: up or down."""

    subscriber: int
    way: str
    sent: list[float] = field(default_factory=list)
    """When each was sent, by its number."""
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    """When, and which."""

    def next_packet(self, now: float) -> bytes:
        self.sent.append(now)
        return _NUMBER.pack(self.subscriber, len(self.sent) - 1)


class Traffic:
    """For use as a context: traffic flows inside. ``quiet`` subscribers send nothing."""

    def __init__(
        self, nodes: Builder, busy: Sequence[Subscriber], quiet: Sequence[Subscriber] = ()
    ) -> None:
        self.streams: dict[tuple[int, str], Stream] = {
            (sub.number, way): Stream(sub.number, way) for sub in busy for way in ("up", "down")
        }
        self.addresses: dict[int, list[tuple[float, IPv4Address]]] = {
            sub.number: [] for sub in busy
        }
        """What the Internet saw each subscriber's packets come from, and since when."""
        self._nodes = nodes
        self._busy = busy
        self._reached = {sub.number: self._reached_at(sub) for sub in (*busy, *quiet)}
        self._selector = selectors.DefaultSelector()
        self._ends = contextlib.ExitStack()
        self._server = self._udp("inet", (str(SERVER), _UDP_PORT))
        self._hosts = {sub.number: self._udp(sub.host) for sub in busy}
        self._far: dict[int, tuple[str, int]] = {}
        self._selector.register(self._server, selectors.EVENT_READ, self._read_server)
        for number, host in self._hosts.items():
            self._selector.register(host, selectors.EVENT_READ, partial(self._read_host, number))
        self._outbound = [self._talker(sub.host, (str(SERVER), echo.PORT)) for sub in busy]
        self._inbound = [self._talker("inet", self._reached[sub.number]) for sub in busy]
        for sub in (*busy, *quiet):
            answerer = Answerer(nodes, self._selector, sub.host, INBOUND_PORT)
            self._ends.callback(answerer.close)
        self._stop = threading.Event()
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _reached_at(self, sub: Subscriber) -> tuple[str, int]:
        """Where the Internet reaches a subscriber's host, to begin with."""
        found = self._nodes.lwb4s.address(sub)
        if found is None:
            raise LabError(f"lwB4 {sub.number} has no lease")
        return str(found[0]), found[1]

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._ends.close()
        self._selector.close()
        if self._fault is not None:
            raise self._fault

    @property
    def outbound(self) -> list[Record]:
        """One connection of each subscriber, to the Internet."""
        return [talker.record for talker in self._outbound]

    @property
    def inbound(self) -> list[Record]:
        """One connection from the Internet to each subscriber."""
        return [talker.record for talker in self._inbound]

    @property
    def connections(self) -> list[Record]:
        return [*self.outbound, *self.inbound]

    def wait_flowing(self) -> None:
        """Until there is traffic both ways, and all connections work. Raises LabError."""
        wait_for("all streams flow", lambda: all(s.arrivals for s in self.streams.values()))
        wait_for("all connections work", lambda: all(c.echoes for c in self.connections))

    def can_connect(self, sub: Subscriber, seconds: float) -> bool:
        """Whether a new connection from the Internet to a subscriber's forwarded port comes about
        and a word comes back on it."""
        with self._nodes.inside("inet"), socket.socket() as connection:
            connection.settimeout(seconds)
            try:
                connection.connect(self._reached[sub.number])
                connection.sendall(WORD)
                return connection.recv(len(WORD)) == WORD
            except OSError:
                return False

    # --- the loop ---

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:
            self._fault = error

    def _work(self) -> None:
        due = time.monotonic()
        for tick in itertools.count():
            while (left := due - time.monotonic()) > 0:
                for key, _ in self._selector.select(left):
                    key.data()
            if self._stop.is_set():
                return
            self._send()
            if tick % _WORDS_EVERY == 0:
                for talker in (*self._outbound, *self._inbound):
                    talker.word()
            due = max(due + INTERVAL, time.monotonic())

    # --- numbered packets ---

    def _udp(self, node: str, address: tuple[str, int] | None = None) -> socket.socket:
        with self._nodes.inside(node):
            end = self._ends.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        if address is not None:
            end.bind(address)
        return end

    def _talker(self, node: str, address: tuple[str, int]) -> Talker:
        talker = Talker(self._nodes, self._selector, node, address)
        self._ends.callback(talker.close)
        return talker

    def _send(self) -> None:
        for sub in self._busy:
            number = sub.number
            up = self.streams[number, "up"].next_packet(time.monotonic())
            with contextlib.suppress(OSError):
                self._hosts[number].sendto(up, (str(SERVER), _UDP_PORT))
            if number in self._far:
                down = self.streams[number, "down"].next_packet(time.monotonic())
                with contextlib.suppress(OSError):
                    self._server.sendto(down, self._far[number])

    def _read_server(self) -> None:
        for data, sender in _datagrams(self._server):
            number = self._arrived(data, "up")
            if self._far.get(number) != sender:
                self._far[number] = sender
                seen = self.addresses[number]
                address = IPv4Address(sender[0])
                if not seen or seen[-1][1] != address:
                    seen.append((time.monotonic(), address))

    def _read_host(self, number: int) -> None:
        for data, _ in _datagrams(self._hosts[number]):
            self._arrived(data, "down")

    def _arrived(self, data: bytes, way: str) -> int:
        subscriber, number = _NUMBER.unpack(data)
        self.streams[subscriber, way].arrivals.append((time.monotonic(), number))
        return int(subscriber)


def _datagrams(end: socket.socket) -> list[tuple[bytes, tuple[str, int]]]:
    """All that have come."""
    found = []
    with contextlib.suppress(OSError):
        while True:
            found.append(end.recvfrom(64))
    return found
