"""Locks for real threads.

``ryu-manager`` replaces the locks of ``threading`` by eventlet's, which are for greenlets of one
thread. Databases are asked in real threads (``eventlet.tpool``), and one of these that has to wait
for such a lock waits for ever. So what runs there takes ``threading`` from here, and what all of
them share is given it as well: SQLAlchemy's connection pool, and the log.
"""

from __future__ import annotations

import logging
from typing import Any

import sqlalchemy.pool.impl
import sqlalchemy.util.queue
from eventlet.patcher import original

threading: Any = original("threading")

for _module in (sqlalchemy.pool.impl, sqlalchemy.util.queue, logging):
    vars(_module)["threading"] = threading
vars(logging)["_lock"] = threading.RLock()
for _reference in vars(logging)["_handlerList"]:
    if (_handler := _reference()) is not None:
        _handler.createLock()
