"""The HTTP server under the API: eventlet's, hardened.

Ryu starts eventlet's server as it is: it waits for slow clients without end, answers some bad
requests in HTML or not at all, and sends tracebacks. ``install`` puts the server here in its place.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Iterable
from typing import Any

import eventlet
import eventlet.wsgi
from eventlet import greenio
from ryu.app import wsgi

from rest.http import BODY_READ, CLOSE, PROBLEM, Environ, Problem, StartResponse, authorize
from ryu_lw4o6.core.settings import RestSettings

LOG = logging.getLogger(__name__)

MAX_CONNECTIONS = 256
MAX_WAITING = 128
"""Connections without a whole request; beyond that the one that has waited longest is closed."""
IDLE_SECONDS = 60
HEAD_SECONDS = 10
SEND_SECONDS = 30
LINGER_SECONDS = 2
LINGER_BYTES = 64 << 20

Application = Callable[[Environ, StartResponse], Iterable[bytes]]


def install(application: Application) -> None:
    """Serve ``application`` instead of Ryu's when ryu-manager starts its web server."""
    wsgi.WSGIServer = lambda _: Server(application)


class Guard:
    """Around a WSGI application: a token is asked for, and every error is problem details."""

    def __init__(self, application: Application, settings: RestSettings) -> None:
        self._application = application
        self._settings = settings

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
            started[:] = [(status, headers)]

        problem: Problem | None = None
        body: Iterable[bytes] = []
        try:
            authorize(environ, self._settings)
            body = self._application(environ, start)
            if started and _is_bare_error(*started[0]):
                status = int(started[0][0][:3])
                problem = Problem(status, f"there is no answer to {_shown(environ)[:200]}")
        except Problem as raised:
            problem = raised
        except Exception:
            LOG.exception("unforeseen fault in %s", _shown(environ))
            problem = Problem(500, "the fault is in the controller's log")
        if problem is not None:
            body = problem.answer()(environ, start)
        if not environ.get(BODY_READ) and _has_body(environ):
            environ.get(CLOSE, _nothing)()
        if started:  # else a web socket has taken over
            _log(environ, started[0][0])
            start_response(*started[0])
        return body


def _is_bare_error(status: str, headers: list[tuple[str, str]]) -> bool:
    return status >= "4" and ("Content-Type", PROBLEM) not in headers


def _has_body(environ: Environ) -> bool:
    length = environ.get("CONTENT_LENGTH") or "0"
    return length != "0" or "HTTP_TRANSFER_ENCODING" in environ


def _shown(environ: Environ) -> str:
    """The request for a message or a log: its method and path, without control characters."""
    path = environ.get("RAW_PATH_INFO") or environ.get("PATH_INFO", "")
    text = f"{environ.get('REQUEST_METHOD', '')} {path}"
    return text.encode("unicode_escape").decode("ascii")


def _log(environ: Environ, status: str) -> None:
    # Changes are for an operator's log, questions are not.
    reading = environ.get("REQUEST_METHOD") in ("GET", "HEAD", "OPTIONS")
    level = logging.DEBUG if reading else logging.INFO
    LOG.log(level, "%s %s: %s", environ.get("REMOTE_ADDR", "-"), _shown(environ), status)


def _nothing() -> None:
    pass


class Protocol(eventlet.wsgi.HttpProtocol):  # type: ignore[misc]
    """A client's connection."""

    path: str
    minimum_chunk_size = 0  # eventlet would hold events back until there are 4096 bytes of them
    _waiting: dict[Protocol, None] = {}  # noqa: RUF012 (all connections share it)

    def handle(self) -> None:
        self._linger = False
        try:
            super().handle()
        except (OSError, eventlet.Timeout) as error:
            LOG.debug("connection from %s: %s", self.client_address, error)
        finally:
            self._waiting.pop(self, None)

    def _read_request_line(self) -> bytes:
        # A client that has sent a hundred requests in one go waits its turn after each.
        eventlet.sleep(0)
        self._waiting[self] = None
        if len(self._waiting) > MAX_WAITING:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            greenio.shutdown_safe(oldest.connection)
        line: bytes = b""
        with eventlet.Timeout(IDLE_SECONDS, False):
            line = super()._read_request_line()
        if len(line) >= self.server.url_length_limit:
            self._refuse(414, f"the request line is longer than {self.server.url_length_limit}")
            return b""
        return line

    def parse_request(self) -> bool:
        """Read the rest of the head; False if it was refused."""
        try:
            with eventlet.Timeout(HEAD_SECONDS, TimeoutError()):
                understood = super().parse_request()
        except TimeoutError:
            return self._refuse(408, f"the request did not come within {HEAD_SECONDS} s")
        except (eventlet.wsgi.HeaderLineTooLong, eventlet.wsgi.HeadersTooLarge):
            return self._refuse(431, "the request has headers that are too long")
        finally:
            self._waiting.pop(self, None)
        if not understood:
            return False
        if self.headers.defects:  # what follows such a line would be passed over
            return self._refuse(400, "the request has a header line that cannot be read")
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 and (hosts or self.request_version != "HTTP/1.0"):
            # RFC 9112 section 3.2
            return self._refuse(400, "the request has no Host header, or several")
        lengths = self.headers.get_all("Content-Length", [])
        encodings = self.headers.get_all("Transfer-Encoding", [])
        if len(lengths) + len(encodings) > 1:
            return self._refuse(400, "the request has several lengths")
        if lengths and not (lengths[0].isascii() and lengths[0].isdecimal()):
            return self._refuse(400, "the Content-Length is no number")
        if lengths and len(lengths[0]) > 18:
            return self._refuse(413, "the body is too large")
        if self.path.startswith("http://"):  # RFC 9112 section 3.2.2: servers accept this form
            self.path = "/" + self.path[len("http://") :].partition("/")[2]
        return True

    def get_environ(self) -> Environ:
        environ: Environ = super().get_environ()
        if "Content-Type" not in self.headers:
            environ["CONTENT_TYPE"] = ""  # not the text/plain of Python's parser
        environ[CLOSE] = self._close_after
        return environ

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the parsers under this class call for a request they cannot read."""
        self._refuse(code, "this is not an HTTP request that can be understood")

    def log_message(self, format: str, *args: Any) -> None:
        LOG.debug("connection from %s: " + format, self.client_address, *args)

    def finish(self) -> None:
        if self._linger:
            # Closing with bytes unread resets the connection, and the client may never see the
            # answer (RFC 9112 section 9.6).
            with contextlib.suppress(OSError, ValueError), eventlet.Timeout(LINGER_SECONDS, False):
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_WR)
                left = LINGER_BYTES
                while left > 0 and (read := len(self.connection.recv(1 << 16))):
                    left -= read
                    eventlet.sleep(0)
        super().finish()

    def _close_after(self) -> None:
        self.close_connection = True
        self._linger = True

    def _refuse(self, status: int, detail: str) -> bool:
        self._close_after()
        lines: list[str] = []

        def start(line: str, headers: list[tuple[str, str]]) -> None:
            lines.extend([f"HTTP/1.1 {line}", *(f"{n}: {v}" for n, v in headers)])

        body = b"".join(Problem(status, detail).answer()({}, start))
        lines.append("Connection: close")
        with contextlib.suppress(OSError):
            self.wfile.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        return False


class Server(wsgi.hub.WSGIServer):  # type: ignore[misc]
    """Listens where Ryu's options --wsapi-host and --wsapi-port say."""

    def __init__(self, application: Application) -> None:
        self._address = (wsgi.CONF.wsapi_host, wsgi.CONF.wsapi_port)
        super().__init__(self._address, application)

    def __call__(self) -> None:
        LOG.info("REST: listening on %s port %d", *self._address)
        eventlet.wsgi.server(
            self.server,
            self.handle,
            protocol=Protocol,
            max_size=MAX_CONNECTIONS,
            socket_timeout=SEND_SECONDS,
            log_output=False,
            debug=False,
        )
