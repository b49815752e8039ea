"""No more packets without a binding are taken up than the switch gets flows for."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from ryu_lw4o6 import unknown
from ryu_lw4o6.core.binding import BindingTable
from ryu_lw4o6.core.failover import Outcome, Question
from ryu_lw4o6.events import Events
from ryu_lw4o6.session import Session
from ryu_lw4o6.unknown import UnknownTraffic
from tests.rules.samples import PREFIXES, instance


class Switch:
    """A session whose flows are sent when a test says so."""

    ports = SimpleNamespace(ipv4=1, softwire=2)
    late = True

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def unsent(self, key: object) -> bool:
        return self.late

    def failure(self, key: object) -> None:
        return None

    def send(self, message: bytes) -> bool:
        self.sent.append(message)
        return True


def to(address: str) -> bytes:
    """A packet from the Internet to a full address."""
    return bytes(Ether() / IP(src="198.51.100.9", dst=address) / UDP(sport=9, dport=9))


def test_nobody_new_is_taken_up_while_the_switch_is_behind() -> None:
    asked: list[Question] = []

    def ask(question: Question, _: object, answered: Any) -> None:
        asked.append(question)
        answered(question, Outcome.ACCEPTED)

    traffic = UnknownTraffic(instance(), BindingTable(PREFIXES), ask, 10, lambda *_: None, Events())
    switch = Switch()
    traffic.connect(cast(Session, switch))
    traffic.packet_in(b"", to("203.0.113.1"), upstream=False)
    traffic._send_on(time.monotonic() + unknown.BEHIND_SECONDS + 0.1)
    traffic.packet_in(b"", to("203.0.113.2"), upstream=False)
    assert traffic.packets["dropped_overload"] == 1
    assert [str(q.key.ipv4) for q in asked] == ["203.0.113.1"]
    switch.late = False
    traffic._send_on(time.monotonic())
    assert len(switch.sent) == 1
    traffic.packet_in(b"", to("203.0.113.2"), upstream=False)
    assert [str(q.key.ipv4) for q in asked] == ["203.0.113.1", "203.0.113.2"]
