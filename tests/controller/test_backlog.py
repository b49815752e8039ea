"""What is shown faster than it is looked at waits, in order, up to a limit."""

from __future__ import annotations

import eventlet

from ryu_lw4o6 import backlog
from ryu_lw4o6.backlog import Backlog


def test_everything_is_looked_at_in_order_and_later() -> None:
    seen: list[int] = []
    shown = Backlog(seen.append, 1000)
    for number in range(300):
        shown.add(number)
    assert seen == []  # whoever adds does not wait
    eventlet.sleep(0)
    assert len(seen) == backlog.PER_TURN  # and others have their turn
    while len(seen) < 300:
        eventlet.sleep(0)
    shown.add(300)
    eventlet.sleep(0)
    assert seen == list(range(301))
    assert shown.dropped == 0


def test_what_does_not_fit_is_counted() -> None:
    seen: list[int] = []
    shown = Backlog(seen.append, 3)
    for number in range(5):
        shown.add(number)
    eventlet.sleep(0)
    assert (seen, shown.dropped) == ([0, 1, 2], 2)
