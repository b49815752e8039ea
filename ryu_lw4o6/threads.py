"""Locks for real threads.

``ryu-manager`` replaces the locks of ``threading`` by eventlet's, which are for greenlets of one
thread. Databases are asked in real threads (``eventlet.tpool``), and one of these that has to wait
for such a lock waits for ever. So what runs there takes ``threading`` from here, and SQLAlchemy's
connection pool, which all of them share, is given it as well.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy.pool.impl
import sqlalchemy.util.queue
from eventlet.patcher import original

threading: Any = original("threading")

for _module in (sqlalchemy.pool.impl, sqlalchemy.util.queue):
    vars(_module)["threading"] = threading
