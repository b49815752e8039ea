"""Errors that say what to do about them, and bytes that are no message."""

from __future__ import annotations


class AdvisedError(Exception):
    """``reason`` says what went wrong, ``suggestion`` what to do about it."""

    def __init__(self, reason: str, suggestion: str) -> None:
        super().__init__(f"{reason}. {suggestion}")
        self.reason = reason
        self.suggestion = suggestion


class Malformed(ValueError):
    """Bytes from the wire that are no message of their protocol."""
