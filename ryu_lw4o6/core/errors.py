"""Errors that say what to do about them."""

from __future__ import annotations


class AdvisedError(Exception):
    """``reason`` says what went wrong, ``suggestion`` what to do about it."""

    def __init__(self, reason: str, suggestion: str) -> None:
        super().__init__(f"{reason}. {suggestion}")
        self.reason = reason
        self.suggestion = suggestion
