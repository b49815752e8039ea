"""The session against a simulated switch, at moments that are hard to hit with a real one."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv6Address
from types import SimpleNamespace
from typing import Any

import eventlet
import pytest
import ryu.base.app_manager  # noqa: F401 (Ryu's modules import each other; this one goes first)
from ryu.ofproto import ofproto_v1_3 as ofp

from openflow_rules.encode import BindingEncoder
from openflow_rules.tables import CookieClass, binding_cookie
from ryu_lw4o6 import dialogue as dialogue_module
from ryu_lw4o6 import programming
from ryu_lw4o6 import session as session_module
from ryu_lw4o6.core.binding import Binding, BindingTable
from ryu_lw4o6.dialogue import Dialogue, SessionError
from ryu_lw4o6.session import Session, State
from tests.rules.samples import BINDINGS, NEXT_HOP_MAC, PREFIXES, instance

BUNDLE_CONTROL, BUNDLE_ADD, COMMIT = 2300, 2301, 4
TABLE_FULL = struct.pack("!HH", ofp.OFPET_FLOW_MOD_FAILED, ofp.OFPFMFC_TABLE_FULL)
BINDING = BINDINGS[0]


class Flows(dict[bytes, tuple[int, bytes]]):
    """What a switch keeps: (table, match) -> (cookie, the rest)."""

    def change(self, flow_mod: bytes) -> None:
        (cookie,) = struct.unpack_from("!Q", flow_mod, 8)
        (length,) = struct.unpack_from("!H", flow_mod, 50)
        if flow_mod[25] == ofp.OFPFC_ADD:
            self[flow_mod[24:25] + flow_mod[48 : 48 + length]] = cookie, flow_mod[48 + length :]
        else:
            for match in [match for match, flow in self.items() if flow[0] == cookie]:
                del self[match]

    @classmethod
    def of(cls, bindings: Iterable[Binding]) -> Flows:
        """The right ones."""
        encoder, flows = BindingEncoder(instance()), cls()
        for binding in bindings:
            for message in _messages(encoder.add(binding, 0)):
                flows.change(message)
        return flows


class Switch:
    """A Datapath that keeps the flows of bindings that it is given in bundles.

    ``before_reply`` is called, once, between carrying out a bundle and answering its barrier.
    ``refused`` are cookies it takes no flows of; the rest of their bundle it takes or leaves, as
    ``takes_rest`` says.
    """

    def __init__(self) -> None:
        names = {1: b"eth6", 2: b"eth4", 3: b"softwire0", ofp.OFPP_LOCAL: b"br-lwaftr"}
        self.ports = {
            number: SimpleNamespace(name=name, port_no=number, hw_addr="02:00:00:00:04:01")
            for number, name in names.items()
        }
        self.flows = Flows()
        self.refused: set[int] = set()
        self.takes_rest = False
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
                if self.before_reply is not None and self.flows:
                    self.before_reply()
                    self.before_reply = None
                self._answer(ofp.OFPT_BARRIER_REPLY, xid)
        return True

    def _bundled(self, message: bytes) -> None:
        (subtype,) = struct.unpack_from("!I", message, 12)
        if subtype == BUNDLE_ADD:
            self._bundle.append(message[24:])
        elif struct.unpack_from("!H", message, 20)[0] == COMMIT:
            self._commit([m for m in self._bundle if m[8] == CookieClass.BINDING])
            self._bundle.clear()

    def _commit(self, flow_mods: list[bytes]) -> None:
        before = Flows(self.flows)
        for flow_mod in flow_mods:
            xid, cookie = struct.unpack_from("!IQ", flow_mod, 4)
            if flow_mod[25] == ofp.OFPFC_ADD and cookie in self.refused:
                self._answer(ofp.OFPT_ERROR, xid, TABLE_FULL)
                if not self.takes_rest:
                    self.flows = before
                    return
            else:
                self.flows.change(flow_mod)

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
def switch_and_session(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Switch, Session, BindingTable]]:
    # This switch says of no flow that it has it, so the session is to look once only.
    monkeypatch.setattr(session_module, "LOOK_SECONDS", 3600.0)
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


def test_an_answer_that_comes_twice_harms_nobody() -> None:
    switch: Any = Switch()
    dialogue = Dialogue(switch, "lwaftr1", lambda *_: None)
    barrier = dialogue.request_barrier()
    for _ in range(2):
        switch.lw4o6_tap(ofp.OFPT_BARRIER_REPLY, barrier, b"")
    dialogue.answer(barrier, "a barrier")


def test_an_answer_that_comes_too_late_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ryu would read it otherwise, and does not know every action of Open vSwitch's."""
    monkeypatch.setattr(Dialogue.answer, "__defaults__", (0.01,))
    monkeypatch.setattr(dialogue_module, "_UNREAD_SECONDS", 0.01)
    switch: Any = Switch()
    dialogue = Dialogue(switch, "lwaftr1", lambda *_: None)
    asked: list[int] = []

    def request(xid: int) -> bytes:
        asked.append(xid)
        return b""

    with pytest.raises(SessionError, match="no answer to the question"):
        dialogue.entries(request, lambda message: [message], "the question")
    for flags in (ofp.OFPMPF_REPLY_MORE, 0):
        part = bytes(8) + struct.pack("!HH", ofp.OFPMP_FLOW, flags)
        assert switch.lw4o6_tap(ofp.OFPT_MULTIPART_REPLY, asked[0], part)
    # It has ended: Ryu's own questions have numbers like ours.
    assert not switch.lw4o6_tap(ofp.OFPT_MULTIPART_REPLY, asked[0], part)
    dialogue.close()
    assert switch.lw4o6_tap(ofp.OFPT_MULTIPART_REPLY, asked[0], part)


def test_a_binding_removed_before_its_addition_is_confirmed_leaves_no_flow(
    switch_and_session: tuple[Switch, Session, BindingTable],
) -> None:
    switch, session, table = switch_and_session

    def remove() -> None:
        assert switch.flows == Flows.of([BINDING])
        table.remove(BINDING.key)
        session.touch([BINDING.key])

    switch.before_reply = remove
    table.add(BINDING)
    session.touch([BINDING.key])
    _wait(lambda: not session.pending(BINDING.key))
    assert switch.before_reply is None
    assert switch.flows == {}
    assert session.bindings == 0


def test_a_binding_is_sent_before_it_is_confirmed(
    switch_and_session: tuple[Switch, Session, BindingTable],
) -> None:
    switch, session, table = switch_and_session
    seen = []

    def look() -> None:
        seen.append((session.unsent(BINDING.key), session.pending(BINDING.key)))

    switch.before_reply = look
    table.add(BINDING)
    session.touch([BINDING.key])
    assert session.unsent(BINDING.key)
    _wait(lambda: not session.pending(BINDING.key))
    assert seen == [(False, True)]
    assert not session.unsent(BINDING.key)


@pytest.mark.parametrize("seed", range(100))
def test_whatever_changes_and_fails_the_switch_ends_up_with_the_table(
    seed: int, switch_and_session: tuple[Switch, Session, BindingTable],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Changes at any moment, one binding to a bundle or two, bundles overlapping."""
    switch, session, table = switch_and_session
    choose = random.Random(seed)
    monkeypatch.setattr(programming, "BINDINGS_PER_BUNDLE", choose.choice([1, 2]))
    switch.takes_rest = choose.random() < 0.5
    cookies = {binding_cookie(binding.key): binding.key for binding in BINDINGS}
    for _ in range(60):
        binding = choose.choice(BINDINGS)
        if choose.random() < 0.5:
            table.remove(binding.key)
        else:
            table.replace(replace(binding, lwb4=IPv6Address(choose.randrange(1, 4))))
        session.touch([binding.key])
        if choose.random() < 0.2:
            switch.refused = set(choose.sample(sorted(cookies), choose.randrange(3)))
        if choose.random() < 0.1:
            session.touch_pipeline()
        eventlet.sleep(0 if choose.random() < 0.7 else 0.001)
    _wait(lambda: not any(map(session.pending, cookies.values())))
    failed = {key for key in cookies.values() if session.failure(key)}
    assert failed <= {binding.key for binding in table}
    assert switch.flows == Flows.of(binding for binding in table if binding.key not in failed)
    assert session.bindings == len(table) - len(failed)
    assert session.backlog == 0
    # Once the switch takes everything, touching the failed ones is enough.
    switch.refused = set()
    session.touch(failed)
    _wait(lambda: not any(map(session.pending, failed)))
    assert switch.flows == Flows.of(table)
