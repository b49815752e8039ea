"""What may be wrong with a store."""

from __future__ import annotations

from sqlalchemy import exc

from ryu_lw4o6.core.errors import AdvisedError


class StoreError(AdvisedError):
    """The store cannot be reached, read or written."""


class OtherStore(StoreError):
    """In the place of the store that was opened there is another one, or none."""

    def __init__(self, url: str) -> None:
        super().__init__(
            f"store {url}: this is not the one that was there before",
            "Put that one back, or restart the controller to use what is there now",
        )


class Unconfirmed(StoreError):
    """The connection broke while the store committed: it may have, or not."""

    def __init__(self, error: StoreError) -> None:
        super().__init__(error.reason, "Look what is there when the store is back")


class StoreUnavailable(Exception):
    """The store did not take the change; nothing was changed."""


class OutcomeUnknown(StoreUnavailable):
    """The store may have taken the change, or not."""


class AlreadyStored(Exception):
    """The store has a binding with the key of one that was to be new; nothing was changed."""


class Guard:
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
            if "locked" in reason or "lock timeout" in reason:
                hint = "Another program holds the database; try again"
            elif "full" in reason:
                hint = "Make room where the database is"
            elif "readonly" in reason:
                hint = "The file, or the disk it is on, cannot be written to"
            elif "malformed" in reason or "not a database" in reason:
                hint = "The file is damaged: restore it, or move it away to start empty"
            raise StoreError(f"store {self._url}: {reason}", hint) from error
