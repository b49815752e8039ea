"""The HTTP server under the API on a port of its own: python -m tests.rest.serve PORT."""

from __future__ import annotations

import sys

import eventlet
from ryu.app.wsgi import CONF, WSGIApplication

from rest import app, http, server, stream
from tests.rest.memory import MemoryService, settings

MAX_BODY = 2000
SECONDS = 0.5


def main(port: int) -> None:
    server.HEAD_SECONDS = server.IDLE_SECONDS = SECONDS  # type: ignore[assignment]
    http.BODY_SECONDS = stream.KEEP_ALIVE_SECONDS = SECONDS  # type: ignore[assignment]
    CONF.set_override("wsapi_host", "127.0.0.1")
    CONF.set_override("wsapi_port", port)
    service = MemoryService(settings(max_body=MAX_BODY))
    server.Server(app.application(WSGIApplication(), service))()


if __name__ == "__main__":
    eventlet.monkey_patch()
    main(int(sys.argv[1]))
