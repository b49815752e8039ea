"""What is said to a switch and what it answers: requests, barriers, errors and flow dumps, by
transaction id.

``send`` is for everybody and does not wait; all else belongs to the session's greenlet, or to one
that has nothing else to do.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import eventlet.event
import eventlet.timeout
from ryu.lib import hub
from ryu.ofproto import ofproto_v1_3 as ofp

from openflow_rules import encode
from ryu_lw4o6 import channel
from ryu_lw4o6.outbox import Outbox

LOG = logging.getLogger(__name__)

T = TypeVar("T")

REPLY_TIMEOUT = 30.0
ALIVE_SECONDS = 3.0
"""How long a switch may be silent before it is given up: as long as the BGP hold time."""
_UNREAD_SECONDS = 0.2
"""And how much longer, in case it is us who were busy: the answer may be there, and not read."""

_SEND_BYTES = 512 * 1024
"""Sent at once, before everybody else has a turn: while a storm is on, a turn takes tens of
milliseconds, and a bundle is some of these."""
_SEQUENCE = 1 << 20  # transaction ids of a session start here: Ryu's own are random, but few


class SessionError(Exception):
    """The switch did not do its part; the session ends and the next connection starts afresh."""


class SwitchError(Exception):
    """What a switch said of a message (OpenFlow 1.3 section 7.4.1)."""

    def __init__(self, kind: int, code: int) -> None:
        self.kind = kind
        self.code = code
        name = ofp.ofp_error_type_to_str(kind).split("(")[0]
        detail = ofp.ofp_error_code_to_str(kind, code).split("(")[0]
        super().__init__(f"{name}: {detail} (type {kind}, code {code})")


class Dialogue:
    """One connection. ``on_packet_in`` gets (cookie, match fields, frame)."""

    def __init__(
        self, datapath: Any, name: str, on_packet_in: Callable[[int, bytes, bytes], None]
    ) -> None:
        self._datapath = datapath
        self._name = name
        self._on_packet_in = on_packet_in
        self._xid = _SEQUENCE
        self._errors: dict[int, SwitchError] = {}
        self._awaited: dict[int, eventlet.event.Event] = {}
        self._dumps: dict[int, Callable[[bytes], None]] = {}
        self._outbox = Outbox(datapath.send)
        channel.tap(datapath, self._receive)

    def close(self) -> None:
        """The connection is gone: nobody need wait any longer. What it still had to say is none of
        Ryu's business, which does not understand all of it."""
        channel.tap(self._datapath, lambda *_: True)
        for xid in self._awaited:
            self._settle(xid, answered=False)

    def _settle(self, xid: int, *, answered: bool) -> None:
        """Whoever waits for this answer need not wait any longer. A second one changes nothing."""
        event = self._awaited[xid]
        if not event.ready():
            event.send(answered)

    # --- to the switch --------------------------------------------------------------------------

    def send(self, message: bytes) -> bool:
        """Send one message that needs no answer, such as a packet-out. Does not wait. False if too
        much waits for the switch already: the message is lost."""
        return self._outbox.add(message)

    def next_xid(self) -> int:
        """A transaction id for a message whose errors ``take_errors`` is to find."""
        self._xid = _SEQUENCE if self._xid >= 0x7FFFFFFF else self._xid + 1
        return self._xid

    def send_all(self, messages: Iterable[bytes]) -> None:
        """Send many, in order. Raises SessionError."""
        chunk: list[bytes] = []
        size = 0
        for message in messages:
            chunk.append(message)
            size += len(message)
            if size >= _SEND_BYTES:
                self._send_chunk(chunk)
                chunk, size = [], 0
        self._send_chunk(chunk)

    def _send_chunk(self, chunk: list[bytes]) -> None:
        if chunk and not self._datapath.send(b"".join(chunk)):
            raise SessionError("the switch stopped reading")
        hub.sleep(0)

    def request_barrier(self) -> int:
        """Ask for a barrier; the number to wait for its answer with. Raises SessionError."""
        xid = self.next_xid()
        self._request(xid, encode.barrier(xid))
        return xid

    def _request(self, xid: int, message: bytes) -> None:
        """Send a message whose answer ``answer`` waits for."""
        self._awaited[xid] = eventlet.event.Event()
        if not self._datapath.send(message):
            raise SessionError("the switch stopped reading")

    # --- from the switch ------------------------------------------------------------------------

    def answer(self, xid: int, what: str, seconds: float = REPLY_TIMEOUT) -> None:
        """Wait for the answer to the request with this transaction id. Raises SessionError."""
        try:
            for patience in (seconds, _UNREAD_SECONDS):
                with eventlet.timeout.Timeout(patience, False):
                    if self._awaited[xid].wait():
                        return
                    raise SessionError("the connection ended")
            raise SessionError(f"no answer to {what} within {seconds:.0f} s")
        finally:
            del self._awaited[xid]

    def take_errors(self, xids: Iterable[int]) -> dict[int, SwitchError]:
        """What the switch said of these messages."""
        if not self._errors:
            return {}
        return {xid: self._errors.pop(xid) for xid in xids if xid in self._errors}

    def is_alive(self) -> bool:
        """Ask for a sign of life and wait for it."""
        try:
            self.answer(self.request_barrier(), "a barrier", ALIVE_SECONDS)
        except SessionError:
            return False
        return True

    def dump(
        self, take: Callable[[encode.FlowStats], None], *, table: int = ofp.OFPTT_ALL,
        cookie: int = 0, cookie_mask: int = 0,
    ) -> None:  # fmt: skip
        """Give every flow that matches to ``take``. Raises SessionError without an answer."""

        def read(message: bytes) -> None:
            for entry in encode.flow_stats_entries(message):
                take(entry)

        self.ask(
            lambda xid: encode.flow_stats_request(
                xid, table=table, cookie=cookie, cookie_mask=cookie_mask
            ),
            read, "the flow dump",
        )  # fmt: skip

    def flows_per_table(self) -> dict[int, int]:
        """How many flows each table has. Raises SessionError without an answer."""
        return dict(
            self.entries(encode.table_stats_request, encode.table_stats_entries, "table statistics")
        )

    def entries(
        self, request: Callable[[int], bytes], parse: Callable[[bytes], Iterable[T]], what: str
    ) -> list[T]:
        """What ``parse`` finds in the answer to a request. Raises SessionError without one."""
        found: list[T] = []
        self.ask(request, lambda message: found.extend(parse(message)), what)
        return found

    def ask(
        self, request: Callable[[int], bytes], read: Callable[[bytes], None], what: str
    ) -> None:
        """Send the request that is made for a transaction id, and have ``read`` called with every
        part of its answer. Raises SessionError without one."""
        xid = self.next_xid()
        self._dumps[xid] = read
        try:
            self._request(xid, request(xid))
            self.answer(xid, what)
        except BaseException:
            self._dumps[xid] = _too_late  # Ryu does not understand all of it
            raise
        del self._dumps[xid]

    def _receive(self, kind: int, xid: int, message: bytes) -> bool:
        """Called by the receive loop, in order; must not wait."""
        if kind == ofp.OFPT_PACKET_IN:
            self._packet_in(message)
        elif kind == ofp.OFPT_BARRIER_REPLY and xid in self._awaited:
            self._settle(xid, answered=True)
        elif kind == ofp.OFPT_MULTIPART_REPLY and xid in self._dumps:
            self._dumps[xid](message)
            (flags,) = struct.unpack_from("!H", message, 10)
            if not flags & ofp.OFPMPF_REPLY_MORE:
                if xid in self._awaited:
                    self._settle(xid, answered=True)
                else:
                    del self._dumps[xid]
        elif kind == ofp.OFPT_ERROR and xid >= _SEQUENCE:
            error = SwitchError(*struct.unpack_from("!HH", message, 8))
            self._errors[xid] = error
            LOG.debug("%s: error about message %d: %s", self._name, xid, error)
        elif kind == ofp.OFPT_EXPERIMENTER:
            pass  # bundle replies: the barrier and the errors say it all
        else:
            return False
        return True

    def _packet_in(self, message: bytes) -> None:
        # ofp_packet_in: buffer id, total length, reason, table, cookie, match, 2 bytes, frame
        (cookie,) = struct.unpack_from("!Q", message, 16)
        (match_length,) = struct.unpack_from("!H", message, 26)
        frame_at = 24 + match_length + -match_length % 8 + 2
        if frame_at > len(message):
            return
        self._on_packet_in(cookie, message[28 : 24 + match_length], message[frame_at:])


def _too_late(message: bytes) -> None:
    """What to do with an answer that nobody waits for any longer."""
