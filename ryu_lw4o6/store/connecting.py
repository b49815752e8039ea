"""How a connection to a database is made, and what it is told first."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

GONE = {
    "connect_timeout": "5",
    "tcp_user_timeout": "8000",
    "keepalives_idle": "4",
    "keepalives_interval": "1",
    "keepalives_count": "4",
}
"""For PostgreSQL's library, unless the URL says otherwise. A server whose machine is gone closes no
connection, and Linux would wait for it for a quarter of an hour, another one or not."""


def arguments(url: sa.URL, busy_seconds: float) -> dict[str, Any]:
    """What the driver is given beside the URL. SQLite waits for others for ``busy_seconds``."""
    if url.get_backend_name() == "sqlite":
        return {"timeout": busy_seconds}
    return {name: value for name, value in GONE.items() if name not in url.query}


def durable(connection: Any, _record: Any) -> None:
    """Every new SQLite connection: readers never wait, and a commit is on disk when it returns."""
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=full")


def quick(connection: Any, _record: Any) -> None:
    """The same, but a commit is on its way to the disk."""
    connection.execute("pragma journal_mode=wal")
    connection.execute("pragma synchronous=normal")
