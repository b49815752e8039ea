"""How bytes from a switch reach the session: a faster receive loop under Ryu's Datapath.

Ryu reads a message with two small ``recv`` calls and builds an object tree from it before anybody
has asked for one. For a dump of 20,000 flows, or a storm of packet-ins, that is most of the work.
The loop here reads in bulk and hands the message types a session has asked for to the session, as
bytes; everything else goes Ryu's way. It also ends a connection that sends a length below that of
an OpenFlow header, on which Ryu's own loop spins for ever, and one that does not say whose it is.
"""

from __future__ import annotations

import logging
import ssl
import struct
import time
from collections.abc import Callable
from typing import Any

from ryu.base import app_manager  # noqa: F401 (first: it and the controller import each other)
from ryu.controller import controller, ofp_event
from ryu.controller.handler import DEAD_DISPATCHER
from ryu.lib import hub
from ryu.ofproto import ofproto_parser

LOG = logging.getLogger(__name__)

Tap = Callable[[int, int, bytes], bool]
"""Takes (message type, transaction id, whole message); True if it has dealt with it."""

INTRODUCTION_SECONDS = 10.0
"""How long a connection may last before it is known whose it is: nothing else ends one that says
nothing, and a process has only so many."""
MOST_STRANGERS = 64
"""Such connections at once; more are closed. Ryu ends when it can take no other."""
_strangers: set[Any] = set()

_HEADER = struct.Struct("!BBHI")
_HELLO = 0
_BULK = 256 * 1024
_MESSAGES_PER_TURN = 256
_BUSY = 2048
"""Bytes read at once that mean there is more to come."""
_PAUSE = 0.002
"""Seconds to let it come. Otherwise the switch would have to wake this process for every packet
that it shows, which takes it as long as everything else it does for that packet."""


def install() -> None:
    """Put the loop under every Datapath made from now on."""
    controller.Datapath._recv_loop = _receive_loop


def tap(datapath: Any, handler: Tap | None) -> None:
    """Show the messages of a connected switch to ``handler`` before Ryu; None to stop."""
    datapath.lw4o6_tap = handler


def _receive_loop(datapath: Any) -> None:
    try:
        if len(_strangers) < MOST_STRANGERS:
            _strangers.add(datapath)
            _receive(datapath)
    finally:
        _strangers.discard(datapath)
        try:
            datapath.socket.close()
        except OSError:
            LOG.debug("closing the connection from %s", datapath.address, exc_info=True)


def _receive(datapath: Any) -> None:
    pending = b""
    turn = 0
    introduced_by = time.monotonic() + INTRODUCTION_SECONDS
    while datapath.state != DEAD_DISPATCHER:
        if datapath.id is not None:
            _strangers.discard(datapath)
        elif time.monotonic() > introduced_by:
            return
        try:
            received = datapath.socket.recv(_BULK)
        except (controller.SocketTimeout, ssl.SSLError):
            continue
        except (EOFError, OSError):
            return
        if not received:
            return
        pending = pending + received if pending else received
        at, end = 0, len(pending)
        while end - at >= _HEADER.size:
            version, kind, length, xid = _HEADER.unpack_from(pending, at)
            if length < _HEADER.size:
                LOG.error(
                    "switch at %s sent an OpenFlow message of length %d; closing the connection",
                    datapath.address, length,
                )  # fmt: skip
                return
            if end - at < length:
                break
            message = pending[at : at + length]
            at += length
            handler: Tap | None = getattr(datapath, "lw4o6_tap", None)
            try:
                if kind == _HELLO:
                    _check_hello(message)
                if handler is None or not handler(kind, xid, message):
                    _to_ryu(datapath, version, kind, length, xid, message)
            except (ValueError, struct.error) as error:
                LOG.error(
                    "switch at %s sent a malformed OpenFlow message of type %d (%s); closing the "
                    "connection", datapath.address, kind, error,
                )  # fmt: skip
                return
            turn += 1
            if turn >= _MESSAGES_PER_TURN:
                turn = 0
                hub.sleep(0)
        pending = pending[at:]
        if len(received) >= _BUSY:
            hub.sleep(_PAUSE)


def _check_hello(message: bytes) -> None:
    """Raise ValueError for a HELLO with an element shorter than its own header: Ryu would read
    that element again and again, and the whole controller would stand still."""
    at = _HEADER.size
    while at + 4 <= len(message):
        (length,) = struct.unpack_from("!H", message, at + 2)
        if length < 4:
            raise ValueError(f"HELLO element of length {length}")
        at += length + -length % 8


def _to_ryu(datapath: Any, version: int, kind: int, length: int, xid: int, message: bytes) -> None:
    parsed = ofproto_parser.msg(datapath, version, kind, length, xid, bytearray(message))
    if not parsed:
        return
    event = ofp_event.ofp_msg_to_ev(parsed)
    brick = datapath.ofp_brick
    brick.send_event_to_observers(event, datapath.state)
    for handler in brick.get_handlers(event):
        if datapath.state in handler.callers[event.__class__].dispatchers:
            handler(event)
