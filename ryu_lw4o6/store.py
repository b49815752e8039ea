"""Where bindings survive: SQLite by default, PostgreSQL by another URL.

The table is meant to be read by people and by other programs: addresses are text in their
canonical form. ``save`` returns when the database has made the change durable.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from ryu_lw4o6.core.binding import Binding, BindingKey, Origin
from ryu_lw4o6.core.errors import AdvisedError
from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.threads import threading  # noqa: F401 (before a pool is made)

SCHEMA_VERSION = 1
_BUSY_SECONDS = 10
_CREATION_LOCK = 0x6C77346F36  # any number that nobody else takes

_METADATA = sa.MetaData()
_VERSION = sa.Table("lw4o6_schema", _METADATA, sa.Column("version", sa.Integer, primary_key=True))
_BINDINGS = sa.Table(
    "bindings",
    _METADATA,
    sa.Column("ipv4", sa.String(15), primary_key=True),
    sa.Column("psid_length", sa.SmallInteger, primary_key=True),
    sa.Column("psid", sa.Integer, primary_key=True),
    sa.Column("psid_offset", sa.SmallInteger, nullable=False),
    sa.Column("lwb4", sa.String(39), nullable=False, index=True),
    sa.Column("br_address", sa.String(39)),
    sa.Column("origin", sa.String(16), nullable=False),
    sa.Column("expires_at", sa.Double, index=True),
    # Who asks for a port set does not say how long its PSID is, which the primary key wants to know
    # before the PSID: it would read all that share an address, for each of them.
    sa.Index("ix_bindings_ipv4_psid", "ipv4", "psid"),
)
_DRAINED = sa.Table(
    "drained_instances", _METADATA, sa.Column("name", sa.String(64), primary_key=True)
)
_COLUMNS = (
    _BINDINGS.c.ipv4,
    _BINDINGS.c.psid,
    _BINDINGS.c.psid_offset,
    _BINDINGS.c.psid_length,
    _BINDINGS.c.lwb4,
    _BINDINGS.c.br_address,
    _BINDINGS.c.origin,
    _BINDINGS.c.expires_at,
)


def _find(asked: str) -> Any:
    """A query for many keys, given as one JSON value so that it is the same query every time."""
    columns = ", ".join(f"b.{column.name}" for column in _COLUMNS)
    return sa.text(f"select {columns} from {asked}")


# The answer is one JSON value as well: Python gives its interpreter lock away for each row that it
# reads, and waits for it if the controller is busy. JSON would round the time, quote does not.
_FIND_SQLITE = sa.text(
    "select json_group_array(json_array("
    + ", ".join(f"b.{column.name}" for column in _COLUMNS[:-1])
    + ", quote(b.expires_at))) from (select value ->> 'ipv4' as ipv4, value ->> 'psid' as psid "
    "from json_each(:asked)) k join bindings b on b.ipv4 = k.ipv4 and b.psid = k.psid"
)
# "offset 0" keeps the planner from reading the whole table when it has no statistics yet.
_FIND_POSTGRESQL = _find(
    "json_to_recordset(cast(:asked as json)) as k(ipv4 text, psid integer) cross join lateral "
    "(select * from bindings where ipv4 = k.ipv4 and psid = k.psid offset 0) b"
)


class StoreError(AdvisedError):
    """The store cannot be reached, read or written."""


class StoreUnavailable(Exception):
    """The store did not take the change; nothing was changed."""


class AlreadyStored(Exception):
    """The store has a binding with the key of one that was to be new; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The bindings of the store, and what it holds that is none."""

    bindings: list[Binding]
    problems: list[str]


class Store:
    """May be used from several threads. Everything raises StoreError.

    A SQLite file that is not there is made, unless it ``must_exist``: somebody else's that has
    gone must not be taken for one without bindings.
    """

    def __init__(self, url: str, *, must_exist: bool = False) -> None:
        try:
            self._url = sa.make_url(url)
            self._sqlite = self._url.get_backend_name() == "sqlite"
            if not self._sqlite and self._url.get_driver_name() != "psycopg":
                raise ImportError(f"the driver {self._url.get_driver_name()} is not supported")
            if self._sqlite:
                self._prepare_directory(must_exist)
            self._engine = self._create_engine()
        except (exc.ArgumentError, exc.NoSuchModuleError, ImportError) as error:
            raise StoreError(
                f"no store at {url.split('@')[-1]}: {error}",
                "Check the store URL; for PostgreSQL it is postgresql+psycopg://..., and needs the "
                "psycopg package",
            ) from error
        self._sender = uuid.uuid4().hex
        sa.event.listen(self._engine, "connect", _durable if self._sqlite else self._sign)
        self._quick_engine = self._engine
        if self._sqlite:
            self._quick_engine = self._create_engine()
            sa.event.listen(self._quick_engine, "connect", _quick)
        with self.exclusive() as connection:
            _METADATA.create_all(connection)
            version = connection.scalar(sa.select(sa.func.max(_VERSION.c.version)))
            if version is None:
                connection.execute(_VERSION.insert().values(version=SCHEMA_VERSION))
                if not self._sqlite:
                    connection.execute(sa.text(_NOTIFY))
        if version is not None and version > SCHEMA_VERSION:
            raise StoreError(
                f"the store has schema version {version}, this program knows {SCHEMA_VERSION}",
                "Use the version of lw4o6 that wrote it, or a newer one",
            )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """What is done on the connection is kept as a whole, or not at all."""
        with self._guard(), self._engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[sa.Connection]:
        """A transaction for making what is not there yet: controllers that share a store may
        start at the same time."""
        with self.transaction() as connection:
            if not self._sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION_LOCK)))
            yield connection

    def create(self, tables: sa.MetaData) -> None:
        """Make more tables, unless they are there."""
        with self.exclusive() as connection:
            tables.create_all(connection)

    def _create_engine(self) -> sa.Engine:
        return sa.create_engine(
            self._url,
            pool_pre_ping=not self._sqlite,
            connect_args={"timeout": _BUSY_SECONDS} if self._sqlite else {},
        )

    def load(self) -> Loaded:
        """Every binding in the store."""
        return self._read(sa.select(*_COLUMNS))

    def find(self, keys: Collection[BindingKey]) -> Loaded:
        """The bindings of the store with these keys."""
        if not keys:
            return Loaded([], [])
        asked = json.dumps([{"ipv4": str(key.ipv4), "psid": key.psid} for key in keys])
        if not self._sqlite:
            return self._read(_FIND_POSTGRESQL, {"asked": asked})
        with self._guard(), self._engine.connect() as connection:
            found = json.loads(connection.scalar(_FIND_SQLITE, {"asked": asked}) or "[]")
        return _loaded((*row, None if end == "NULL" else float(end)) for *row, end in found)

    def save(
        self,
        put: Iterable[Binding],
        delete: Iterable[BindingKey],
        create: Iterable[Binding] = (),
        *,
        on_disk: bool = True,
    ) -> None:
        """Delete, then add or replace ``put`` and add ``create``, in one transaction.

        Without ``on_disk``, SQLite does not wait for the disk: the change outlives this process,
        but perhaps not a power failure. Raises AlreadyStored if the store has a key of ``create``,
        which another controller may have put there.
        """
        gone = [{"k_ipv4": str(key.ipv4), "k_psid": key.psid} for key in delete]
        changed = [_row(binding) for binding in put]
        new = [_row(binding) for binding in create]
        if not gone and not changed and not new:
            return
        try:
            engine = self._engine if on_disk else self._quick_engine
            with self._guard(), engine.begin() as connection:
                if gone:
                    connection.execute(_DELETE, gone)
                if changed:
                    connection.execute(_or_update(self._insert(_BINDINGS)), changed)
                if new:
                    connection.execute(_BINDINGS.insert(), new)
        except StoreError as error:
            if isinstance(error.__cause__, exc.IntegrityError):
                raise AlreadyStored from error
            raise

    def claim(
        self, connection: sa.Connection, bindings: Collection[Binding], now: float
    ) -> set[BindingKey]:
        """Add or replace bindings, but for those whose address and port set another lwB4 has at
        ``now``; the keys of those that were written. Each key may be there once."""
        if not bindings:
            return set()
        is_free = _BINDINGS.c.expires_at <= now
        statement = self.upsert(
            _BINDINGS, lambda asked: sa.or_(_BINDINGS.c.lwb4 == asked.lwb4, is_free)
        )
        written = connection.execute(
            statement.returning(_BINDINGS.c.ipv4, _BINDINGS.c.psid), rows(map(_row, bindings))
        )
        return {BindingKey(IPv4Address(ipv4), psid) for ipv4, psid in written.all()}

    def release(self, connection: sa.Connection, bindings: Collection[Binding]) -> None:
        """Delete bindings, unless another lwB4 has got them."""
        if bindings:
            keys = (_BINDINGS.c.ipv4, _BINDINGS.c.psid, _BINDINGS.c.lwb4)
            connection.execute(self.delete(_BINDINGS, *keys), rows(map(_row, bindings)))

    def _read(self, query: Any, values: dict[str, str] | None = None) -> Loaded:
        with self._guard(), self._engine.connect() as connection:
            return _loaded(connection.execute(query, values).all())

    def expire(self, now: float) -> None:
        """Delete what has expired by ``now``, unless somebody has prolonged it."""
        with self._guard(), self._engine.begin() as connection:
            connection.execute(_BINDINGS.delete().where(_BINDINGS.c.expires_at <= now))

    def drained(self) -> set[str]:
        """The names of the instances that are drained."""
        with self._guard(), self._engine.connect() as connection:
            return set(connection.scalars(sa.select(_DRAINED.c.name)))

    def set_drained(self, name: str, drained: bool) -> None:
        with self._guard(), self._engine.begin() as connection:
            connection.execute(_DRAINED.delete().where(_DRAINED.c.name == name))
            if drained:
                connection.execute(_DRAINED.insert().values(name=name))

    @property
    def shared(self) -> bool:
        """Whether other controllers may write to the same store."""
        return not self._sqlite

    def watch(self) -> Watch:
        """Tells what others change in the store."""
        return Watch(self._engine, self._guard(), self._sender, sqlite=self._sqlite)

    def close(self) -> None:
        self._engine.dispose()
        self._quick_engine.dispose()

    def upsert(self, table: sa.Table, may_replace: Callable[[Any], Any] | None = None) -> Any:
        """A statement that adds ``rows`` to ``table``, or puts them into the place of those with
        their keys; ``may_replace`` makes the condition for that of the columns to be written."""
        columns = list(table.columns)
        given = self._insert(table).from_select(columns, self.given(*columns))
        return _or_update(given, may_replace)

    def _insert(self, table: sa.Table) -> Any:
        if self._sqlite:
            from sqlalchemy.dialects.sqlite import insert
        else:
            from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]
        return insert(table)

    def delete(self, table: sa.Table, *columns: sa.Column[Any]) -> Any:
        """A statement that deletes what has the same values in these columns as one of ``rows``."""
        return table.delete().where(sa.tuple_(*columns).in_(self.given(*columns)))

    def given(self, *columns: sa.Column[Any]) -> sa.Select[Any]:
        """The parameter that ``rows`` makes, as a query."""
        dialect = self._engine.dialect
        if self._sqlite:
            given = "json_each(:rows)"
            values: list[Any] = [sa.literal_column(f"value ->> '{c.name}'") for c in columns]
        else:
            types = ", ".join(f"{c.name} {c.type.compile(dialect)}" for c in columns)
            given = f"json_to_recordset(cast(:rows as json)) as given({types})"
            values = [sa.literal_column(f"given.{c.name}") for c in columns]
        # SQLite would take "on conflict" for a join, were it not for the condition.
        return sa.select(*values).select_from(sa.text(given)).where(sa.true())

    def _sign(self, connection: Any, _record: Any) -> None:
        """Every new PostgreSQL connection: our own changes are not news to us."""
        connection.execute(f"set session lw4o6.sender = '{self._sender}'")
        connection.commit()

    def _prepare_directory(self, must_exist: bool) -> None:
        name = self._url.database
        if not name or name == ":memory:":
            raise StoreError(
                "a SQLite store needs a file", "Use sqlite:////var/lib/lw4o6/bindings.sqlite"
            )
        if must_exist and not Path(name).exists():
            raise StoreError(f"there is no {name}", "Check the path, and that it is mounted")
        directory = Path(name).absolute().parent
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{directory} cannot be made: {error.strerror}", "Choose another place"
            ) from error
        if not os.access(directory, os.W_OK):
            raise StoreError(f"{directory} is not writable", "Choose another place")

    def _guard(self) -> _Guard:
        return _Guard(self._url.render_as_string(hide_password=True))


_CHANNEL = "lw4o6_bindings"
_NOTIFY = f"""
create function lw4o6_notify() returns trigger language plpgsql as $$
declare sender text := coalesce(nullif(current_setting('lw4o6.sender', true), ''), '-');
begin
    if tg_op = 'TRUNCATE' then
        perform pg_notify('{_CHANNEL}', sender);
        return null;
    end if;
    if tg_op <> 'DELETE' then
        perform pg_notify('{_CHANNEL}', sender || ' ' || new.ipv4 || ' ' || new.psid);
    end if;
    if tg_op <> 'INSERT' and (tg_op = 'DELETE' or (old.ipv4, old.psid) <> (new.ipv4, new.psid)) then
        perform pg_notify('{_CHANNEL}', sender || ' ' || old.ipv4 || ' ' || old.psid);
    end if;
    return null;
end $$;
create trigger lw4o6_notify after insert or update or delete on bindings
    for each row execute function lw4o6_notify();
create trigger lw4o6_notify_all after truncate on bindings execute function lw4o6_notify();
"""
"""Whoever changes the table, by whatever program: those who listen are told the keys."""

_DELETE = _BINDINGS.delete().where(
    _BINDINGS.c.ipv4 == sa.bindparam("k_ipv4"), _BINDINGS.c.psid == sa.bindparam("k_psid")
)


class Watch:
    """Tells what others change in a store. For one thread."""

    def __init__(self, engine: sa.Engine, guard: _Guard, sender: str, *, sqlite: bool) -> None:
        self._engine = engine
        self._guard = guard
        self._sender = sender
        self._sqlite = sqlite
        self._connection: Any = None
        self._version: int | None = None

    def wait(self, seconds: float) -> list[BindingKey] | None:
        """Wait up to ``seconds`` for a change and return the keys of what has changed; None if it
        may be anything, as when nobody has watched before. Raises StoreError."""
        try:
            with self._guard:
                return self._poll(seconds) if self._sqlite else self._listen(seconds)
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(exc.SQLAlchemyError):
                connection.invalidate()
                connection.close()

    def _poll(self, seconds: float) -> list[BindingKey] | None:
        """SQLite tells a connection whether another one has changed anything."""
        new = self._connection is None
        if new:
            self._connection = self._engine.connect()
        else:
            time.sleep(seconds)
        version = self._connection.scalar(sa.text("pragma data_version"))
        self._connection.rollback()
        before, self._version = self._version, version
        return None if version != before else []

    def _listen(self, seconds: float) -> list[BindingKey] | None:
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(
                isolation_level="AUTOCOMMIT"
            )
            self._connection.execute(sa.text(f"listen {_CHANNEL}"))
            return None
        import psycopg  # an extra of the package, and there if we got here

        driver = self._connection.connection.driver_connection
        try:
            keys = self._keys(driver.notifies(timeout=seconds, stop_after=1))
            if keys == []:
                driver.execute("select 1")  # finds out whether the server is still there
            elif keys is not None:
                more = self._keys(driver.notifies(timeout=0))
                keys = None if more is None else keys + more
        except psycopg.Error as error:
            raise exc.OperationalError("listen", None, error) from error
        return keys

    def _keys(self, notifications: Iterable[Any]) -> list[BindingKey] | None:
        keys: list[BindingKey] | None = []
        for notification in notifications:
            sender, *what = notification.payload.split(" ")
            if sender == self._sender:
                continue
            try:
                ipv4, psid = what
                key = BindingKey(IPv4Address(ipv4), int(psid))
            except ValueError:
                keys = None
            else:
                if keys is not None:
                    keys.append(key)
        return keys


class _Guard:
    """Turns what a database driver raises into StoreError."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, exc.SQLAlchemyError):
            cause = getattr(error, "orig", None) or error
            reason = str(cause).strip().splitlines()[0]
            hint = "Check that the database runs, and that it is ours to write"
            if "locked" in reason:
                hint = "Another program holds the database; try again"
            elif "malformed" in reason or "not a database" in reason:
                hint = "The file is damaged: restore it, or move it away to start empty"
            raise StoreError(f"store {self._url}: {reason}", hint) from error


def _loaded(found: Iterable[Sequence[Any]]) -> Loaded:
    """Bindings out of rows of ``_COLUMNS``."""
    bindings: list[Binding] = []
    problems: list[str] = []
    parameters: dict[tuple[int, int], PortParams] = {}
    for ipv4, psid, offset, length, lwb4, br_address, origin, expires_at in found:
        try:
            if (offset, length) not in parameters:
                parameters[offset, length] = PortParams(offset, length)
            params = parameters[offset, length]
            params.check_psid(psid)
            bindings.append(
                Binding(
                    IPv6Address(lwb4),
                    IPv4Address(ipv4),
                    psid,
                    params,
                    IPv6Address(br_address) if br_address else None,
                    Origin(origin),
                    expires_at,
                )
            )
        except (ValueError, TypeError) as error:
            problems.append(f"row {ipv4}/{psid} is no binding and is ignored: {error}")
    return Loaded(bindings, problems)


def _durable(connection: Any, _record: Any) -> None:
    """Every new SQLite connection: readers never wait, and a commit is on disk when it returns."""
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=full")


def _quick(connection: Any, _record: Any) -> None:
    """The same, but a commit is on its way to the disk."""
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=normal")


def _or_update(statement: Any, may_replace: Callable[[Any], Any] | None = None) -> Any:
    """An insertion that replaces rows with the same key."""
    table, written = statement.table, statement.excluded
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key),
        set_={c.name: written[c.name] for c in table.columns if not c.primary_key},
        where=None if may_replace is None else may_replace(written),
    )


def rows(values: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Rows as the parameter of a statement: one value, however many there are, so that the
    statement is the same every time and nobody has to build and read thousands of parameters."""
    return {"rows": json.dumps(list(values))}


def _row(binding: Binding) -> dict[str, Any]:
    return {
        "ipv4": str(binding.ipv4),
        "psid_length": binding.params.psid_length,
        "psid": binding.psid,
        "psid_offset": binding.params.psid_offset,
        "lwb4": str(binding.lwb4),
        "br_address": str(binding.br_address) if binding.br_address else None,
        "origin": str(binding.origin),
        "expires_at": binding.expires_at,
    }
