"""Commands to a Kea server: by its control socket, or by the control agent's HTTP interface.

For threads: the sockets here are those of the operating system, not eventlet's. Whatever Kea does,
a command ends within its deadline, with an answer that has the form of one or with
SystemUnavailable.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import time
from collections.abc import Iterator
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from eventlet import patcher

from ryu_lw4o6.supporting.unavailable import SystemUnavailable

_SOCKET = patcher.original("socket")
_MOST_BYTES = 64 << 20
_CHUNK = 1 << 16
_HINT = "See whether Kea runs there, and whether it is overloaded"

Answer = dict[str, Any]


class Control(Protocol):
    """Sends commands to kea-dhcp4 until it is closed."""

    def ask(self, command: str, arguments: Answer) -> Answer:
        """The answer to a command, whatever its result. Raises SystemUnavailable."""

    def close(self) -> None: ...


@contextlib.contextmanager
def connect(endpoint: str, seconds: float) -> Iterator[Control]:
    """A control channel at the path of a socket or a http:// URL, where every command has so many
    seconds. Raises nothing: that is for ``ask``."""
    made: Control = (
        _Http(endpoint, seconds) if endpoint.startswith("http://") else _Unix(endpoint, seconds)
    )
    try:
        yield made
    finally:
        made.close()


class _Unix:
    """Kea ends a connection after each answer."""

    def __init__(self, path: str, seconds: float) -> None:
        self._path = path
        self._seconds = seconds

    def ask(self, command: str, arguments: Answer) -> Answer:
        deadline = time.monotonic() + self._seconds
        message = json.dumps({"command": command, "arguments": arguments})
        received = bytearray()
        try:
            with contextlib.closing(_SOCKET.socket(_SOCKET.AF_UNIX)) as connection:
                connection.settimeout(self._seconds)
                connection.connect(self._path)
                connection.sendall(message.encode())
                while part := connection.recv(_CHUNK):
                    received += part
                    _check(received, deadline)
                    connection.settimeout(max(0.001, deadline - time.monotonic()))
        except OSError as error:
            raise SystemUnavailable(f"Kea at {self._path}: {error}", _HINT) from error
        return _answer(bytes(received), self._path)

    def close(self) -> None:
        pass


class _Http:
    def __init__(self, url: str, seconds: float) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._place = f"http://{parts.netloc.rpartition('@')[2]}"
        self._seconds = seconds
        self._headers = {"Content-Type": "application/json"}
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            encoded = base64.b64encode(login.encode()).decode()
            self._headers["Authorization"] = f"Basic {encoded}"
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, command: str, arguments: Answer) -> Answer:
        body = json.dumps({"command": command, "service": ["dhcp4"], "arguments": arguments})
        try:
            connection = self._open()
            connection.request("POST", "/", body, self._headers)
            response = connection.getresponse()
            received = response.read(_MOST_BYTES)
            response.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise SystemUnavailable(f"Kea at {self._place}: {error!r}", _HINT) from error
        if response.status != 200:
            raise SystemUnavailable(
                f"Kea at {self._place}: HTTP status {response.status}",
                "See whether this is Kea's control agent, and wants another user and password",
            )
        return _answer(received, self._place)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> http.client.HTTPConnection:
        if self._connection is None:
            made = http.client.HTTPConnection(self._host, self._port)
            made.sock = _SOCKET.create_connection((self._host, self._port), self._seconds)
            # Head and body are two writes: the second would wait for an acknowledgement.
            made.sock.setsockopt(_SOCKET.IPPROTO_TCP, _SOCKET.TCP_NODELAY, 1)
            self._connection = made
        return self._connection


def _check(received: bytearray, deadline: float) -> None:
    if len(received) > _MOST_BYTES:
        raise OSError("the answer has no end")
    if time.monotonic() > deadline:
        raise OSError("the answer takes too long")


def _answer(data: bytes, place: str) -> Answer:
    """What Kea says: an object with a result; the control agent puts it into a list."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, list) and len(found) == 1:
        (found,) = found
    if isinstance(found, dict) and isinstance(found.get("result"), int):
        return found
    raise SystemUnavailable(
        f"{place} answers {data[:40]!r}, which is nothing that Kea says",
        "See whether this is the control socket of kea-dhcp4, or Kea's control agent",
    )
