"""Two processes that run the tests side by side (pytest-xdist): what stays together."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

APART = {"core", "docs", "fuzz", "packaging", "rest", "store", "supporting", "topo", "wire"}
"""Folders that do not mind what runs beside them. Of all others one test runs at a time: they
measure time, crowd a switch, or share a name."""


class Lanes(LoadScopeScheduling):  # type: ignore[misc]
    """Units are handed out by their number of tests."""

    def _split_scope(self, nodeid: str) -> str:
        folder = nodeid.split("/")[1]
        return folder if folder in APART else "one at a time"
