"""Somebody sets the clock while the controller runs: nothing is forgotten because of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace

import eventlet
import pytest

from ryu_lw4o6 import changes as changes_module
from ryu_lw4o6 import service as service_module
from ryu_lw4o6.adoption import Adoption
from ryu_lw4o6.changes import Changes
from ryu_lw4o6.core.binding import BindingKey, BindingTable, Origin
from ryu_lw4o6.core.config import load
from ryu_lw4o6.events import Events
from ryu_lw4o6.ledger import Ledger
from ryu_lw4o6.service import Service
from ryu_lw4o6.store import Store
from tests.rules.samples import BINDINGS, PREFIXES
from tests.support.postgres import Postgres
from tests.support.rig import CONFIG

HOUR = 3600.0


def wait(condition: Callable[[], bool]) -> None:
    with eventlet.Timeout(10):
        while not condition():
            eventlet.sleep(0.01)


def test_what_had_ended_by_a_fast_clock_comes_back_when_it_is_set_right(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database has kept it, by its own clock."""
    postgres.sql("drop schema public cascade; create schema public")
    ahead = 0.0
    fast = SimpleNamespace(time=lambda: time.time() + ahead, monotonic=time.monotonic)
    monkeypatch.setattr(changes_module, "time", fast)
    monkeypatch.setattr(changes_module, "FOLLOW_SECONDS", 0.1)
    store, others, table = Store(postgres.url), Store(postgres.url), BindingTable(PREFIXES)
    ledger = Ledger(table, store, Events(), lambda keys: None)
    changes = Changes(ledger, Adoption(ledger, bool, own_answers=True))
    binding, other = replace(BINDINGS[0], expires_at=time.time() + HOUR / 2), BINDINGS[1]
    changes.change(create=[binding])
    ahead = HOUR
    greenlet = eventlet.spawn(changes.follow)
    try:
        assert changes.expire(fast.time()) == [binding.key]
        assert len(table) == 0
        others.save([other], [])
        wait(lambda: set(table) == {other})
        ahead = 0.0
        wait(lambda: set(table) == {other, binding})
    finally:
        greenlet.kill()
        store.close()
        others.close()


def test_the_supporting_system_is_asked_though_the_clock_has_gone_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "RENEW_AHEAD", 0.02)
    path = tmp_path / "lw4o6.yaml"
    config = f"supporting_system: {{{{store: 'sqlite:///{tmp_path}/system.sqlite'}}}}\n" + CONFIG
    path.write_text((config + "    failover: data-packet\n").format(directory=tmp_path))
    settings = load(path)
    store = Store(settings.store_url)
    service = Service(settings, store)
    asked: list[BindingKey] = []
    monkeypatch.setattr(service.validator, "recheck", asked.extend)
    binding = replace(
        BINDINGS[0], ipv4=IPv4Address("192.0.2.9"), br_address=None, origin=Origin.VALIDATED
    )
    for number, now in enumerate((1e9, 1e9 - HOUR, 1e9 - HOUR + 60), 1):
        service.table.replace(replace(binding, expires_at=now + 0.01))
        time.sleep(0.02)
        service.renew(now)
        assert asked == [binding.key] * number
    service.close()
