"""What the demo claims, and whether it is so."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

Chapter = tuple[str, Callable[[], None]]
"""A title, and what shows it."""


@dataclass(frozen=True, slots=True)
class Check:
    what: str
    seen: str
    ok: bool


class Checks:
    """All checks so far. They are printed as they are made, and in a table at the end."""

    def __init__(self) -> None:
        self._found: list[Check] = []
        self._started = time.monotonic()

    def add(self, what: str, seen: str, ok: bool) -> None:
        self._found.append(Check(what, seen, ok))
        print(f"   {'ok' if ok else 'FAILED':<7} {what}: {seen}", flush=True)

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self._found)

    def show(self) -> None:
        """The table, and what it amounts to if all are met."""
        print(f"\n{'RESULT':<8} {'WHAT':<62} SEEN")
        for check in self._found:
            print(f"{'ok' if check.ok else 'FAILED':<8} {check.what:<62} {check.seen}")
        seconds = time.monotonic() - self._started
        if self.ok:
            count = len(self._found)
            print(f"\nIt works: {count} of {count} checks met in {seconds:.0f} s.")


def yes(value: bool) -> str:
    return "yes" if value else "no"
