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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from topo import echo
from topo.nodes import Nodes, wait_for
from topo.plan import INBOUND_PORT, SERVER, Subscriber

INTERVAL = 0.01
"""Seconds between two packets of a stream."""
_WORDS_EVERY = 2
"""Connections carry a word with every second packet."""
_UDP_PORT = 9000
_NUMBER = struct.Struct("!HI")
_WORD = b"lw4over6"
_REOPEN_SECONDS = 0.3
_SILENCE_SECONDS = 1.0

Call = Callable[[], None]


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


@dataclass
class Connection:
    """A TCP connection on which every word comes back; opened anew when it breaks."""

    subscriber: int
    opened: list[float] = field(default_factory=list)
    broken: list[float] = field(default_factory=list)
    echoes: list[float] = field(default_factory=list)

    def works(self, at: float) -> bool:
        """Whether words came back in the second before."""
        return any(at - _SILENCE_SECONDS <= when <= at for when in reversed(self.echoes))

    def survived(self, since: float, until: float) -> bool:
        """Whether it did not break between two times, and works at the end."""
        return not any(since <= when < until for when in self.broken) and self.works(until)


class Traffic:
    """For use as a context: traffic flows inside. ``quiet`` subscribers send nothing."""

    def __init__(
        self, nodes: Nodes, busy: Sequence[Subscriber], quiet: Sequence[Subscriber] = ()
    ) -> None:
        self.streams: dict[tuple[int, str], Stream] = {
            (sub.number, way): Stream(sub.number, way) for sub in busy for way in ("up", "down")
        }
        self.outbound = {sub.number: Connection(sub.number) for sub in busy}
        self.inbound = {sub.number: Connection(sub.number) for sub in busy}
        self.addresses: dict[int, list[tuple[float, IPv4Address]]] = {
            sub.number: [] for sub in busy
        }
        """What the Internet saw each subscriber's packets come from, and since when."""
        self._nodes = nodes
        self._busy = busy
        self._selector = selectors.DefaultSelector()
        self._todo: list[Call] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ends = contextlib.ExitStack()
        self._server = self._udp("inet", (str(SERVER), _UDP_PORT))
        self._hosts = {sub.number: self._udp(sub.host) for sub in busy}
        self._far: dict[int, tuple[str, int]] = {}
        self._words: list[Call] = []
        self._listen(self._server, self._read_server)
        for sub in busy:
            self._listen(self._hosts[sub.number], self._reader(sub.number))
            here = sub.host
            self._open(self.outbound[sub.number], here, (str(SERVER), echo.PORT))
            self._open(self.inbound[sub.number], "inet", (str(sub.ipv4), sub.inbound_port))
        for sub in (*busy, *quiet):
            self._answer(sub.host)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._selector.close()
        self._ends.close()

    @property
    def connections(self) -> list[Connection]:
        return [*self.outbound.values(), *self.inbound.values()]

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
                connection.connect((str(sub.ipv4), sub.inbound_port))
                connection.sendall(_WORD)
                return connection.recv(len(_WORD)) == _WORD
            except OSError:
                return False

    # --- the loop ---

    def _run(self) -> None:
        due = time.monotonic()
        for tick in itertools.count():
            while (left := due - time.monotonic()) > 0:
                self._serve(left)
            if self._stop.is_set():
                return
            self._send()
            if tick % _WORDS_EVERY == 0:
                for word in self._words:
                    word()
            due = max(due + INTERVAL, time.monotonic())

    def _serve(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            key.data()

    def _listen(self, where: socket.socket, call: Call, events: int = selectors.EVENT_READ) -> None:
        self._selector.register(where, events, call)

    # --- numbered packets ---

    def _udp(self, node: str, address: tuple[str, int] | None = None) -> socket.socket:
        with self._nodes.inside(node):
            end = self._ends.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        if address is not None:
            end.bind(address)
        return end

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

    def _reader(self, number: int) -> Call:
        def read() -> None:
            for data, _ in _datagrams(self._hosts[number]):
                self._arrived(data, "down")

        return read

    def _arrived(self, data: bytes, way: str) -> int:
        subscriber, number = _NUMBER.unpack(data)
        self.streams[subscriber, way].arrivals.append((time.monotonic(), number))
        return int(subscriber)

    # --- connections ---

    def _open(self, connection: Connection, node: str, address: tuple[str, int]) -> None:
        """Keep a connection open from a node to an address."""
        state: dict[str, socket.socket] = {}
        again = 0.0

        def begin() -> None:
            with self._nodes.inside(node):
                end = socket.socket()
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.connect_ex(address)
            state["end"] = end
            self._listen(end, read)

        def close() -> None:
            nonlocal again
            end = state.pop("end")
            self._selector.unregister(end)
            end.close()
            again = time.monotonic() + _REOPEN_SECONDS

        def read() -> None:
            try:
                data = state["end"].recv(65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            now = time.monotonic()
            if data:
                connection.echoes.append(now)
            else:
                if len(connection.opened) > len(connection.broken):
                    connection.broken.append(now)
                close()

        def word() -> None:
            end = state.get("end")
            if end is None:
                if time.monotonic() >= again:
                    begin()
                return
            try:
                end.send(_WORD)
            except (BlockingIOError, BrokenPipeError, ConnectionResetError):
                return  # not open yet, full, or about to be read as broken
            except OSError:
                close()
                return
            if len(connection.opened) == len(connection.broken):
                connection.opened.append(time.monotonic())

        begin()
        self._words.append(word)
        self._ends.callback(lambda: list(map(socket.socket.close, state.values())))

    def _answer(self, node: str) -> None:
        """A host behind an lwB4 that sends back whatever comes by the forwarded port."""
        with self._nodes.inside(node):
            listener = self._ends.enter_context(socket.create_server(("", INBOUND_PORT)))
        listener.setblocking(False)

        def accept() -> None:
            with contextlib.suppress(OSError):
                end, _ = listener.accept()
                end.setblocking(False)
                self._ends.enter_context(end)
                self._listen(end, lambda: give_back(end))

        def give_back(end: socket.socket) -> None:
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
            end.close()

        self._listen(listener, accept)


def _datagrams(end: socket.socket) -> list[tuple[bytes, tuple[str, int]]]:
    """All that have come."""
    found = []
    with contextlib.suppress(OSError):
        while True:
            found.append(end.recvfrom(64))
    return found
