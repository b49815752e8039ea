"""The database is on another machine, which is gone without a word."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ryu_lw4o6.store import Store, StoreError, connecting
from tests.rules.samples import BINDINGS
from tests.support.netns import inside, namespace
from tests.support.ovs import run, wait_for
from tests.support.postgres import Postgres, Way

HERE, THERE = "192.0.2.1", "192.0.2.2"


def test_it_is_given_up_and_found_again(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert connecting.GONE["tcp_user_timeout"] == "8000"
    quick = {"connect_timeout": "2", "tcp_user_timeout": "1000", "keepalives_idle": "1"}
    monkeypatch.setattr(connecting, "GONE", connecting.GONE | quick)
    postgres.sql("drop schema public cascade; create schema public")
    with namespace() as here, namespace() as there:
        run("ip", "link", "add", "db", "netns", here, "type", "veth", "peer", "db", "netns", there)
        for name, address in ((here, HERE), (there, THERE)):
            run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "db")
            run("ip", "-n", name, "link", "set", "db", "up")
        with inside(there):
            way = Way(postgres, socket.create_server((THERE, 5432)))
        with inside(here):
            store = Store(postgres.url_at(THERE))
            watch = store.watch()
            watch.wait(0)
            run("ip", "-n", there, "addr", "del", f"{THERE}/24", "dev", "db")
            assert "timed out" in str(within(5, lambda: watch.wait(0)))
            run("ip", "-n", there, "addr", "add", f"{THERE}/24", "dev", "db")
            wait_for("it is found again", lambda: watches(watch.wait))
            store.save([BINDINGS[0]], [])
            watch.close()
            store.close()
        way.close()


def watches(wait: Callable[[float], Any]) -> bool:
    try:
        return wait(0) is None
    except StoreError:
        return False


def within(seconds: float, work: Callable[[], object]) -> StoreError:
    """How this fails, which has to be before so many seconds have passed."""
    errors: list[StoreError] = []

    def run() -> None:
        try:
            work()
        except StoreError as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert errors, f"not within {seconds} s"
    return errors[0]
