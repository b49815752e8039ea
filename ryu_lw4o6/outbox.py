"""Messages to a switch that need no answer, such as packet-outs.

Whoever sends one does not wait, as the receive loop must not. Those sent at about the same time
travel together: a system call for each would cost more than making it.
"""

from __future__ import annotations

from collections.abc import Callable

from ryu.lib import hub

from ryu_lw4o6.fatal import fatal

MOST_BYTES = 16 << 20
"""The most that waits for a switch which does not read."""


class Outbox:
    """``send`` may wait."""

    def __init__(self, send: Callable[[bytes], object]) -> None:
        self._send = send
        self._messages: list[bytes] = []
        self._bytes = 0
        self._posting = False

    def add(self, message: bytes) -> bool:
        """False if too much waits already: the message is lost."""
        if self._bytes + len(message) > MOST_BYTES:
            return False
        self._messages.append(message)
        self._bytes += len(message)
        if not self._posting:
            self._posting = True
            hub.spawn(fatal(self._post))
        return True

    def _post(self) -> None:
        while self._messages:
            messages = b"".join(self._messages)
            self._messages.clear()
            self._send(messages)
            self._bytes -= len(messages)
        self._posting = False
