"""The lwB4's agent as a process: sockets in the tunnel's namespace, a clock, a control socket."""

from __future__ import annotations

import contextlib
import json
import logging
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from ryu_lw4o6.core import dhcpv6, pcp
from topo.lwb4.agent import Agent
from topo.lwb4.machine import Send
from topo.lwb4.softwire import B4_ADDRESS

LOG = logging.getLogger("lwb4")

PCP_SERVER = ("192.0.0.1", pcp.SERVER_PORT)
"""Of the lwAFTR, inside the softwire (RFC 6333 section 5.7 has the address)."""
_ICMP6_FILTER = 1
_UNREACHABLE = 1  # ICMPv6 type
_LARGEST = 65535
_AT_ONCE = 64  # datagrams read from one socket before the others have their turn


class Sockets:
    """What the agent sends by and hears from."""

    def __init__(self, lwb4: IPv6Address, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._lwb4 = str(lwb4)
        self._send: Callable[[Send], object] = lambda _: None

    def icmpv6(self, deliver: Callable[[bytes, IPv6Address], None]) -> None:
        """Hear ICMPv6 destination unreachable messages to the lwB4's address."""
        raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        blocked = [0xFFFFFFFF] * 8  # a bit for each type (RFC 3542 section 3.2)
        blocked[0] &= ~(1 << _UNREACHABLE)
        raw.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *blocked))
        raw.bind((self._lwb4, 0))
        self._hear(raw, lambda data, source: deliver(data, _ipv6(source)))

    def pcp(self, deliver: Callable[[bytes], None]) -> None:
        """A PCP client's sockets inside the softwire, one for ANNOUNCE (RFC 6887 section 14.1)."""
        request = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        request.bind((str(B4_ADDRESS), 0))
        request.connect(PCP_SERVER)  # what others send is not for this socket
        announce = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        announce.bind((str(B4_ADDRESS), pcp.CLIENT_PORT))
        announce.connect(PCP_SERVER)
        self._hear(request, lambda data, _: deliver(data))
        self._hear(announce, lambda data, _: deliver(data))
        self._send = lambda send: request.send(send.payload)

    def dhcp(self, deliver: Callable[[bytes], None]) -> None:
        """A DHCPv6 client's socket."""
        client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        client.bind((self._lwb4, dhcpv6.CLIENT_PORT))
        link = socket.if_nametoindex("wan")
        client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, link)
        self._hear(client, lambda data, source: deliver(data))
        self._send = lambda send: client.sendto(
            send.payload, (str(send.server), dhcpv6.SERVER_PORT)
        )

    def send(self, send: Send) -> None:
        """What cannot be sent is lost, as it may be further on: it is sent again."""
        try:
            self._send(send)
        except OSError as error:
            LOG.info('not_sent reason="%s"', error.strerror)

    def _hear(self, sock: socket.socket, deliver: Callable[[bytes, Any], None]) -> None:
        sock.setblocking(False)

        def read() -> None:
            for _ in range(_AT_ONCE):
                try:
                    data, source = sock.recvfrom(_LARGEST)
                except BlockingIOError:
                    return
                except OSError:  # an ICMP error about what was sent
                    continue
                deliver(data, source)

        self._selector.register(sock, selectors.EVENT_READ, read)


def _ipv6(source: Any) -> IPv6Address:
    return IPv6Address(source[0].partition("%")[0])


class Control:
    """A unix socket: one word in, one line of JSON out."""

    def __init__(self, path: Path, selector: selectors.BaseSelector, agent: Agent) -> None:
        self._agent = agent
        self._selector = selector
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.setblocking(False)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            connection, _ = self._listener.accept()
            connection.settimeout(1)
            self._selector.register(
                connection, selectors.EVENT_READ, lambda: self._answer(connection)
            )

    def _answer(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        with connection, contextlib.suppress(OSError):
            word = connection.recv(100).decode(errors="replace").strip()
            now = time.monotonic()
            if word == "provision":
                self._agent.provision(now)
            elif word != "status":
                connection.sendall(b'{"error": "there are: status, provision"}\n')
                return
            connection.sendall(json.dumps(self._agent.status(now)).encode() + b"\n")


def ask(path: Path, word: str) -> dict[str, Any]:
    """Ask a running agent. Raises OSError if there is none, ValueError for an answer cut off."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(5)
        sock.connect(str(path))
        sock.sendall(word.encode() + b"\n")
        answer: dict[str, Any] = json.loads(b"".join(iter(lambda: sock.recv(65536), b"")))
        return answer


def run(agent: Agent, selector: selectors.BaseSelector) -> None:
    """Until SIGTERM or SIGINT."""
    stopped = []
    wake_read, wake_write = socket.socketpair()
    wake_write.setblocking(False)
    signal.set_wakeup_fd(wake_write.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.append(True))
    selector.register(wake_read, selectors.EVENT_READ, lambda: wake_read.recv(100))
    agent.start(time.monotonic())
    while not stopped:
        wake = agent.wake
        timeout = None if wake is None else max(0.0, wake - time.monotonic())
        for key, _ in selector.select(timeout):
            key.data()
        now = time.monotonic()
        if agent.wake is not None and now >= agent.wake:
            agent.timer(now)
    agent.stop(time.monotonic())
