"""What other controllers change in the store is followed, though the store fails in between."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import eventlet
import pytest

from ryu_lw4o6 import changes as changes_module
from ryu_lw4o6.adoption import Adoption
from ryu_lw4o6.changes import Changes
from ryu_lw4o6.core.binding import BindingTable
from ryu_lw4o6.events import Events
from ryu_lw4o6.ledger import Ledger
from ryu_lw4o6.store import OutcomeUnknown, Store, StoreError, StoreUnavailable
from tests.rules.samples import BINDINGS, PREFIXES
from tests.support.postgres import Postgres, Way, listener_in

ONE, TWO, THREE = BINDINGS[:3]


@pytest.fixture
def stores(postgres: Postgres) -> Iterator[tuple[Store, Store]]:
    postgres.sql("drop schema public cascade; create schema public")
    stores = Store(postgres.url), Store(postgres.url)
    yield stores
    for store in stores:
        store.close()


def fails_once(store: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call of this method fails."""
    work, failures = getattr(store, name), [StoreError("the server is going away", "Wait")]

    def method(*arguments: object) -> object:
        if failures:
            raise failures.pop()
        return work(*arguments)

    monkeypatch.setattr(store, name, method)


def wait(condition: Callable[[], object]) -> None:
    with eventlet.Timeout(20):
        while not condition():
            eventlet.sleep(0.01)


def test_what_could_not_be_followed_is_followed_later(
    stores: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(changes_module, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(changes_module, "FOLLOW_SECONDS", 0.1)
    ours, others = stores
    others.save([ONE], [])
    table = BindingTable(PREFIXES)
    fails_once(ours, "load", monkeypatch)  # what was changed before anybody listened
    ledger = Ledger(table, ours, Events(), lambda keys: None)
    changes = Changes(ledger, Adoption(ledger, bool, own_answers=True))
    greenlet = eventlet.spawn(changes.follow)
    try:
        wait(lambda: ONE.key in table)
        fails_once(ours, "find", monkeypatch)
        others.save([TWO], [])
        wait(lambda: TWO.key in table)
        assert caplog.text.count("the server is going away") == 2
        assert caplog.text.count("INFO     ryu_lw4o6.ledger") == 2
        others.save([], [TWO.key])
        gone = f"binding-deleted binding={TWO.key} lwb4={TWO.lwb4} reason=store"
        wait(lambda: gone in caplog.text)
    finally:
        greenlet.kill()


def test_a_store_that_can_only_be_read(
    stores: tuple[Store, Store], postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a full disk, or before a standby is promoted."""
    stores[0].save([ONE, replace(TWO, expires_at=1.0)], [])
    store = Store(f"{postgres.url}&options=-c%20default_transaction_read_only%3Don")
    table = BindingTable(PREFIXES)
    ledger = Ledger(table, store, Events(), lambda keys: None)
    changes = Changes(ledger, Adoption(ledger, bool, own_answers=True))
    changes.load()
    assert list(table) == [ONE]
    assert "cannot execute DELETE in a read-only transaction" in caplog.text
    with pytest.raises(StoreUnavailable, match="read-only"):
        changes.change(create=[THREE])
    store.close()


def test_a_change_whose_commit_nobody_answers_for(
    stores: tuple[Store, Store], postgres: Postgres, tmp_path: Path
) -> None:
    way = Way(postgres, listener_in(tmp_path))
    store, others = Store(postgres.url_at(tmp_path)), stores[1]
    table = BindingTable(PREFIXES)
    ledger = Ledger(table, store, Events(), lambda keys: None)
    changes = Changes(ledger, Adoption(ledger, bool, own_answers=True))
    greenlet = eventlet.spawn(changes.follow)
    try:
        others.save([ONE], [])
        wait(lambda: ONE.key in table)
        changes.change(create=[THREE])
        way.is_lost = True
        with pytest.raises(OutcomeUnknown, match="server closed the connection"):
            changes.change(create=[TWO], delete=[ONE.key])
        stored = others.load().bindings
        assert ONE not in stored
        wait(lambda: set(table) == set(stored) == {TWO, THREE})
    finally:
        greenlet.kill()
        store.close()
        way.close()
