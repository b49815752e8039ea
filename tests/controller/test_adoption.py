"""What the supporting system says is followed at once, and stored when the store takes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import eventlet
import pytest

from ryu_lw4o6 import adoption
from ryu_lw4o6.adoption import Adoption
from ryu_lw4o6.changes import Changes
from ryu_lw4o6.core.binding import Binding, BindingKey, BindingTable, Origin
from ryu_lw4o6.events import Events
from ryu_lw4o6.ledger import Ledger
from ryu_lw4o6.store import Store, StoreError
from ryu_lw4o6.threads import threading
from tests.rules.samples import PREFIXES, binding

ONE, TWO = (
    replace(binding(f"2001:db8:b4::{n}", "192.0.2.1", n), origin=Origin.VALIDATED) for n in (1, 2)
)


class Full(Store):
    """A store whose disk may be full, or that stands still."""

    full = True
    tried = 0

    def __init__(self, url: str) -> None:
        self.goes_on = threading.Event()
        self.goes_on.set()
        super().__init__(url)

    def follow(self, *bindings: object, **options: object) -> None:
        self.tried += 1
        self.goes_on.wait(10)
        if self.full:
            raise StoreError("the disk is full", "Make room")
        super().follow(*bindings, **options)  # type: ignore[arg-type]

    def save(self, *bindings: object) -> None:
        self.tried += 1
        self.goes_on.wait(10)
        super().save(*bindings)  # type: ignore[arg-type]

    def expire(self, now: float) -> None:
        self.tried += 1
        self.goes_on.wait(10)
        super().expire(now)


def wait(condition: Callable[[], bool]) -> None:
    with eventlet.Timeout(5):
        while not condition():
            eventlet.sleep(0.005)


class Bench:
    def __init__(self, directory: Path) -> None:
        self.store = Full(f"sqlite:///{directory}/bindings.sqlite")
        self.table = BindingTable(PREFIXES)
        self.touched: list[BindingKey] = []
        self.busy = False
        ledger = Ledger(self.table, self.store, Events(), self.touched.extend)
        self.adoption = Adoption(ledger, lambda: self.busy, own_answers=False)
        self.changes = Changes(ledger, self.adoption)
        self.keeper = eventlet.spawn(self.adoption.keep)

    def stored(self) -> list[Binding]:
        return self.store.load().bindings

    def wait_stored(self, *bindings: Binding) -> None:
        wait(lambda: self.stored() == list(bindings))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(adoption, "AGAIN_SECONDS", 0.01)
    bench = Bench(tmp_path)
    yield bench
    bench.store.goes_on.set()
    bench.keeper.kill()
    bench.store.close()


def test_adopted_at_once_and_stored_when_there_is_room(bench: Bench) -> None:
    bench.adoption.adopt([ONE])
    assert bench.table.get(ONE.key) == ONE
    assert bench.touched == [ONE.key]
    wait(lambda: bench.store.tried > 1)
    assert bench.stored() == []
    bench.store.full = False
    bench.wait_stored(ONE)


def test_flows_go_first_but_not_for_ever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adoption, "WAY_SECONDS", 60.0)
    bench.busy, bench.store.full = True, False
    bench.adoption.adopt([ONE])
    eventlet.sleep(0.2)
    assert bench.store.tried == 0
    bench.busy = False
    bench.wait_stored(ONE)
    monkeypatch.setattr(adoption, "WAY_SECONDS", 0.1)
    bench.busy = True
    bench.adoption.adopt([TWO])
    bench.wait_stored(ONE, TWO)


def test_what_is_gone_meanwhile_is_not_stored(bench: Bench) -> None:
    bench.adoption.adopt([ONE, TWO])
    bench.table.remove(ONE.key)
    bench.store.full = False
    bench.wait_stored(TWO)
    bench.adoption.adopt([ONE])
    bench.wait_stored(TWO, ONE)


def test_what_is_newer_is_stored(bench: Bench) -> None:
    later = replace(ONE, expires_at=4e9)
    bench.adoption.adopt([ONE])
    bench.adoption.adopt([later])
    bench.store.full = False
    bench.wait_stored(later)


def test_a_store_that_others_change_takes_nothing_away_that_it_does_not_have_yet(
    bench: Bench,
) -> None:
    bench.adoption.adopt([ONE])
    assert bench.changes._sync(None) == {}
    assert bench.table.get(ONE.key) == ONE
    bench.store.full = False
    bench.wait_stored(ONE)
    bench.store.save([], [ONE.key])
    assert list(bench.changes._sync(None)) == [ONE.key]


def test_nobody_waits_for_a_store_that_stands_still(bench: Bench) -> None:
    bench.store.full = False
    bench.store.goes_on.clear()
    bench.adoption.adopt([ONE])
    wait(lambda: bench.store.tried == 1)
    with eventlet.Timeout(1):
        bench.adoption.adopt([TWO])
        bench.adoption.withdraw([ONE.key])
    assert list(bench.table) == [TWO]
    assert bench.touched == [ONE.key, TWO.key, ONE.key]
    bench.store.goes_on.set()
    bench.wait_stored(TWO)


def test_what_is_said_twice_is_stored(bench: Bench) -> None:
    bench.adoption.adopt([ONE])
    bench.adoption.adopt([replace(ONE)])
    bench.store.full = False
    bench.wait_stored(ONE)


def test_what_is_withdrawn_while_the_store_is_full_is_gone_for_good(bench: Bench) -> None:
    bench.store.full = False
    bench.adoption.adopt([ONE])
    bench.wait_stored(ONE)
    bench.store.full, tried = True, bench.store.tried
    bench.adoption.withdraw([ONE.key])
    assert len(bench.table) == 0
    wait(lambda: bench.store.tried > tried)
    assert bench.changes._sync(None) == {}
    assert len(bench.table) == 0
    bench.store.full = False
    bench.wait_stored()


def test_a_binding_that_somebody_else_has_made_meanwhile_is_not_withdrawn(bench: Bench) -> None:
    bench.adoption.adopt([ONE])
    bench.adoption.withdraw([ONE.key])
    theirs = replace(ONE, origin=Origin.REST)
    bench.store.full = False
    bench.store.save([theirs], [])  # by another controller
    wait(lambda: not bench.adoption._to_keep)
    assert bench.stored() == [theirs]


def test_what_another_controller_has_stored_since_is_newer(bench: Bench) -> None:
    bench.adoption.adopt([ONE])
    wait(lambda: bench.store.tried > 0)
    theirs = replace(ONE, lwb4=TWO.lwb4, origin=Origin.REST)
    bench.store.save([theirs], [])
    assert list(bench.changes._sync([ONE.key])) == [ONE.key]
    assert bench.table.get(ONE.key) == theirs
    bench.store.full = False
    wait(lambda: not bench.adoption._to_keep)
    assert bench.stored() == [theirs]


def test_what_another_controller_has_stored_is_not_overwritten_before_it_is_seen(
    bench: Bench,
) -> None:
    bench.adoption.adopt([ONE])
    theirs = replace(ONE, lwb4=TWO.lwb4, origin=Origin.REST)
    bench.store.save([theirs], [])
    bench.store.full = False
    wait(lambda: not bench.adoption._to_keep)
    assert bench.stored() == [theirs]
    assert list(bench.changes._sync([ONE.key])) == [ONE.key]
    assert bench.table.get(ONE.key) == theirs


def test_the_supporting_system_overrules_whoever_has_the_address_and_port_set(
    bench: Bench,
) -> None:
    bench.changes.change([replace(ONE, lwb4=TWO.lwb4, origin=Origin.REST)])
    bench.adoption.adopt([ONE])
    later = replace(ONE, expires_at=4e9)
    bench.adoption.adopt([later])
    assert bench.changes._sync(None) == {}
    assert bench.table.get(ONE.key) == later
    bench.store.full = False
    bench.wait_stored(later)


def test_a_binding_is_deleted_that_is_withdrawn_meanwhile(bench: Bench) -> None:
    bench.store.full = False
    bench.adoption.adopt([ONE])
    bench.wait_stored(ONE)
    bench.store.goes_on.clear()
    tried = bench.store.tried
    deletion = eventlet.spawn(bench.changes.change, delete=[ONE.key])
    wait(lambda: bench.store.tried > tried)
    bench.adoption.withdraw([ONE.key])
    bench.store.goes_on.set()
    deletion.wait()
    assert len(bench.table) == 0
    bench.wait_stored()


def test_one_that_does_not_fit_keeps_no_other_out(bench: Bench) -> None:
    misfit = replace(TWO, params=PREFIXES[1].params)
    assert bench.adoption.adopt([misfit, ONE]) == {misfit.key}
    assert list(bench.table) == [ONE]


def test_what_is_prolonged_while_it_expires_stays(bench: Bench) -> None:
    bench.store.full = False
    bench.adoption.adopt([replace(ONE, expires_at=1.0)])
    wait(lambda: len(bench.stored()) == 1)
    bench.store.goes_on.clear()
    tried = bench.store.tried
    expiry = eventlet.spawn(bench.changes.expire, 2.0)
    wait(lambda: bench.store.tried > tried)
    later = replace(ONE, expires_at=4e9)
    bench.adoption.adopt([later])
    bench.store.goes_on.set()
    assert expiry.wait() == []
    assert list(bench.table) == [later]
    bench.wait_stored(later)


def test_at_its_end_the_controller_stores_what_waits(bench: Bench) -> None:
    bench.keeper.kill()
    bench.adoption.adopt([ONE, TWO])
    bench.store.full = False
    bench.adoption.flush(10)
    assert bench.stored() == [ONE, TWO]


def test_a_store_that_stands_still_keeps_no_controller_from_ending(bench: Bench) -> None:
    bench.store.goes_on.clear()
    bench.adoption.adopt([ONE])
    started = time.monotonic()
    bench.adoption.flush(0.1)
    assert time.monotonic() - started < 1
