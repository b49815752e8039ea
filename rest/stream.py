"""Events as they happen: server-sent events (WHATWG HTML section 9.2)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address
from typing import Any

from rest.http import EVENT_STREAM, Environ, StartResponse
from ryu_lw4o6.events import Events

KEEP_ALIVE_SECONDS = 15.0
MAX_STREAMS = 64
"""Each has a connection to itself, of which there are MAX_CONNECTIONS for all."""
_AT_ONCE = 100


def wanted(event: dict[str, Any], kind: str | None, lwb4: IPv6Address | None) -> bool:
    """Whether a client that asks for this kind and lwB4, or for any, wants an event."""
    return kind in (None, event["type"]) and (lwb4 is None or event.get("lwb4") == str(lwb4))


class Stream:
    """A WSGI application that ends when the client goes. It begins behind the event ``since``,
    or the client's Last-Event-ID, or with what happens next. ``running`` holds all that have begun
    and not ended."""

    def __init__(
        self,
        events: Events,
        since: int | None,
        kind: str | None,
        lwb4: IPv6Address | None,
        running: set[Stream],
    ) -> None:
        self._events = events
        self._since = since
        self._kind = kind
        self._lwb4 = lwb4
        self._running = running

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        last = environ.get("HTTP_LAST_EVENT_ID", "")
        if last.isascii() and last.isdecimal() and len(last) < 16:
            self._since = int(last)
        start_response("200 OK", [("Content-Type", EVENT_STREAM), ("Cache-Control", "no-store")])
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else self._lines()

    def _lines(self) -> Iterator[bytes]:
        self._running.add(self)
        try:
            yield from self._events_as_text()
        finally:
            self._running.discard(self)

    def _events_as_text(self) -> Iterator[bytes]:
        # The first bytes say that events follow, before there is one.
        yield b"retry: 1000\n\n"
        after = self._events.last if self._since is None else self._since
        while True:
            found = self._events.since(after, _AT_ONCE)
            if not found:
                after = min(after, self._events.last)
                if not self._events.wait(after, KEEP_ALIVE_SECONDS):
                    yield b": nothing has happened\n\n"
                continue
            after = found[-1]["id"]
            text = "".join(
                f"id: {event['id']}\nevent: {event['type']}\ndata: {json.dumps(event)}\n\n"
                for event in found
                if wanted(event, self._kind, self._lwb4)
            )
            if text:
                yield text.encode()
