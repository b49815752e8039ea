"""Where bindings survive: SQLite by default, PostgreSQL by another URL.

``save`` returns when the database has made the change durable.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from ryu_lw4o6.core.binding import Binding, BindingKey
from ryu_lw4o6.store import connecting, schema
from ryu_lw4o6.store.errors import AlreadyStored, Guard, OtherStore, StoreError, Unconfirmed
from ryu_lw4o6.store.schema import (
    BINDINGS,
    COLUMNS,
    DRAINED,
    IDENTITY,
    Loaded,
    loaded,
    row,
    rows,
)
from ryu_lw4o6.store.watch import Watch
from ryu_lw4o6.threads import threading  # noqa: F401 (before a pool is made)

LOG = logging.getLogger(__name__)

_BUSY_SECONDS = 10
_CLOCKS_APART = 2.0
"""Seconds that PCP clients bear (RFC 6887 section 8.5)."""
_CREATION_LOCK = 0x6C77346F36  # any number that nobody else takes


class Store:
    """May be used from several threads. Everything raises StoreError.

    A SQLite file that is not there is made, unless it ``must_exist``: somebody else's that has
    gone must not be taken for one without bindings. Nor must another one that is put in its place
    later, be it empty or old: from then on everything raises OtherStore.
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
        self._clock_told = False
        self._id: str | None = None
        self._file: tuple[int, int] | None = None
        sa.event.listen(self._engine, "connect", connecting.durable if self._sqlite else self._sign)
        self._reader = self._quick_engine = self._engine
        if self._sqlite:
            self._quick_engine = self._create_engine()
            sa.event.listen(self._quick_engine, "connect", connecting.quick)
        else:
            # A query is one round trip: nothing asks before whether the server is there, or after
            # it for the end of a transaction.
            self._reader = self._create_engine(pool_pre_ping=False, isolation_level="AUTOCOMMIT")
            sa.event.listen(self._reader, "connect", self._sign)
        self._put = self.upsert(BINDINGS)
        self._put_validated = self.upsert(BINDINGS, lambda _: schema.IS_VALIDATED)
        for engine in {self._engine, self._quick_engine, self._reader}:
            sa.event.listen(engine, "connect", self._recognise)
            if self._sqlite:
                for moment in ("do_connect", "checkout"):
                    sa.event.listen(engine, moment, self._look_at_file)
        with self.exclusive() as connection:
            schema.METADATA.create_all(connection)
            identity = connection.scalar(sa.select(IDENTITY.c.id))
            if identity is None:
                identity = uuid.uuid4().hex
                connection.execute(IDENTITY.insert().values(id=identity))
            version = connection.scalar(sa.select(sa.func.max(schema.VERSION.c.version)))
            if version is None:
                connection.execute(schema.VERSION.insert().values(version=schema.SCHEMA_VERSION))
                if not self._sqlite:
                    connection.execute(sa.text(schema.NOTIFY))
        if version is not None and version > schema.SCHEMA_VERSION:
            raise StoreError(
                f"the store has schema version {version}, this program knows "
                f"{schema.SCHEMA_VERSION}",
                "Use the version of lw4o6 that wrote it, or a newer one",
            )
        self._id = identity
        if self._sqlite:
            self._file = _inode(self._url.database)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """What is done on the connection is kept as a whole, or not at all. Raises Unconfirmed if
        nobody can say which."""
        committing = False
        try:
            with self._guard(), self._engine.begin() as connection:
                yield connection
                committing = True
        except StoreError as error:
            cause = error.__cause__
            if committing and isinstance(cause, exc.DBAPIError) and cause.connection_invalidated:
                raise Unconfirmed(error) from cause
            raise

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

    def _create_engine(self, **options: Any) -> sa.Engine:
        defaults: dict[str, Any] = {"pool_pre_ping": not self._sqlite}
        arguments = connecting.arguments(self._url, _BUSY_SECONDS)
        return sa.create_engine(self._url, connect_args=arguments, **defaults | options)

    def load(self) -> Loaded:
        """Every binding in the store."""
        return loaded(self._rows(sa.select(*COLUMNS)))

    def pages(self, size: int, network: IPv4Network | None = None) -> Iterator[Loaded]:
        """Every binding in the store, in parts, each of which is read when it is asked for; with
        ``network`` those of its addresses, and of those with which it shares its whole octets."""
        like = "%" if network is None else schema.like(network)
        after: tuple[str, int, int] = ("", 0, 0)
        while True:
            found = self._page(like, after, size)
            if not found:
                return
            yield loaded(found)
            after = (found[-1][0], found[-1][3], found[-1][1])

    def _page(self, like: str, after: tuple[str, int, int], size: int) -> Sequence[Sequence[Any]]:
        ipv4, length, psid = after
        values = {"like": like, "ipv4": ipv4, "length": length, "psid": psid, "size": size}
        return self._answer(schema.PAGE_SQLITE, schema.PAGE, values)

    def find(self, keys: Collection[BindingKey]) -> Loaded:
        """The bindings of the store with these keys."""
        if not keys:
            return Loaded([], [])
        asked = json.dumps([{"ipv4": str(key.ipv4), "psid": key.psid} for key in keys])
        return loaded(self._answer(schema.FIND_SQLITE, schema.FIND_POSTGRESQL, {"asked": asked}))

    def save(
        self,
        put: Iterable[Binding],
        delete: Iterable[BindingKey],
        create: Iterable[Binding] = (),
    ) -> None:
        """Delete, then add or replace ``put`` and add ``create``, in one transaction.

        Raises AlreadyStored if the store has a key of ``create``, which another controller may
        have put there.
        """
        gone = schema.deleted(delete)
        # A statement knows each key once.
        changed = [row(binding) for binding in {b.key: b for b in put}.values()]
        new = [row(binding) for binding in create]
        if not (gone or changed or new):
            return
        try:
            with self.transaction() as connection:
                if gone:
                    connection.execute(schema.DELETE, gone)
                if changed:
                    connection.execute(self._put, rows(changed))
                if new:
                    connection.execute(BINDINGS.insert(), new)
        except StoreError as error:
            if new and isinstance(error.__cause__, exc.IntegrityError):
                raise AlreadyStored from error
            raise

    def follow(
        self,
        put: Collection[Binding],
        withdrawn: Collection[BindingKey],
        overruled: Collection[BindingKey],
    ) -> None:
        """Add or replace what the supporting system has said, and delete what it has withdrawn;
        what somebody else has made stays, unless it is ``overruled``. Each key may be there once.

        SQLite does not wait for the disk: the change outlives this process, but perhaps not a
        power failure.
        """
        with self._guard(), self._quick_engine.begin() as connection:
            if overruled:
                connection.execute(schema.DELETE, schema.deleted(overruled))
            if withdrawn:
                connection.execute(schema.WITHDRAW, schema.deleted(withdrawn))
            if put:
                connection.execute(self._put_validated, rows(map(row, put)))

    def claim(
        self, connection: sa.Connection, bindings: Collection[Binding], now: float
    ) -> set[BindingKey]:
        """Add or replace bindings, but for those whose address and port set another lwB4 has at
        ``now``; the keys of those that were written. Each key may be there once."""
        if not bindings:
            return set()
        is_free = self.over(BINDINGS.c.expires_at, now)
        statement = self.upsert(
            BINDINGS, lambda asked: sa.or_(BINDINGS.c.lwb4 == asked.lwb4, is_free)
        )
        written = connection.execute(
            statement.returning(BINDINGS.c.ipv4, BINDINGS.c.psid), rows(map(row, bindings))
        )
        return {BindingKey(IPv4Address(ipv4), psid) for ipv4, psid in written.all()}

    def release(self, connection: sa.Connection, bindings: Collection[Binding]) -> None:
        """Delete bindings, unless another lwB4 has got them."""
        if bindings:
            keys = (BINDINGS.c.ipv4, BINDINGS.c.psid, BINDINGS.c.lwb4)
            connection.execute(self.delete(BINDINGS, *keys), rows(map(row, bindings)))

    def _answer(
        self, sqlite: Any, postgresql: Any, values: dict[str, Any]
    ) -> Sequence[Sequence[Any]]:
        """The rows of a query, which either database wants in a form of its own."""
        if not self._sqlite:
            return self._rows(postgresql, values)
        with self._guard(), self._engine.connect() as connection:
            return schema.unpacked(connection.scalar(sqlite, values))

    def _rows(self, query: Any, values: dict[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        def read() -> Sequence[Sequence[Any]]:
            with self._reader.connect() as connection:
                return connection.execute(query, values).all()

        with self._guard():
            try:
                return read()
            except exc.DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                return read()  # the server was restarted; this opens a new connection

    def expire(self, now: float) -> None:
        """Delete what has expired by ``now``, unless somebody has prolonged it."""
        with self._guard(), self._engine.begin() as connection:
            connection.execute(BINDINGS.delete().where(self.over(BINDINGS.c.expires_at, now)))

    def over(self, ends: sa.Column[Any], now: float) -> sa.ColumnElement[bool]:
        """What has ended by ``now``, and by the clock of a database that is shared: whose own clock
        is fast must not take from others what is theirs."""
        if self._sqlite:
            return ends <= now
        its_now = sa.extract("epoch", sa.func.clock_timestamp())
        return sa.and_(ends <= now, ends <= its_now)

    def drained(self) -> set[str]:
        """The names of the instances that are drained."""
        with self._guard(), self._engine.connect() as connection:
            return set(connection.scalars(sa.select(DRAINED.c.name)))

    def set_drained(self, name: str, drained: bool) -> None:
        with self._guard(), self._engine.begin() as connection:
            connection.execute(DRAINED.delete().where(DRAINED.c.name == name))
            if drained:
                connection.execute(DRAINED.insert().values(name=name))

    @property
    def shared(self) -> bool:
        """Whether other controllers may write to the same store."""
        return not self._sqlite

    def watch(self) -> Watch:
        """Tells what others change in the store."""
        check = self._look_at_file if self._sqlite else None
        return Watch(self._engine, self._guard(), self._sender, check)

    def close(self) -> None:
        for engine in (self._engine, self._quick_engine, self._reader):
            engine.dispose()

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
        """Every new PostgreSQL connection: our own changes are not news to us, nobody waits for
        ever for an administrator's lock, and what a controller that is gone had begun is given up
        before those who wait for it give up."""
        connection.execute(f"set session lw4o6.sender = '{self._sender}'")
        connection.execute(f"set session lock_timeout = '{_BUSY_SECONDS}s'")
        idle = _BUSY_SECONDS * 500
        connection.execute(f"set session idle_in_transaction_session_timeout = '{idle}ms'")
        (its_now,) = connection.execute("select extract(epoch from clock_timestamp())").fetchone()
        connection.commit()
        ahead = time.time() - float(its_now)
        if abs(ahead) > _CLOCKS_APART and not self._clock_told:
            self._clock_told = True
            where = "ahead of" if ahead > 0 else "behind"
            LOG.warning(
                "the clock here is %.0f s %s that of the database, and lifetimes are measured by "
                "both: synchronise them", abs(ahead), where,
            )  # fmt: skip

    def _recognise(self, connection: Any, _record: Any) -> None:
        """Every new connection: is this still the store that was opened?"""
        if self._id is not None:
            found = connection.execute(f"select id from {IDENTITY.name}").fetchone()
            connection.commit()
            if found is None or found[0] != self._id:
                raise self._other()

    def _look_at_file(self, *_: Any) -> None:
        """Every use of a SQLite connection: what is written to a file that was deleted is lost."""
        if self._file is not None and self._file != _inode(self._url.database):
            raise self._other()

    def _other(self) -> OtherStore:
        return OtherStore(self._url.render_as_string(hide_password=True))

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
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{directory} cannot be made: {error.strerror}", "Choose another place"
            ) from error
        if not os.access(directory, os.W_OK):
            raise StoreError(f"{directory} is not writable", "Choose another place")

    def _guard(self) -> Guard:
        return Guard(self._url.render_as_string(hide_password=True))


def _inode(path: str | None) -> tuple[int, int] | None:
    try:
        found = os.stat(path or "")
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _or_update(statement: Any, may_replace: Callable[[Any], Any] | None = None) -> Any:
    """An insertion that replaces rows with the same key."""
    table, written = statement.table, statement.excluded
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key),
        set_={c.name: written[c.name] for c in table.columns if not c.primary_key},
        where=None if may_replace is None else may_replace(written),
    )
