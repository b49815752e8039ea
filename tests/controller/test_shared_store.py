"""Two controllers with one PostgreSQL as their store: what is made on one, all of them have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ryu_lw4o6.store import Store
from tests.support.controller import CONFIG, Controller
from tests.support.ovs import Ovs, wait_for
from tests.support.postgres import Postgres


@pytest.fixture(scope="module")
def network(postgres: Postgres) -> Iterator[list[Controller]]:
    postgres.sql("drop schema public cascade; create schema public")
    config = CONFIG.replace("sqlite:///{directory}/bindings.sqlite", postgres.url)
    switches: list[Ovs] = []
    controllers: list[Controller] = []
    try:
        for _ in range(2):
            switches.append(Ovs())
            switches[-1].bridge("br0", "eth6", "eth4")
            controllers.append(Controller(switches[-1], config))
        for controller in controllers:
            controller.start()
        yield controllers
    finally:
        for controller in controllers:
            controller.kill()
        for switch in switches:
            switch.stop()


def body(psid: int, lwb4: str = "2001:db8:b4::77", **more: Any) -> dict[str, Any]:
    return {"lwb4": lwb4, "ipv4": "192.0.2.9", "psid": psid, **more}


def has(controller: Controller, psid: int, lwb4: str | None) -> None:
    """Wait until a controller's switch has a binding of this lwB4, or none."""

    def there() -> bool:
        status, found = controller.rest("GET", f"/v1/bindings/192.0.2.9/{psid}")
        applied = found.get("state", {}).get("lwaftr1", {}).get("state")
        if status != 200 or found["lwb4"] != lwb4 or applied != "applied":
            return lwb4 is None and status == 404
        return any(f"reg0={psid:#x}" in f and str(lwb4) in f for f in controller.ovs.flows("br0"))

    wait_for(f"{psid} is {lwb4}", there)


def test_made_changed_and_deleted_on_one(network: list[Controller]) -> None:
    one, two = network
    assert one.rest("POST", "/v1/bindings?wait=applied", body(5))[0] == 201
    has(two, 5, "2001:db8:b4::77")
    assert two.rest("PUT", "/v1/bindings/192.0.2.9/5", body(5, "2001:db8:b4::78"))[0] == 200
    has(one, 5, "2001:db8:b4::78")
    assert one.rest("DELETE", "/v1/bindings/192.0.2.9/5")[0] == 204
    has(two, 5, None)


def test_in_bulk(network: list[Controller]) -> None:
    one, two = network
    many = [body(psid) for psid in range(10, 60)]
    assert one.rest("POST", "/v1/bindings/bulk", {"create": many})[0] == 200
    for psid in (10, 35, 59):
        has(two, psid, "2001:db8:b4::77")


def test_one_of_two_who_create_the_same_wins(network: list[Controller]) -> None:
    one, two = network
    for psid in range(60, 64):
        with ThreadPoolExecutor() as pool:
            answers = list(
                pool.map(
                    lambda at, psid=psid: at[0].rest("POST", "/v1/bindings", body(psid, at[1])),
                    [(one, "2001:db8:b4::1"), (two, "2001:db8:b4::2")],
                )
            )
        assert sorted(status for status, _ in answers) == [201, 409], json.dumps(answers)
        winner = next(found["lwb4"] for status, found in answers if status == 201)
        loser = next(found for status, found in answers if status == 409)
        assert loser["existing"]["lwb4"] == winner
        has(one, psid, winner)
        has(two, psid, winner)


def test_the_database_dies_and_comes_back(network: list[Controller], postgres: Postgres) -> None:
    one, two = network
    assert one.rest("POST", "/v1/bindings", body(6))[0] == 201
    has(two, 6, "2001:db8:b4::77")
    postgres.kill()
    status, problem = one.rest("DELETE", "/v1/bindings/192.0.2.9/6")
    assert status == 503, problem
    has(one, 6, "2001:db8:b4::77")  # what cannot be stored is not done
    postgres.start()
    # Somebody else changes it before either controller is back.
    postgres.sql("update bindings set lwb4 = '2001:db8:b4::88' where psid = 6")
    has(one, 6, "2001:db8:b4::88")
    has(two, 6, "2001:db8:b4::88")


def test_the_database_stands_still(network: list[Controller], postgres: Postgres) -> None:
    one, two = network
    assert one.rest("POST", "/v1/bindings", body(8))[0] == 201
    with postgres.frozen():
        status, problem = one.rest("POST", "/v1/bindings", body(9))
        assert status == 503
        assert "the outcome is unknown" in problem["detail"]
    for controller in network:
        has(controller, 9, "2001:db8:b4::77")
    assert one.rest("POST", "/v1/bindings", body(2))[0] == 201
    has(two, 2, "2001:db8:b4::77")


def test_a_controller_that_was_away_catches_up(network: list[Controller]) -> None:
    one, two = network
    two.kill()
    assert one.rest("POST", "/v1/bindings", body(7))[0] == 201
    two.start()
    has(two, 7, "2001:db8:b4::77")


def test_an_empty_database_in_the_place_of_the_full_one(
    network: list[Controller], postgres: Postgres
) -> None:
    one, two = network
    assert one.rest("POST", "/v1/bindings", body(4))[0] == 201
    has(two, 4, "2001:db8:b4::77")
    postgres.sql("alter schema public rename to ours; create schema public")
    Store(postgres.url).close()  # a controller that was restarted meanwhile
    postgres.kill()
    postgres.start()
    for controller in network:
        status, problem = controller.rest("DELETE", "/v1/bindings/192.0.2.9/4")
        assert status == 503
        assert "not the one that was there before" in problem["detail"]
    for controller in network:
        has(controller, 4, "2001:db8:b4::77")  # nobody has deleted it
    postgres.sql("drop schema public cascade; alter schema ours rename to public")
    postgres.kill()
    postgres.start()
    wait_for("it is back", lambda: one.rest("DELETE", "/v1/bindings/192.0.2.9/4")[0] == 204)
    has(two, 4, None)
