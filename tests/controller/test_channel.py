"""Connections to the OpenFlow port before it is known whose they are."""

from __future__ import annotations

import eventlet
import pytest
from eventlet.green import socket

from ryu_lw4o6 import channel


class Datapath:
    """A connection that Ryu has taken."""

    state = "handshake"
    id = None

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection


def test_who_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "INTRODUCTION_SECONDS", 0.1)
    ours, theirs = socket.socketpair()
    ours.settimeout(0.05)
    with eventlet.Timeout(5):
        channel._receive_loop(Datapath(ours))
        assert theirs.recv(1) == b""
    theirs.close()
