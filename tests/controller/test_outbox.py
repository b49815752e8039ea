"""What is sent to a switch without waiting travels together, in order, up to a limit."""

from __future__ import annotations

import eventlet
import eventlet.event
import pytest

from ryu_lw4o6 import outbox
from ryu_lw4o6.outbox import Outbox


def test_messages_travel_together_and_in_order() -> None:
    sent: list[bytes] = []
    box = Outbox(sent.append)
    assert all(box.add(bytes([number])) for number in range(5))
    assert sent == []  # whoever sends does not wait
    eventlet.sleep(0)
    assert sent == [bytes(range(5))]
    box.add(b"next")
    eventlet.sleep(0)
    assert sent[1:] == [b"next"]


def test_a_switch_that_does_not_read_costs_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MOST_BYTES", 10)
    reads, sent = eventlet.event.Event(), []

    def send(messages: bytes) -> None:
        reads.wait()
        sent.append(messages)

    box = Outbox(send)
    assert box.add(b"12345")
    eventlet.sleep(0)  # it waits in send
    assert box.add(b"67890")
    assert not box.add(b"x")
    reads.send()
    eventlet.sleep(0)
    assert sent == [b"12345", b"67890"]
    assert box.add(b"x")
