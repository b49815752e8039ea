"""The controller's own store is a PostgreSQL that stands still or dies, while the supporting system
goes on: what that says holds at once, and is stored when it can be."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from ryu_lw4o6.store import Store
from tests.support.ovs import wait_for
from tests.support.postgres import Postgres
from tests.support.rig import CONFIG, Rig
from tests.wire.test_data_packet import binding, from_lwb4, passes, status


@pytest.fixture(scope="module")
def rig(postgres: Postgres) -> Iterator[Rig]:
    postgres.sql("drop schema public cascade; create schema public")
    config = CONFIG.replace("sqlite:///{directory}/bindings.sqlite", postgres.url)
    rig = Rig(
        "supporting_system: {{store: 'sqlite:///{directory}/system.sqlite', recheck: 10}}\n"
        + config
        + "    failover: data-packet\n"
    )
    yield rig
    rig.stop()


@pytest.fixture
def system(rig: Rig) -> Iterator[Store]:
    with contextlib.closing(Store(f"sqlite:///{rig.ovs.directory}/system.sqlite")) as store:
        yield store


def stored(postgres: Postgres) -> set[str]:
    return set(postgres.sql("select psid from bindings where origin = 'validated'").split())


def test_it_stands_still(rig: Rig, system: Store, postgres: Postgres) -> None:
    system.save([binding(10, 10), binding(11, 11)], [])
    with postgres.frozen():
        assert passes(rig, from_lwb4(10, 10))
        time.sleep(0.2)  # until it is being stored, and this takes its time
        assert passes(rig, from_lwb4(11, 11))
        system.save([], [binding(10, 10).key])
        wait_for("it is withdrawn", lambda: not passes(rig, from_lwb4(10, 10)), 5)
        assert passes(rig, from_lwb4(11, 11))
    wait_for("the store knows", lambda: stored(postgres) == {"11"})


def test_bindings_are_asked_about_again_while_it_stands_still(
    rig: Rig, system: Store, postgres: Postgres
) -> None:
    system.save([binding(14, 14)], [])
    assert passes(rig, from_lwb4(14, 14))
    end = status(rig)["192.0.2.1/14"]["expires_at"]
    short = {"lwb4": "2001:db8:b4::15", "ipv4": "192.0.2.1", "psid": 15, "lifetime": 1}
    assert rig.controller.rest("POST", "/v1/bindings", short)[0] == 201
    with postgres.frozen():  # the controller waits for the store to forget this one
        wait_for("it is prolonged", lambda: status(rig)["192.0.2.1/14"]["expires_at"] > end, 10)
        assert "192.0.2.1/15" in status(rig)
    wait_for("it is over", lambda: "192.0.2.1/15" not in status(rig))


def test_it_keeps_no_controller_from_ending(rig: Rig, system: Store, postgres: Postgres) -> None:
    system.save([binding(12, 12)], [])
    with postgres.frozen():
        assert passes(rig, from_lwb4(12, 12))
        started = time.monotonic()
        rig.controller.terminate()
        assert time.monotonic() - started < 3
        assert passes(rig, from_lwb4(12, 12))  # the switch goes on
    rig.controller.start()


def test_what_waits_is_stored_at_the_end(rig: Rig, system: Store, postgres: Postgres) -> None:
    system.save([binding(13, 13)], [])
    wait_for("both next hops are known", rig.neighbours_known)
    postgres.kill()
    assert passes(rig, from_lwb4(13, 13))
    postgres.start()
    rig.controller.terminate()
    assert "13" in stored(postgres)
    database = rig.ovs.directory / "system.sqlite"
    database.rename(database.with_suffix(".away"))  # nobody to ask any more
    rig.controller.start()
    assert status(rig)["192.0.2.1/13"]["origin"] == "validated"
    assert passes(rig, from_lwb4(13, 13))
