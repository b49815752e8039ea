"""The counters of an instance's shim, for those who read them again and again."""

from __future__ import annotations

import contextlib

import eventlet.timeout

from ryu_lw4o6.core.settings import Instance
from ryu_lw4o6.softwire import maps, shim
from ryu_lw4o6.softwire.commands import ShimError

_SECONDS = 5.0


class CounterReader:
    """Remembers where the counters are: to find them takes some commands more."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._map: int | None = None

    def read(self) -> dict[str, int] | None:
        """The counters now; None where they cannot be read, on another machine for instance."""
        try:
            with eventlet.timeout.Timeout(_SECONDS):
                return self._read()
        except (ShimError, OSError, eventlet.timeout.Timeout):
            return None

    def _read(self) -> dict[str, int]:
        if self._map is not None:
            with contextlib.suppress(ShimError):  # the shim has been replaced
                return maps.counters(self._map)
        self._map = shim.counters_map(self._instance)
        return maps.counters(self._map)
