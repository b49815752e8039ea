"""Who shares a store is told what others change in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ryu_lw4o6.core.binding import BindingKey, Origin
from ryu_lw4o6.store import AlreadyStored, Store, StoreError, Watch
from tests.store.test_store import FULL_OPTIONS, PLAIN
from tests.support.ovs import wait_for
from tests.support.postgres import Postgres


@pytest.fixture
def shared(postgres: Postgres) -> str:
    postgres.sql("drop schema public cascade; create schema public")
    return postgres.url


@pytest.fixture
def mine(shared: str) -> Iterator[Store]:
    store = Store(shared)
    yield store
    store.close()


@pytest.fixture
def other(shared: str) -> Iterator[Store]:
    store = Store(shared)
    yield store
    store.close()


@pytest.fixture
def watch(mine: Store) -> Iterator[Watch]:
    watch = mine.watch()
    assert watch.wait(0) is None  # nobody has watched before: anything may have changed
    yield watch
    watch.close()


def told(watch: Watch) -> set[BindingKey] | None:
    """What is told, after a change that is under way."""
    keys = watch.wait(5)
    return None if keys is None else set(keys)


def test_additions_changes_and_deletions_of_others(watch: Watch, other: Store) -> None:
    other.save([FULL_OPTIONS], [])
    assert told(watch) == {FULL_OPTIONS.key}
    other.save([FULL_OPTIONS], [])  # written again
    assert told(watch) == {FULL_OPTIONS.key}
    other.save([], [FULL_OPTIONS.key])
    assert told(watch) == {FULL_OPTIONS.key}
    other.save([FULL_OPTIONS, PLAIN], [])
    assert told(watch) == {FULL_OPTIONS.key, PLAIN.key}


def test_one_s_own_changes_are_no_news(watch: Watch, mine: Store, other: Store) -> None:
    mine.save([FULL_OPTIONS], [])
    assert watch.wait(0.3) == []
    other.save([PLAIN], [])
    assert told(watch) == {PLAIN.key}


def test_other_programs_count_as_well(watch: Watch, postgres: Postgres) -> None:
    postgres.sql(
        "insert into bindings (ipv4, psid_length, psid, psid_offset, lwb4, origin) "
        "values ('192.0.2.1', 6, 63, 6, '2001:db8::1', 'rest')"
    )
    assert told(watch) == {FULL_OPTIONS.key}
    postgres.sql("update bindings set psid = 62")
    assert told(watch) == {FULL_OPTIONS.key, BindingKey(FULL_OPTIONS.ipv4, 62)}
    postgres.sql("truncate bindings")
    assert told(watch) is None


def test_a_server_that_dies_and_comes_back(watch: Watch, other: Store, postgres: Postgres) -> None:
    postgres.kill()
    with pytest.raises(StoreError):
        watch.wait(1)
    with pytest.raises(StoreError):
        watch.wait(1)
    postgres.start()

    def anything() -> bool:
        try:
            return watch.wait(0.1) is None
        except StoreError:
            return False

    wait_for("it may have missed something", anything, 20)
    wait_for("the other store writes again", lambda: _saved(other), 20)
    assert told(watch) == {PLAIN.key}


def _saved(store: Store) -> bool:
    try:
        store.save([PLAIN], [])
    except StoreError:
        return False
    return True


def test_sqlite_knows_that_something_has_changed(tmp_path: object) -> None:
    url = f"sqlite:///{tmp_path}/bindings.sqlite"
    mine, other = Store(url), Store(url)
    watch = mine.watch()
    assert watch.wait(0) is None
    assert watch.wait(0.01) == []
    other.save([PLAIN], [])
    assert watch.wait(0.01) is None
    assert watch.wait(0.01) == []
    watch.close()
    mine.close()
    other.close()


def test_one_of_two_who_create_the_same_is_told(url: str) -> None:
    one, two = Store(url), Store(url)
    one.save([], [], [FULL_OPTIONS])
    with pytest.raises(AlreadyStored):
        two.save([PLAIN], [], [FULL_OPTIONS])
    assert {b.key for b in two.load().bindings} == {FULL_OPTIONS.key}  # nothing of it was done
    # Deleting and creating it anew is one change.
    two.save([], [FULL_OPTIONS.key], [FULL_OPTIONS])
    one.close()
    two.close()


def test_what_was_prolonged_does_not_expire(url: str) -> None:
    """Whoever deletes what has expired may not know that another controller has prolonged it."""
    store = Store(url)
    store.save([replace(FULL_OPTIONS, expires_at=1_700_000_000.0), PLAIN], [])
    store.expire(1_699_999_999.0)
    assert len(store.load().bindings) == 2
    store.expire(1_700_000_000.0)
    assert store.load().bindings == [PLAIN]
    store.close()


def test_a_fast_clock_takes_nothing_from_others(mine: Store, other: Store) -> None:
    """An hour ahead, all of an hour's leases look as if they were over."""
    lease = replace(FULL_OPTIONS, origin=Origin.PCP, expires_at=time.time() + 3600)
    other.save([lease], [])
    mine.expire(time.time() + 7200)
    assert other.load().bindings == [lease]
    thief = replace(lease, lwb4=PLAIN.lwb4, expires_at=time.time() + 10_800)
    with mine.transaction() as connection:
        assert mine.claim(connection, [thief], time.time() + 7200) == set()
    assert other.load().bindings == [lease]


@pytest.mark.parametrize(("seconds", "said"), [(3600, "ahead of"), (-3600, "behind"), (1, None)])
def test_clocks_that_differ_are_told_of(
    shared: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    seconds: int,
    said: str | None,
) -> None:
    now = time.time() + seconds
    monkeypatch.setattr(time, "time", lambda: now)
    Store(shared).close()
    assert ("synchronise them" in caplog.text) == (said is not None)
    assert said is None or f"the clock here is 3600 s {said} that of the database" in caplog.text
