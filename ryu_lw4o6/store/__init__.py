"""Where bindings survive: SQLite by default, PostgreSQL by another URL."""

from ryu_lw4o6.store.database import Store
from ryu_lw4o6.store.errors import AlreadyStored, OtherStore, StoreError, StoreUnavailable
from ryu_lw4o6.store.schema import Loaded, rows
from ryu_lw4o6.store.watch import Watch

__all__ = [
    "AlreadyStored",
    "Loaded",
    "OtherStore",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "Watch",
    "rows",
]
