"""What other controllers and programs change in a store."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from ryu_lw4o6.core.binding import BindingKey
from ryu_lw4o6.store.errors import Guard, StoreError
from ryu_lw4o6.store.schema import CHANNEL


class Watch:
    """Tells what others change in a store. For one thread. ``look_at_file`` is for SQLite, and
    raises StoreError if it is another one by now."""

    def __init__(
        self,
        engine: sa.Engine,
        guard: Guard,
        sender: str,
        look_at_file: Callable[[], None] | None,
    ) -> None:
        self._engine = engine
        self._guard = guard
        self._sender = sender
        self._look_at_file = look_at_file
        self._connection: Any = None
        self._version: int | None = None

    def wait(self, seconds: float) -> list[BindingKey] | None:
        """Wait up to ``seconds`` for a change and return the keys of what has changed; None if it
        may be anything, as when nobody has watched before. Raises StoreError."""
        try:
            with self._guard:
                if self._look_at_file is None:
                    return self._listen(seconds)
                self._look_at_file()
                return self._poll(seconds)
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
            self._connection.execute(sa.text(f"listen {CHANNEL}"))
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
