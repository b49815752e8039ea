"""Supporting systems: who knows which lwB4 may use which address and port set.

A supporting system answers one question, ``find``: which bindings are there for these keys? A
data packet without a binding asks it about the packet's inner source, a packet from the Internet
about its destination, and a binding that was made of an answer is asked about again before it
expires and when the supporting system says that something has changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Protocol

from ryu_lw4o6.core.binding import Binding, BindingKey
from ryu_lw4o6.core.settings import KEA, Settings
from ryu_lw4o6.store import Store
from ryu_lw4o6.supporting.file import FileSystem
from ryu_lw4o6.supporting.kea import KeaSystem
from ryu_lw4o6.supporting.sql import SqlSystem
from ryu_lw4o6.supporting.unavailable import SystemUnavailable

__all__ = ["SupportingSystem", "SystemUnavailable", "open_system"]


class SupportingSystem(Protocol):
    """May be called from several threads, and may take its time."""

    def find(self, keys: Collection[BindingKey]) -> dict[BindingKey, Binding]:
        """The bindings with these keys, whoever holds them; a key that is free is left out.

        Raises SystemUnavailable when it cannot be said.
        """

    def wait_for_changes(self, seconds: float) -> list[BindingKey] | None:
        """Wait up to ``seconds`` for a change, and return the keys of what has changed; None if
        it may be anything. One thread at a time. Raises SystemUnavailable."""

    def changed(self, keys: Collection[BindingKey]) -> Iterable[Binding]:
        """The bindings with the keys that ``wait_for_changes`` has returned: those that there were
        at that moment, or later. Raises SystemUnavailable."""

    def pages(self, network: IPv4Network | None = None) -> Iterator[list[Binding]]:
        """All bindings there are, or all of ``network`` and perhaps others, in parts of
        ``paging.PAGE`` at most, each of them as it is when it is asked for, or with changes that
        ``wait_for_changes`` has yet to tell of. Raises SystemUnavailable."""

    def close(self) -> None:
        """Let go of files and connections."""


def open_system(settings: Settings, store: Store) -> SupportingSystem:
    """The supporting system of a configuration; ``store`` is the controller's own. Raises
    nothing: one that is not there now may be later."""
    source = settings.supporting_system.source
    if source is None:
        return SqlSystem(store)
    if source.startswith(KEA):
        return KeaSystem(source.removeprefix(KEA), settings)
    if "://" in source:
        return SqlSystem(source)
    return FileSystem(Path(source), settings)
