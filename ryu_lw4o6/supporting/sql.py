"""The binding store as supporting system: SQLite, or a PostgreSQL that many controllers share."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator
from ipaddress import IPv4Network

from ryu_lw4o6.core.binding import Binding, BindingKey
from ryu_lw4o6.store import Loaded, OtherStore, Store, StoreError, Watch
from ryu_lw4o6.supporting.paging import PAGE
from ryu_lw4o6.supporting.unavailable import SystemUnavailable
from ryu_lw4o6.threads import threading

LOG = logging.getLogger(__name__)


class SqlSystem:
    """``source`` is a store, or the URL of one, which is opened when it is asked first, and anew
    when another one has been put in its place."""

    def __init__(self, source: Store | str) -> None:
        self._url = source if isinstance(source, str) else None
        self._store = None if isinstance(source, str) else source
        self._opening = threading.Lock()
        self._watch: Watch | None = None

    def find(self, keys: Collection[BindingKey]) -> dict[BindingKey, Binding]:
        with self._asking():
            found = self._open().find(keys)
        return {binding.key: binding for binding in _good(found)}

    def wait_for_changes(self, seconds: float) -> list[BindingKey] | None:
        with self._asking():
            if self._watch is None:
                self._watch = self._open().watch()
            return self._watch.wait(seconds)

    def changed(self, keys: Collection[BindingKey]) -> list[Binding]:
        return list(self.find(keys).values())

    def pages(self, network: IPv4Network | None = None) -> Iterator[list[Binding]]:
        with self._asking():
            for page in self._open().pages(PAGE, network):
                yield _good(page)

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
        if self._url is not None and self._store is not None:
            self._store.close()

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            if isinstance(error, OtherStore) and self._url is not None:
                self._reopen()
            raise SystemUnavailable(error.reason, error.suggestion) from error

    def _reopen(self) -> None:
        """Next time, take what is there then; whoever has filled it may have put it there."""
        with self._opening:
            store, self._store, self._watch = self._store, None, None
        if store is not None:
            store.close()

    def _open(self) -> Store:
        with self._opening:
            if self._store is None:
                assert self._url is not None
                self._store = Store(self._url, must_exist=True)
            return self._store


def _good(found: Loaded) -> list[Binding]:
    """The bindings among what was found; the log has what is none."""
    for problem in found.problems:
        LOG.error("supporting system: %s", problem)
    return found.bindings
