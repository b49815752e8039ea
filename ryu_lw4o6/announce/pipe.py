"""Run by ExaBGP: hands the controller's wishes to it, and lives on when the controller does not.

    pipe.py SOCKET DIGEST withdraw|keep

The controller listens on an abstract Unix socket and sends lines of JSON, each the whole list of
routes to be announced. What differs from the list before is told to ExaBGP on standard output.
When the connection ends, which it does the moment the controller dies, or when the controller no
longer repeats the list, everything is withdrawn, or kept, and the controller waited for. Plain
Python with nothing else: it must not fail.
"""

import json
import os
import select
import socket
import sys
import time

RETRY = 0.1
REPEAT = 1.0
"""The controller says again what it wants after so many seconds."""
SILENT = 5.0
"""One that has said nothing for so long stands still, though its connection is there."""
GIVE_UP = 300
"""Seconds without a controller, and without routes, after which ExaBGP is told to end."""


def main() -> None:
    name, digest, end = sys.argv[1:4]
    announced: list[str] = []
    sessions = Sessions()
    alone_since = time.monotonic()
    while True:
        connection = connect(name)
        if connection is not None:
            hello = {"pid": os.getppid(), "digest": digest, "announced": announced}
            announced = serve(connection, hello, announced, sessions)
            connection.close()
            alone_since = time.monotonic()
            if end == "withdraw":
                announced = tell(announced, [])
        elif not announced and time.monotonic() - alone_since > GIVE_UP:
            say("shutdown")
            return
        if select.select([0], [], [], RETRY)[0] and sessions.read() is None:
            return


class Sessions:
    """What ExaBGP says about its sessions with routers, on standard input. The last word about
    each is kept, for a controller that comes later."""

    def __init__(self) -> None:
        self.last: dict[str, bytes] = {}
        self._rest = b""

    def read(self) -> list[bytes] | None:
        """The lines that are there to be read; None when ExaBGP has ended."""
        news = os.read(0, 65536)
        if not news:
            return None
        whole, end, self._rest = (self._rest + news).rpartition(b"\n")
        lines = (whole + end).splitlines(keepends=True)
        for line in lines:
            try:
                message = json.loads(line)
                if message["type"] == "state":
                    self.last[message["neighbor"]["address"]["peer"]] = line
            except (ValueError, KeyError, TypeError):
                continue
        return lines


def connect(name: str) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect("\0" + name)
    except OSError:
        connection.close()
        return None
    return connection


def serve(
    connection: socket.socket, hello: dict[str, object], announced: list[str], sessions: Sessions
) -> list[str]:
    """Do as the controller says until it is gone; what is announced then."""
    pending = b""
    silent_at = None  # it may take its time until it knows what it wants
    try:
        connection.sendall(json.dumps(hello).encode() + b"\n" + b"".join(sessions.last.values()))
        while True:
            patience = None if silent_at is None else max(0.0, silent_at - time.monotonic())
            readable = select.select([connection.fileno(), 0], [], [], patience)[0]
            if not readable:
                return announced
            if 0 in readable:
                lines = sessions.read()
                if lines is None:
                    sys.exit()
                connection.sendall(b"".join(lines))
            if connection.fileno() in readable:
                received = connection.recv(65536)
                if not received:
                    return announced
                *wishes, pending = (pending + received).split(b"\n")
                if wishes:
                    silent_at = time.monotonic() + SILENT
                    announced = tell(announced, json.loads(wishes[-1]))
    except (OSError, ValueError):
        return announced


def tell(before: list[str], wanted: list[str]) -> list[str]:
    """Tell ExaBGP what has changed."""
    for route in before:
        if route not in wanted:
            say("withdraw route " + route)
    for route in wanted:
        if route not in before:
            say("announce route " + route)
    return wanted


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


if __name__ == "__main__":
    main()
