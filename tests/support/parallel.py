"""Two processes that run the tests side by side (pytest-xdist): what stays together."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

APART = {"core", "docs", "fuzz", "packaging", "rest", "store", "supporting", "topo"}
"""Folders whose tests build no lwAFTR. The tests of all others run one at a time, in one process:
an lwAFTR beside another is a slow one."""


class Lanes(LoadScopeScheduling):  # type: ignore[misc]
    """The largest unit is handed out first: the tests with an lwAFTR."""

    def _split_scope(self, nodeid: str) -> str:
        folder = nodeid.split("/")[1]
        return folder if folder in APART else "lwAFTR"
