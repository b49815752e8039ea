"""Who waits for a switch to confirm a binding: what is promised to an lwB4 must be there before its
first packet."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from ryu.lib import hub

from ryu_lw4o6.core.binding import BindingKey
from ryu_lw4o6.session import Session

APPLY_SECONDS = 5.0
"""How long a switch may take."""
_LOOK_SECONDS = 0.05

Done = Callable[[str | None], None]
"""Told None when the switch has what it should have, or else why not. Must not wait."""


class _Waiting(NamedTuple):
    key: BindingKey
    until: float
    done: Done


class Confirmations:
    """``session`` is the switch's session of the moment, if there is one."""

    def __init__(self, session: Callable[[], Session | None]) -> None:
        self._session = session
        self._waiting: list[_Waiting] = []
        self._wake = hub.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, key: BindingKey, done: Done, until: float | None = None) -> None:
        """Have ``done`` told whether the switch has what the table says of ``key``, at once if it
        has it already. ``until`` is in seconds of ``time.monotonic``."""
        end = time.monotonic() + APPLY_SECONDS if until is None else until
        waiting = _Waiting(key, end, done)
        if not self._settle(waiting, self._session()):
            self._waiting.append(waiting)
            self._wake.set()

    def run(self) -> None:
        """Work for ever."""
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._waiting:
                session = self._session()
                if session is None:
                    hub.sleep(_LOOK_SECONDS)
                else:
                    session.wait_progress(_LOOK_SECONDS)
                waiting, self._waiting = self._waiting, []
                session = self._session()
                self._waiting += [w for w in waiting if not self._settle(w, session)]

    @staticmethod
    def _settle(waiting: _Waiting, session: Session | None) -> bool:
        """Whether nothing more is to be waited for."""
        if session is not None and session.ports is not None and not session.pending(waiting.key):
            waiting.done(session.failure(waiting.key))
            return True
        if time.monotonic() > waiting.until:
            waiting.done("the switch does not confirm it")
            return True
        return False
