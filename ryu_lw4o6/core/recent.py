"""Who was seen a moment ago: at most one answer for each source and interval."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable


class Recent:
    """Remembers keys for ``seconds``, the newest ``limit`` of them."""

    def __init__(self, seconds: float, limit: int) -> None:
        self._seconds = seconds
        self._limit = limit
        self._since: dict[Hashable, float] = {}
        # The same, oldest first. Not the dictionary's own order: to find the first entry of a
        # dictionary, Python steps over all that were deleted before it.
        self._order: deque[tuple[float, Hashable]] = deque()

    def has(self, key: Hashable, now: float) -> bool:
        """Whether ``key`` is still remembered."""
        since = self._since.get(key)
        return since is not None and since > now - self._seconds

    def add(self, key: Hashable, now: float) -> bool:
        """Remember ``key`` from ``now`` on; False if it is still remembered from before."""
        order, since = self._order, self._since
        while order and order[0][0] <= now - self._seconds:
            del since[order.popleft()[1]]
        if key in since:
            return False
        if len(since) >= self._limit:
            del since[order.popleft()[1]]
        since[key] = now
        order.append((now, key))
        return True
