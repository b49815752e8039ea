"""The store, on SQLite and on a real PostgreSQL: what was acknowledged is there, come what may."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ryu_lw4o6.core.binding import Binding, BindingKey, Origin
from ryu_lw4o6.core.portset import FULL_ADDRESS, PortParams
from ryu_lw4o6.store import OtherStore, Store, StoreError, database, schema
from tests.support.postgres import Postgres

SHARED = PortParams(6, 6)
FULL_OPTIONS = Binding(
    IPv6Address("2001:db8:b4::1"), IPv4Address("192.0.2.1"), 63, SHARED,
    IPv6Address("2001:db8:ffff::2"), Origin.REST, 1800000000.25,
)  # fmt: skip
PLAIN = Binding(IPv6Address("::2"), IPv4Address("203.0.113.1"), 0, FULL_ADDRESS)


def held(url: str) -> dict[BindingKey, Binding]:
    """What a controller that starts now finds."""
    store = Store(url)
    loaded = store.load()
    store.close()
    assert loaded.problems == []
    return {binding.key: binding for binding in loaded.bindings}


def test_bindings_come_back_as_they_were(url: str) -> None:
    store = Store(url)
    store.save([FULL_OPTIONS, PLAIN], [])
    store.close()
    assert held(url) == {FULL_OPTIONS.key: FULL_OPTIONS, PLAIN.key: PLAIN}


def test_a_new_store_is_empty(url: str) -> None:
    assert held(url) == {}


def test_all_are_read_page_by_page(url: str) -> None:
    many = [
        Binding(IPv6Address(n + 1), IPv4Address("192.0.2.1") + n // 64, n % 64, SHARED)
        for n in range(200)
    ]
    store = Store(url)
    store.save([*many, PLAIN, FULL_OPTIONS], [])  # the last is one of the many, and not as it was
    pages = list(store.pages(50))
    assert [len(page.bindings) for page in pages] == [50, 50, 50, 50, 1]
    found = {b.key: b for page in pages for b in page.bindings}
    assert found == {b.key: b for b in (*many, PLAIN, FULL_OPTIONS)}
    store.close()


@pytest.mark.parametrize(
    ("network", "found"),
    [
        ("192.0.2.0/24", ["192.0.2.1", "192.0.2.10"]),
        ("192.0.2.0/28", ["192.0.2.1", "192.0.2.10"]),
        ("192.0.2.1/32", ["192.0.2.1", "192.0.2.10"]),  # others may be there
        ("192.0.16.0/20", ["192.0.2.1", "192.0.2.10", "192.0.20.1"]),
        ("0.0.0.0/0", ["192.0.2.1", "192.0.2.10", "192.0.20.1", "203.0.113.1"]),
    ],
)
def test_a_network_is_read(url: str, network: str, found: list[str]) -> None:
    store = Store(url)
    many = ("192.0.2.1", "192.0.2.10", "192.0.20.1", "203.0.113.1")
    store.save([Binding(PLAIN.lwb4, IPv4Address(ipv4), 0, FULL_ADDRESS) for ipv4 in many], [])
    pages = list(store.pages(1, IPv4Network(network)))
    assert sorted(str(b.ipv4) for page in pages for b in page.bindings) == found
    store.close()


def test_what_changes_while_pages_are_read(url: str) -> None:
    many = [Binding(IPv6Address(n + 1), IPv4Address("192.0.2.1"), n, SHARED) for n in range(40)]
    store = Store(url)
    store.save(many, [])
    pages = store.pages(20)
    assert [b.psid for b in next(pages).bindings] == list(range(20))
    store.save([], [many[3].key, many[20].key])
    assert [b.psid for b in next(pages).bindings] == list(range(21, 40))
    assert list(pages) == []
    store.close()


def test_saving_replaces_and_deletes(url: str) -> None:
    store = Store(url)
    store.save([FULL_OPTIONS, PLAIN], [])
    moved = Binding(IPv6Address("2001:db8::9"), FULL_OPTIONS.ipv4, FULL_OPTIONS.psid, SHARED)
    store.save([moved], [PLAIN.key])
    assert held(url) == {moved.key: moved}
    store.save([], [moved.key, PLAIN.key])  # the second is not there, which does no harm
    assert held(url) == {}


def test_a_change_is_stored_whole_or_not_at_all(url: str) -> None:
    store = Store(url)
    store.save([PLAIN], [])
    params: Any = SimpleNamespace(psid_offset=None, psid_length=6)
    unfit = replace(PLAIN, params=params)
    with pytest.raises(StoreError):
        store.save([FULL_OPTIONS, unfit], [PLAIN.key])
    assert held(url) == {PLAIN.key: PLAIN}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(
    st.lists(
        st.builds(
            Binding,
            lwb4=st.ip_addresses(v=6),
            ipv4=st.ip_addresses(v=4),
            psid=st.integers(0, 63),
            params=st.just(SHARED),
            br_address=st.one_of(st.none(), st.ip_addresses(v=6)),
            origin=st.sampled_from(Origin),
            expires_at=st.one_of(st.none(), st.floats(0, 1e11)),
        ),
        unique_by=lambda binding: binding.key,
        max_size=20,
    )
)
def test_any_binding_comes_back(url: str, bindings: list[Binding]) -> None:
    store = Store(url)
    store.save(bindings, [])
    try:
        assert held(url) == {binding.key: binding for binding in bindings}
    finally:
        store.save([], [binding.key for binding in bindings])
        store.close()


def test_the_supporting_system_replaces_and_withdraws_its_own(url: str) -> None:
    store = Store(url)
    validated = replace(PLAIN, origin=Origin.VALIDATED)
    store.save([FULL_OPTIONS, validated], [])
    prolonged = replace(validated, expires_at=4e9)
    others = replace(FULL_OPTIONS, lwb4=PLAIN.lwb4, origin=Origin.VALIDATED)
    store.follow([prolonged, others], [], [])
    assert held(url) == {FULL_OPTIONS.key: FULL_OPTIONS, PLAIN.key: prolonged}
    store.follow([], [FULL_OPTIONS.key, PLAIN.key], [])
    assert held(url) == {FULL_OPTIONS.key: FULL_OPTIONS}
    store.follow([others], [], [FULL_OPTIONS.key])
    assert held(url) == {FULL_OPTIONS.key: others}
    store.close()


def test_rows_that_are_no_bindings_are_reported_and_left(url: str) -> None:
    store = Store(url)
    store.save([PLAIN], [])
    engine = sa.create_engine(url)
    row = (
        "insert into bindings (ipv4, psid_length, psid, psid_offset, lwb4, origin) "
        "values ('{}', 6, {}, 6, '{}', '{}')"
    )
    with engine.begin() as connection:
        for values in (
            ("192.0.2.1", 64, "2001:db8::1", "rest"),
            ("192.0.2.x", 1, "2001:db8::1", "rest"),
            ("192.0.2.1", 2, "2001:db8::g", "rest"),
            ("192.0.2.1", 3, "2001:db8::1", "nobody"),
        ):
            connection.execute(sa.text(row.format(*values)))
    loaded = store.load()
    assert loaded.bindings == [PLAIN]
    assert sorted(problem.split(" is no binding")[0] for problem in loaded.problems) == [
        "row 192.0.2.1/2", "row 192.0.2.1/3", "row 192.0.2.1/64", "row 192.0.2.x/1",
    ]  # fmt: skip
    engine.dispose()
    store.close()


def test_ends_that_are_no_times(url: str) -> None:
    """SQLite keeps whatever it is given; what PostgreSQL has for ever and for nonsense, it does."""
    sqlite = url.startswith("sqlite")
    store = Store(url)
    ends = ["9e999", "1e300", "'2026-12-31'" if sqlite else "'NaN'"]
    if not sqlite:
        ends[0] = "'Infinity'"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for psid, end in enumerate(ends):
            connection.execute(sa.text(
                "insert into bindings (ipv4, psid_length, psid, psid_offset, lwb4, origin, "
                f"expires_at) values ('192.0.2.1', 6, {psid}, 6, '2001:db8::1', 'rest', {end})"
            ))  # fmt: skip
    keys = [BindingKey(IPv4Address("192.0.2.1"), psid) for psid in range(3)]
    for loaded in (store.load(), store.find(keys)):
        assert {b.psid: b.expires_at for b in loaded.bindings} == {0: None, 1: None}
        assert ["row 192.0.2.1/2 is no binding" in problem for problem in loaded.problems] == [True]
    engine.dispose()
    store.close()


def test_a_store_of_a_newer_program_is_refused(url: str) -> None:
    Store(url).close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("update lw4o6_schema set version = 99"))
    engine.dispose()
    with pytest.raises(StoreError, match=r"schema version 99, this program knows 1\. Use the"):
        Store(url)


WRITER = """
    import sys
    from ipaddress import IPv4Address, IPv6Address
    from ryu_lw4o6.core.binding import Binding
    from ryu_lw4o6.core.portset import FULL_ADDRESS
    from ryu_lw4o6.store import Store

    store = Store(sys.argv[1])
    number = 0
    while True:
        number += 1
        one, two = (IPv4Address(0x0A000000 + 2 * number + half) for half in (0, 1))
        pair = [Binding(IPv6Address(number), ipv4, 0, FULL_ADDRESS) for ipv4 in (one, two)]
        store.save(pair, [])
        print(number, flush=True)
"""


@pytest.mark.parametrize("acknowledged", [1, 37, 200])
def test_kill_nine_loses_nothing_that_was_acknowledged(url: str, acknowledged: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), url], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = [int(process.stdout.readline()) for _ in range(acknowledged)]
    process.kill()
    lines += map(int, process.stdout.read().split())
    process.wait()
    found = held(url)
    for number in lines:
        for half in (0, 1):
            binding = found.pop(BindingKey(IPv4Address(0x0A000000 + 2 * number + half), 0))
            assert binding.lwb4 == IPv6Address(number)
    # One more may have been stored and not yet acknowledged; if so, all of it.
    assert len(found) in (0, 2)


# --- SQLite ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"this is no database, it is a text file of some length" * 100, "not a database"),
        (b"SQLite format 3\0" + b"\xff" * 8192, "not a database|malformed|disk"),
    ],
)
def test_a_damaged_file_is_said_to_be_one(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bindings.sqlite"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=reason):
        Store(f"sqlite:///{path}")
    assert path.read_bytes() == content


def test_a_directory_is_made(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a/b/bindings.sqlite"
    Store(url).close()
    assert (tmp_path / "a/b/bindings.sqlite").exists()
    # Who uses which address and when is nobody else's business.
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o700


def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(StoreError, match=r"cannot be made: .*Choose another place"):
        Store(f"sqlite:///{tmp_path}/a/bindings.sqlite")


def test_a_database_that_another_program_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.05)
    url = f"sqlite:///{tmp_path}/bindings.sqlite"
    store = Store(url)
    other = sqlite3.connect(tmp_path / "bindings.sqlite", isolation_level=None)
    other.execute("begin exclusive")
    with pytest.raises(StoreError, match="Another program holds the database"):
        store.save([PLAIN], [])
    other.execute("rollback")
    other.close()
    store.save([PLAIN], [])
    assert held(url) == {PLAIN.key: PLAIN}


def test_a_full_disk(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", tmp_path], check=True)
    try:
        store = Store(f"sqlite:///{tmp_path}/bindings.sqlite")
        filler = tmp_path / "filler"
        subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], stderr=subprocess.DEVNULL)
        with pytest.raises(StoreError, match=r"full.*Make room where the database is"):
            store.save([PLAIN], [])
        filler.unlink()
        store.save([PLAIN], [])
        assert store.load().bindings == [PLAIN]
        store.close()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_file_that_was_moved_away_takes_nothing(tmp_path: Path) -> None:
    """What is written to a file without a name is gone when the process ends."""
    path, aside = tmp_path / "bindings.sqlite", tmp_path / "aside.sqlite"
    store = Store(f"sqlite:///{path}")
    watch = store.watch()
    store.save([PLAIN], [])
    watch.wait(0)
    path.rename(aside)
    for work in (
        lambda: store.save([FULL_OPTIONS], []),
        lambda: store.follow([FULL_OPTIONS], [], []),
        lambda: store.find([PLAIN.key]),
        store.load,
        lambda: watch.wait(0),
    ):
        with pytest.raises(OtherStore, match=r"not the one that was there before.*restart"):
            work()
    aside.replace(path)
    assert store.load().bindings == [PLAIN]
    store.save([FULL_OPTIONS], [])
    store.close()
    assert held(f"sqlite:///{path}") == {PLAIN.key: PLAIN, FULL_OPTIONS.key: FULL_OPTIONS}


def test_a_backup_in_the_place_of_the_file(tmp_path: Path) -> None:
    path, copy = tmp_path / "bindings.sqlite", tmp_path / "copy.sqlite"
    store = Store(f"sqlite:///{path}")
    with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    store.save([PLAIN], [])
    copy.replace(path)
    with pytest.raises(OtherStore):
        store.save([FULL_OPTIONS], [])
    store.close()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite://", "a SQLite store needs a file"),
        ("sqlite:///:memory:", "a SQLite store needs a file"),
        ("nonsense", "no store at nonsense"),
        ("oracle://u:hunter2@db/x", "no store at db/x"),
    ],
)
def test_urls_that_are_no_store(url: str, reason: str) -> None:
    with pytest.raises(StoreError, match=reason) as raised:
        Store(url)
    assert "hunter2" not in str(raised.value)


# --- PostgreSQL -----------------------------------------------------------------------------------


def test_postgresql_dies_and_comes_back(postgres: Postgres) -> None:
    postgres.sql("drop schema public cascade; create schema public")
    store = Store(postgres.url)
    store.save([PLAIN], [])
    postgres.kill()
    with pytest.raises(StoreError, match="Check that the database runs"):
        store.save([FULL_OPTIONS], [])
    postgres.start()
    store.save([FULL_OPTIONS], [])
    assert held(postgres.url) == {PLAIN.key: PLAIN, FULL_OPTIONS.key: FULL_OPTIONS}
    store.close()


def test_a_table_that_an_administrator_has_locked(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.1)
    postgres.sql("drop schema public cascade; create schema public")
    store = Store(postgres.url)
    with sa.create_engine(postgres.url).begin() as admin:
        admin.execute(sa.text("lock table bindings"))
        for work in (lambda: store.save([PLAIN], []), store.load):
            with pytest.raises(StoreError, match="Another program holds the database"):
                work()
    store.save([PLAIN], [])
    assert store.load().bindings == [PLAIN]
    store.close()


def test_a_machine_that_dies_in_the_middle_of_a_change(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not tell the server, which would keep its locks for two hours."""
    monkeypatch.setattr(database, "_BUSY_SECONDS", 1)
    postgres.sql("drop schema public cascade; create schema public")
    dying, other = Store(postgres.url), Store(postgres.url)

    def change() -> None:
        with dying.transaction() as connection:
            connection.execute(schema.BINDINGS.insert(), [schema.row(PLAIN)])
            other.save([PLAIN], [])

    with pytest.raises(StoreError):
        change()
    assert other.load().bindings == [PLAIN]
    dying.close()
    other.close()


def test_another_database_in_the_place_of_ours(postgres: Postgres) -> None:
    """An address that leads to another server, which is empty: nobody has deleted anything."""
    postgres.sql("drop schema public cascade; create schema public")
    store = Store(postgres.url)
    watch = store.watch()
    store.save([PLAIN], [])
    watch.wait(0)
    postgres.sql("alter schema public rename to ours; create schema public")
    postgres.kill()
    postgres.start()
    for _ in range(2):  # without tables; and then with those that another controller has made
        for work in (store.load, lambda: store.save([], [PLAIN.key]), lambda: watch.wait(0)):
            with pytest.raises(StoreError):
                work()
        Store(postgres.url).close()
    with pytest.raises(OtherStore, match="not the one that was there before"):
        store.load()
    postgres.sql("drop schema public cascade; alter schema ours rename to public")
    assert watch.wait(0) is None
    assert store.load().bindings == [PLAIN]
    store.close()


def test_no_postgresql_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="Check that the database runs") as raised:
        Store(f"postgresql+psycopg://u:hunter2@/lw4o6?host={tmp_path}")
    assert "hunter2" not in str(raised.value)
