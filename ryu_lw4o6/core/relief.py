"""How many new lwB4s are let in while the switch cannot keep up."""

from __future__ import annotations

HIGH, LOW = 0.4, 0.15
"""Of the room for packets that wait: above the first fewer are let in, below the second more."""
LEAST = 0.1
"""Of those that are let in otherwise: there are always some."""
_LESS = 0.7
_PAUSE = 0.4
"""Seconds: it takes a moment until fewer are seen in what waits."""
_MORE, _AND_MORE = 1.02, 0.002
"""Times what it is, and of the usual: it leaves the bottom soon, too."""


class Relief:
    """``share`` is how much of the usual is let in. It goes down fast and up slowly, so that it
    stays near what the switch can do; only when ``most`` is raised it is tried at once."""

    def __init__(self) -> None:
        self.share = 1.0
        self._most = 1.0
        self._fewer_from = 0.0

    def look(self, fill: float, now: float, most: float) -> float:
        """The share from now on, ``most`` at most, when the room for packets is filled to ``fill``,
        of 1, at ``now``, in seconds."""
        if most > self._most:
            self.share = most
        self._most = most
        if fill > HIGH:
            if now >= self._fewer_from:
                self.share = max(LEAST, self.share * _LESS)
                self._fewer_from = now + _PAUSE
        elif fill < LOW:
            self.share = self.share * _MORE + _AND_MORE
        self.share = min(self.share, most)
        return self.share
