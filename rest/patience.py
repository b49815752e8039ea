"""How long a request waits for the store, which may hang without saying that it is away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import eventlet
import eventlet.event
import eventlet.semaphore

from rest.http import Problem
from ryu_lw4o6.store import OutcomeUnknown, StoreUnavailable

LOG = logging.getLogger(__name__)

STORE_SECONDS = 15.0
_RETRY = {"Retry-After": "5"}


class Patience:
    """Lets one request after the other work on the store, each for at most ``STORE_SECONDS``.

    Work that has begun is not broken off, since nobody could say how far it had come: it goes on
    when the store does. Until then no other is begun, so that what was refused is never done.
    """

    def __init__(self) -> None:
        self._turn = eventlet.semaphore.Semaphore()

    def wait_for(self, what: str, work: Callable[[], None]) -> None:
        """Raises what ``work`` raises, and a 503 problem if that takes too long or the store is
        away."""
        deadline = time.monotonic() + STORE_SECONDS
        if not self._turn.acquire(timeout=STORE_SECONDS):
            detail = (
                f"nothing was changed: the store has not answered an earlier request for "
                f"{STORE_SECONDS:g} s. Check that it runs, then try again"
            )
            raise Problem(503, detail, headers=_RETRY)
        done = eventlet.event.Event()
        eventlet.spawn_n(self._work, what, work, done, deadline)
        with eventlet.Timeout(max(0.0, deadline - time.monotonic()), False):
            try:
                done.wait()
            except OutcomeUnknown as error:
                raise Problem(503, f"the outcome is unknown: {error}", headers=_RETRY) from None
            except StoreUnavailable as error:
                raise Problem(503, f"nothing was changed: {error}", headers=_RETRY) from None
            return
        detail = (
            f"the outcome is unknown: the store has not answered for {STORE_SECONDS:g} s, and may "
            "do so yet. Check that it runs, and look what is there before you try again"
        )
        raise Problem(503, detail, headers=_RETRY)

    def _work(
        self, what: str, work: Callable[[], None], done: eventlet.event.Event, deadline: float
    ) -> None:
        error: Exception | None = None
        try:
            work()
        except Exception as raised:
            error = raised
        finally:
            self._turn.release()
        if time.monotonic() > deadline:
            LOG.warning("%s, given up after %g s: %s", what, STORE_SECONDS, error or "is done")
        if error is None:
            done.send(None)
        else:
            done.send_exception(error)
