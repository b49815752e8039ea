"""Where bindings survive: SQLite by default, PostgreSQL by another URL."""

from ryu_lw4o6.store.database import Store
from ryu_lw4o6.store.errors import (
    AlreadyStored,
    OtherStore,
    OutcomeUnknown,
    StoreError,
    StoreUnavailable,
    Unconfirmed,
)
from ryu_lw4o6.store.schema import Loaded, rows
from ryu_lw4o6.store.watch import Watch

__all__ = [
    "AlreadyStored",
    "Loaded",
    "OtherStore",
    "OutcomeUnknown",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "Unconfirmed",
    "Watch",
    "rows",
]
