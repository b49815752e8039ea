"""The session against a simulated switch, at moments that are hard to hit with a real one."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import eventlet
import pytest
import ryu.base.app_manager  # noqa: F401 (Ryu's modules import each other; this one goes first)
from ryu.ofproto import ofproto_v1_3 as ofp

from openflow_rules.tables import binding_cookie
from ryu_lw4o6.core.binding import BindingTable
from ryu_lw4o6.session import Session, State
from tests.rules.samples import BINDINGS, NEXT_HOP_MAC, PREFIXES, instance

BUNDLE_CONTROL, BUNDLE_ADD, COMMIT = 2300, 2301, 4
BINDING = BINDINGS[0]


class Switch:
    """A Datapath that keeps the cookies of the flows it is given in bundles.

    ``before_reply`` is called, once, between carrying out a bundle and answering its barrier.
    """

    def __init__(self) -> None:
        names = {1: b"eth6", 2: b"eth4", 3: b"softwire0", ofp.OFPP_LOCAL: b"br-lwaftr"}
        self.ports = {
            number: SimpleNamespace(name=name, port_no=number, hw_addr="02:00:00:00:04:01")
            for number, name in names.items()
        }
        self.cookies: set[int] = set()
        self.before_reply: Callable[[], None] | None = None
        self.lw4o6_tap: Callable[[int, int, bytes], bool] | None = None
        self._bundle: list[bytes] = []

    def send(self, data: bytes) -> bool:
        for message in _messages(data):
            kind, xid = message[1], struct.unpack_from("!I", message, 4)[0]
            if kind == ofp.OFPT_EXPERIMENTER:
                self._bundled(message)
            elif kind == ofp.OFPT_MULTIPART_REQUEST:  # no flows
                self._answer(ofp.OFPT_MULTIPART_REPLY, xid, struct.pack("!HH4x", ofp.OFPMP_FLOW, 0))
            elif kind == ofp.OFPT_BARRIER_REQUEST:
                if self.before_reply is not None and self.cookies:
                    self.before_reply()
                    self.before_reply = None
                self._answer(ofp.OFPT_BARRIER_REPLY, xid)
        return True

    def _bundled(self, message: bytes) -> None:
        (subtype,) = struct.unpack_from("!I", message, 12)
        if subtype == BUNDLE_ADD:
            self._bundle.append(message[24:])
        elif struct.unpack_from("!H", message, 20)[0] == COMMIT:
            for flow_mod in self._bundle:
                (cookie,) = struct.unpack_from("!Q", flow_mod, 8)
                if cookie >> 56 == 2:
                    adds = flow_mod[25] == ofp.OFPFC_ADD
                    (self.cookies.add if adds else self.cookies.discard)(cookie)
            self._bundle.clear()

    def _answer(self, kind: int, xid: int, body: bytes = b"") -> None:
        assert self.lw4o6_tap is not None
        message = struct.pack("!BBHI", ofp.OFP_VERSION, kind, 8 + len(body), xid) + body
        eventlet.spawn(self.lw4o6_tap, kind, xid, message)

    def close(self) -> None:
        pass


def _messages(data: bytes) -> Iterator[bytes]:
    while data:
        (length,) = struct.unpack_from("!H", data, 2)
        yield data[:length]
        data = data[length:]


@pytest.fixture
def switch_and_session() -> Iterator[tuple[Switch, Session, BindingTable]]:
    switch: Any = Switch()
    table = BindingTable(PREFIXES)
    session = Session(
        switch, instance(), table, next_hop_mac=lambda: NEXT_HOP_MAC,
        adopt_next_hop=lambda mac: None, on_packet_in=lambda *_: None,
    )  # fmt: skip
    eventlet.spawn(session.run)
    _wait(lambda: session.state is State.READY)
    yield switch, session, table
    session.close()


def _wait(condition: Callable[[], bool]) -> None:
    with eventlet.Timeout(5):
        while not condition():
            eventlet.sleep(0.001)


def test_a_binding_removed_before_its_addition_is_confirmed_leaves_no_flow(
    switch_and_session: tuple[Switch, Session, BindingTable],
) -> None:
    switch, session, table = switch_and_session

    def remove() -> None:
        assert switch.cookies == {binding_cookie(BINDING.key)}
        table.remove(BINDING.key)
        session.touch([BINDING.key])

    switch.before_reply = remove
    table.add(BINDING)
    session.touch([BINDING.key])
    _wait(lambda: not session.pending(BINDING.key))
    assert switch.before_reply is None
    assert switch.cookies == set()
    assert session.bindings == 0
