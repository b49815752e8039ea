"""What the supporting system has said is followed at once, and stored when the store takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import eventlet
import pytest

from ryu_lw4o6 import changes
from ryu_lw4o6.changes import Changes
from ryu_lw4o6.core.binding import Binding, BindingKey, BindingTable, Origin
from ryu_lw4o6.events import Events
from ryu_lw4o6.store import Store, StoreError
from tests.rules.samples import PREFIXES, binding

ONE, TWO = (
    replace(binding(f"2001:db8:b4::{n}", "192.0.2.1", n), origin=Origin.VALIDATED) for n in (1, 2)
)


class Full(Store):
    """A store whose disk may be full."""

    full = True
    tried = 0

    def save(self, *bindings: object, **options: object) -> None:
        self.tried += 1
        if self.full:
            raise StoreError("the disk is full", "Make room")
        super().save(*bindings, **options)  # type: ignore[arg-type]


def wait(condition: Callable[[], bool]) -> None:
    with eventlet.Timeout(5):
        while not condition():
            eventlet.sleep(0.005)


class Bench:
    def __init__(self, directory: Path) -> None:
        self.store = Full(f"sqlite:///{directory}/bindings.sqlite")
        self.table = BindingTable(PREFIXES)
        self.touched: list[BindingKey] = []
        self.changes = Changes(
            self.table, self.store, Events(), self.touched.extend, own_answers=False
        )
        self.keeper = eventlet.spawn(self.changes.keep)

    def stored(self) -> list[Binding]:
        return self.store.load().bindings

    def wait_stored(self, *bindings: Binding) -> None:
        wait(lambda: self.stored() == list(bindings))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(changes, "FOLLOW_SECONDS", 0.01)
    bench = Bench(tmp_path)
    yield bench
    bench.keeper.kill()
    bench.store.close()


def test_adopted_at_once_and_stored_when_there_is_room(bench: Bench) -> None:
    bench.changes.adopt([ONE])
    assert bench.table.get(ONE.key) == ONE
    assert bench.touched == [ONE.key]
    wait(lambda: bench.store.tried > 1)
    assert bench.stored() == []
    bench.store.full = False
    bench.wait_stored(ONE)


def test_what_is_gone_meanwhile_is_not_stored(bench: Bench) -> None:
    bench.changes.adopt([ONE, TWO])
    bench.table.remove(ONE.key)
    bench.store.full = False
    bench.wait_stored(TWO)
    bench.changes.adopt([ONE])
    bench.wait_stored(TWO, ONE)


def test_what_is_newer_is_stored(bench: Bench) -> None:
    later = replace(ONE, expires_at=4e9)
    bench.changes.adopt([ONE])
    bench.changes.adopt([later])
    bench.store.full = False
    bench.wait_stored(later)


def test_a_store_that_others_change_takes_nothing_away_that_it_does_not_have_yet(
    bench: Bench,
) -> None:
    bench.changes.adopt([ONE])
    assert bench.changes._sync(None) == []
    assert bench.table.get(ONE.key) == ONE
    bench.store.full = False
    bench.wait_stored(ONE)
    bench.store.save([], [ONE.key])
    assert bench.changes._sync(None) == [ONE.key]
