"""JSON over HTTP: answers, problem details (RFC 9457), bearer tokens, bodies with a limit."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, NoReturn

import eventlet

from ryu_lw4o6.core.settings import RestSettings

JSON = "application/json"
PROBLEM = "application/problem+json"
EVENT_STREAM = "text/event-stream"

BODY_SECONDS = 30
"""How long a client may take to send a body."""

CLOSE = "lw4o6.close"
"""In a WSGI environment: what to call so that the connection ends after the answer."""
BODY_READ = "lw4o6.body_read"

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON answer, itself a WSGI application. ``body`` None sends none."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = JSON

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        headers = [("Cache-Control", "no-store"), *self.headers.items()]
        body = b"" if self.body is None else json.dumps(self.body).encode() + b"\n"
        if self.body is not None:
            headers += [("Content-Type", self.content_type), ("Content-Length", str(len(body)))]
        start_response(f"{self.status} {HTTPStatus(self.status).phrase}", headers)
        return [] if environ.get("REQUEST_METHOD") == "HEAD" or not body else [body]


class Problem(Exception):
    """An answer that is an error. ``errors`` lists fields: {field, reason, suggestion}."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: list[dict[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}
        self.more = more

    def answer(self) -> Answer:
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            **self.more,
        }
        if self.errors:
            body["errors"] = self.errors
        return Answer(body, self.status, self.headers, PROBLEM)


def authorize(environ: Environ, settings: RestSettings) -> None:
    """Raise a 401 problem unless the request carries the bearer token (RFC 6750 section 3)."""
    if settings.token is None:
        return
    scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    right = hmac.compare_digest(
        given.strip(" ").encode("latin-1", "replace"), settings.token.encode()
    )
    if scheme.lower() != "bearer" or not right:
        raise Problem(
            401,
            "the request carries no valid bearer token; send Authorization: Bearer TOKEN",
            headers={"WWW-Authenticate": 'Bearer realm="lw4o6"'},
        )


def read_json(environ: Environ, limit: int) -> Any:
    """The request's body as JSON. Raises 400, 408, 411, 413 and 415 problems."""
    kind, _, parameters = environ.get("CONTENT_TYPE", "").lower().partition(";")
    charset = parameters.replace(" ", "").replace('"', "")
    if kind.strip() != JSON or charset not in ("", "charset=utf-8"):
        shown = environ.get("CONTENT_TYPE", "")[:60] or "missing"
        raise Problem(415, f"Content-Type is {shown}; send {JSON}", headers={"Accept": JSON})
    coding = environ.get("HTTP_CONTENT_ENCODING", "identity").strip().lower()
    if coding != "identity":
        raise Problem(
            415,
            f"Content-Encoding is {coding[:60]}; send the body as it is",
            headers={"Accept-Encoding": "identity"},
        )
    body = _read_body(environ, limit)
    try:
        return json.loads(
            body.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant
        )
    except UnicodeDecodeError as error:
        raise Problem(400, f"the body is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Problem(400, f"the body is not JSON: {error.msg} ({where})") from None
    except RecursionError:
        raise Problem(400, "the body is nested too deeply") from None
    except ValueError:  # Python reads no integer of more than 4300 digits
        raise Problem(400, "the body has a number that is too long") from None


def _read_body(environ: Environ, limit: int) -> bytes:
    if "HTTP_TRANSFER_ENCODING" in environ:
        raise Problem(411, "send the body with a Content-Length, not chunked")
    text = environ.get("CONTENT_LENGTH") or "0"
    if not (text.isascii() and text.isdecimal()):
        raise Problem(400, "the Content-Length is no number")
    if len(text) > 18 or int(text) > limit:
        raise Problem(413, f"the body is larger than {limit} bytes (rest.max_body)")
    length = int(text)
    if not length:
        raise Problem(400, "there is no body; send a JSON object")
    deadline = eventlet.Timeout(BODY_SECONDS)
    try:
        body: bytes = environ["wsgi.input"].read(length)
    except (eventlet.Timeout, TimeoutError):
        raise Problem(408, f"the body did not come within {BODY_SECONDS} s") from None
    except OSError:
        body = b""
    finally:
        deadline.cancel()
    if len(body) != length:
        raise Problem(400, "the connection ended within the body")
    environ[BODY_READ] = True
    return body


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise Problem(400, f"the body has the name {name[:60]!r} twice in one object")
        found[name] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise Problem(400, f"the body is not JSON: {name} is no JSON value")
