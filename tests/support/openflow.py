"""A bare OpenFlow 1.3 connection to a bridge's management socket, for tests without Ryu."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from openflow_rules import encode
from openflow_rules.tables import Punt

ERROR, MULTIPART_REPLY, BARRIER_REPLY = 1, 19, 21


T = TypeVar("T")


class Connection:
    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(str(path))
        self._buffer = b""
        self._socket.sendall(struct.pack("!BBHI", 4, 0, 8, 1))

    def _message(self) -> bytes:
        while True:
            if len(self._buffer) >= 8:
                (length,) = struct.unpack_from("!H", self._buffer, 2)
                if len(self._buffer) >= length:
                    message, self._buffer = self._buffer[:length], self._buffer[length:]
                    return message
            self._buffer += self._socket.recv(65536)

    def send(self, messages: Iterable[bytes]) -> list[tuple[int, int]]:
        """Send messages and a barrier; the (type, code) of every error that came before it."""
        self._socket.sendall(b"".join(messages) + encode.barrier(0xBA11))
        errors = []
        while True:
            message = self._message()
            if message[1] == ERROR:
                errors.append(struct.unpack_from("!HH", message, 8))
            if message[1] == BARRIER_REPLY:
                return errors

    def set_meters(self, rate: int) -> None:
        """All that there can be, whether they are there or not."""
        for exists in (False, True):
            errors = self.send(encode.set_meter(punt, rate, exists=exists) for punt in Punt)
        assert errors == []

    def flows(self) -> list[encode.FlowStats]:
        return self.ask(encode.flow_stats_request, encode.flow_stats_entries)

    def ask(self, request: Callable[[int], bytes], read: Callable[[bytes], Iterable[T]]) -> list[T]:
        """Everything that ``read`` finds in the answer to a multipart request."""
        self._socket.sendall(request(0xD0))
        entries: list[T] = []
        while True:
            message = self._message()
            if message[1] == MULTIPART_REPLY:
                entries += read(message)
                if not message[11] & 1:
                    return entries

    def close(self) -> None:
        self._socket.close()
