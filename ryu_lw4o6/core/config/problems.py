"""What is wrong with a configuration, and how it is said."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and what to do about it."""

    file: str
    line: int | None
    path: str
    reason: str
    suggestion: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        path = f"{self.path}: " if self.path else ""
        end = "" if self.suggestion.endswith("?") else "."
        text = f"{place}: {path}{self.reason}. {self.suggestion}{end}"
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class ConfigError(Exception):
    """The file has ``problems``; nothing of it may be used."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class Bad(Exception):
    """What was read is wrong. ``line`` is where, if that is not known anyway."""

    def __init__(self, reason: str, suggestion: str, line: int | None = None) -> None:
        super().__init__(reason, suggestion)
        self.reason = reason
        self.suggestion = suggestion
        self.line = line


def shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def quote(text: str) -> str:
    return repr(shorten(text))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The suggestion for a name that is none of the known ones."""
    known = list(known)
    close = difflib.get_close_matches(word, known, 1)
    return f"Did you mean {close[0]}?" if close else f"Known are {', '.join(known)}"
