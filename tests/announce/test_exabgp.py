"""The controller's end of the connection with ExaBGP, when nobody reads at the other."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address
from pathlib import Path

import eventlet
from eventlet.greenio import GreenSocket

from ryu_lw4o6.announce.exabgp import ExaBgp
from ryu_lw4o6.core.settings import Announce

ROUTE = "192.0.2.0/24 next-hop 198.51.100.1"


def test_one_that_stands_still_makes_nobody_wait_and_is_given_up(tmp_path: Path) -> None:
    settings = Announce(64512, IPv4Address("198.51.100.1"), ())
    speaker = ExaBgp("lwaftr1", settings, tmp_path, lambda: None)
    ours, theirs = socket.socketpair()
    with theirs:
        speaker._connection = GreenSocket(ours)
        with eventlet.Timeout(10):
            for _ in range(2000):
                speaker.announce([ROUTE])
        with theirs.makefile("rb") as lines:
            assert set(lines) == {b'["' + ROUTE.encode() + b'"]\n'}  # whole ones, and an end
    ours.close()
