"""JSON over HTTP: reading bodies with limits, answering, and problem details (RFC 9457)."""

from __future__ import annotations

import hmac
import json
from typing import Any, NoReturn

from webob import Request, Response

from ryu_lw4o6.core.settings import RestSettings

JSON = "application/json"
PROBLEM = "application/problem+json"
TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Body too large",
    415: "Not JSON",
    422: "Unusable values",
    500: "Internal error",
    502: "The switch refused",
    503: "Store unavailable",
    504: "The switch does not answer",
}


class Problem(Exception):
    """An answer that is an error. ``errors`` lists fields: {field, reason, suggestion}."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: list[dict[str, str]] | None = None,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}
        self.more = more

    def response(self) -> Response:
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": TITLES[self.status],
            "status": self.status,
            "detail": self.detail,
            **self.more,
        }
        if self.errors:
            body["errors"] = self.errors
        return answer(body, self.status, self.headers, content_type=PROBLEM)


def answer(
    body: Any, status: int = 200, headers: dict[str, str] | None = None, *, content_type: str = JSON
) -> Response:
    response = Response(status=status, content_type=content_type, charset=None)
    response.body = b"" if body is None else json.dumps(body).encode() + b"\n"
    response.headers.update(headers or {})
    return response


def authorize(request: Request, settings: RestSettings) -> None:
    """Raise a 401 problem unless the request carries the bearer token (RFC 6750 section 3)."""
    if settings.token is None:
        return
    given = request.environ.get("HTTP_AUTHORIZATION", "").encode("latin-1", "replace")
    if not hmac.compare_digest(given, b"Bearer " + settings.token.encode()):
        raise Problem(
            401,
            "the request carries no valid bearer token",
            headers={"WWW-Authenticate": 'Bearer realm="lw4o6"'},
        )


def read_json(request: Request, limit: int) -> Any:
    """The request's body as JSON. Raises 400, 413 and 415 problems."""
    kind = request.environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if kind != JSON and not kind.endswith("+json"):
        raise Problem(415, f"Content-Type is {kind or 'missing'}; send {JSON}")
    body = _read_body(request, limit)
    try:
        return json.loads(
            body.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant
        )
    except UnicodeDecodeError as error:
        raise Problem(400, f"the body is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Problem(400, f"the body is not JSON: {error.msg} ({where})") from None
    except ValueError as error:
        raise Problem(400, f"the body is not usable JSON: {error}") from None
    except RecursionError:
        raise Problem(400, "the body is nested too deeply") from None


def _read_body(request: Request, limit: int) -> bytes:
    length = request.environ.get("CONTENT_LENGTH") or ""
    stream = request.environ["wsgi.input"]
    chunked = "chunked" in request.environ.get("HTTP_TRANSFER_ENCODING", "").lower()
    if not chunked and not length.isdecimal():
        raise Problem(400, "the request has no usable Content-Length")
    if not chunked and int(length) > limit:
        _too_large(limit)
    body: bytes = stream.read(limit + 1) if chunked else stream.read(int(length))
    if len(body) > limit:
        _too_large(limit)
    return body


def _too_large(limit: int) -> NoReturn:
    raise Problem(
        413,
        f"the body is larger than {limit} bytes (rest.max_body)",
        headers={"Connection": "close"},
    )


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r} is there twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")
