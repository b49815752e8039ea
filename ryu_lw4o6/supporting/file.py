"""A file of bindings as supporting system, read again whenever it has changed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Iterator
from ipaddress import IPv4Network
from pathlib import Path

from ryu_lw4o6.core.binding import Binding, BindingKey
from ryu_lw4o6.core.config import bindings_of
from ryu_lw4o6.core.config.problems import ConfigError
from ryu_lw4o6.core.settings import Settings
from ryu_lw4o6.supporting.paging import in_pages
from ryu_lw4o6.supporting.unavailable import SystemUnavailable
from ryu_lw4o6.threads import threading

LOG = logging.getLogger(__name__)

_LOGGED = 10


class FileSystem:
    """CSV or JSON, by its ending; put another in its place by renaming.

    A file that cannot be read, or has anything wrong with it, changes nothing: the answers are
    those of the last one that was right.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self._path = path
        self._settings = settings
        self._bindings: dict[BindingKey, Binding] | None = None
        self._watched: dict[BindingKey, Binding] | None = None
        self._stamp: tuple[int, ...] | None = None
        self._reading = threading.Lock()

    def find(self, keys: Collection[BindingKey]) -> dict[BindingKey, Binding]:
        self._refresh()
        bindings = self._bindings
        if bindings is None:
            raise SystemUnavailable(
                f"{self._path} was never read whole", "Correct it; the log says what is wrong"
            )
        return {key: bindings[key] for key in keys if key in bindings}

    def wait_for_changes(self, seconds: float) -> list[BindingKey] | None:
        time.sleep(seconds)
        self._refresh()
        before, self._watched = self._watched, self._bindings
        return [] if before is self._bindings else None

    def changed(self, keys: Collection[BindingKey]) -> list[Binding]:
        bindings = self._bindings or {}
        return [bindings[key] for key in keys if key in bindings]

    def pages(self, network: IPv4Network | None = None) -> Iterator[list[Binding]]:
        return in_pages(lambda: self._bindings or {})

    def close(self) -> None:
        pass

    def _refresh(self) -> None:
        with self._reading:
            stamp = self._read_stamp()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            try:
                self._bindings = bindings_of(self._path, self._settings)
            except ConfigError as error:
                kept = "nothing" if self._bindings is None else "what it said before"
                LOG.error("supporting system: %s is not used, but %s:", self._path, kept)
                for problem in error.problems[:_LOGGED]:
                    LOG.error("supporting system: %s", problem)
            else:
                LOG.info("supporting system: %s: %d bindings", self._path, len(self._bindings))

    def _read_stamp(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._path)
        except OSError:
            return ()
        return (found.st_ino, found.st_size, found.st_mtime_ns)
