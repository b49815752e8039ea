"""The supporting system is a PostgreSQL that dies, or stands still: nobody waits for it longer than
the deadline, nothing is taken for granted, and nobody has to do anything when it is back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from ryu_lw4o6.store import Store, StoreError
from tests.support.ovs import wait_for
from tests.support.postgres import Postgres
from tests.support.rig import CONFIG, Rig, frames
from tests.wire.scenario import frame_of
from tests.wire.test_data_packet import binding, from_lwb4, passes, status
from tests.wire.test_icmp_errors import refused

DEADLINE = 0.5


@pytest.fixture(scope="module")
def rig(postgres: Postgres) -> Iterator[Rig]:
    postgres.sql("drop schema public cascade; create schema public")
    rig = Rig(
        f"supporting_system: {{{{store: '{postgres.url}', deadline: {DEADLINE}, "
        "remember_no: 2}}\n" + CONFIG + "    failover: data-packet+icmpv6\n"
    )
    yield rig
    rig.stop()


def fill(url: str, *numbers: int) -> None:
    def filled() -> bool:
        with contextlib.suppress(StoreError):
            store = Store(url)
            store.save([binding(n, n) for n in numbers], [])
            store.close()
            return True
        return False

    wait_for("the supporting system can be written to", filled, 20)


def answered_in_time(rig: Rig, number: int) -> None:
    """The lwB4 gets its ICMPv6 error within the deadline, and no binding."""
    packet = from_lwb4(number, number)
    started = time.monotonic()
    rig.wire6.send(frame_of(packet, 6))
    assert frames(rig.wire6, 1, DEADLINE + 1) == [frame_of(refused(packet), 6, out=True)]
    assert time.monotonic() - started < DEADLINE + 0.5
    assert f"192.0.2.1/{number}" not in status(rig)


def test_it_answers_first_of_all(rig: Rig, postgres: Postgres) -> None:
    fill(postgres.url, 5)
    assert passes(rig, from_lwb4(5, 5))


@pytest.mark.parametrize("number", [20, 21])
def test_killed(rig: Rig, postgres: Postgres, number: int) -> None:
    """Twice, since a connection pool may recover once."""
    fill(postgres.url, number)
    postgres.kill()
    answered_in_time(rig, number)
    assert passes(rig, from_lwb4(5, 5))  # a binding that is there is there
    postgres.start()
    wait_for("it recovers by itself", lambda: passes(rig, from_lwb4(number, number)), 20)
    assert status(rig)[f"192.0.2.1/{number}"]["origin"] == "validated"


def test_frozen(rig: Rig, postgres: Postgres) -> None:
    numbers = range(30, 40)
    fill(postgres.url, *numbers)
    with postgres.frozen():
        # More questions than there are places for calls that hang.
        for number in numbers:
            answered_in_time(rig, number)
        assert passes(rig, from_lwb4(5, 5))
    for number in numbers:
        wait_for("it recovers by itself", lambda n=number: passes(rig, from_lwb4(n, n)), 20)  # type: ignore[misc]


def test_a_binding_that_was_taken_back_is_gone_at_once(rig: Rig, postgres: Postgres) -> None:
    fill(postgres.url, 40, 41)
    for number in (40, 41):
        wait_for("it works", lambda n=number: passes(rig, from_lwb4(n, n)), 20)  # type: ignore[misc]
    postgres.sql("delete from bindings where psid = 40")
    wait_for("it is withdrawn", lambda: "192.0.2.1/40" not in status(rig), 5)
    assert passes(rig, from_lwb4(41, 41))
    # Another subscriber gets the port set: the old one's binding goes, the new one's comes.
    postgres.sql("update bindings set lwb4 = '2001:db8:b4::99' where psid = 41")
    wait_for("it follows", lambda: status(rig)["192.0.2.1/41"]["lwb4"] == "2001:db8:b4::99", 5)
    assert passes(rig, from_lwb4(0x99, 41))
