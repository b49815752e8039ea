"""Who was seen a moment ago: at most one answer for each source and interval."""

from __future__ import annotations

from collections.abc import Hashable


class Recent:
    """Remembers keys for ``seconds``, the newest ``limit`` of them."""

    def __init__(self, seconds: float, limit: int) -> None:
        self._seconds = seconds
        self._limit = limit
        self._since: dict[Hashable, float] = {}  # oldest first

    def has(self, key: Hashable, now: float) -> bool:
        """Whether ``key`` is still remembered."""
        since = self._since.get(key)
        return since is not None and since > now - self._seconds

    def add(self, key: Hashable, now: float) -> bool:
        """Remember ``key`` from ``now`` on; False if it is still remembered from before."""
        while (
            self._since and self._since[(oldest := next(iter(self._since)))] <= now - self._seconds
        ):
            del self._since[oldest]
        if key in self._since:
            return False
        if len(self._since) >= self._limit:
            del self._since[next(iter(self._since))]
        self._since[key] = now
        return True
