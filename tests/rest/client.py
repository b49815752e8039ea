"""A client of the WSGI application that holds every answer against the API's own document."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import unquote

from rest import openapi, routes
from rest.http import Problem

DOCUMENT = json.loads(json.dumps(openapi.document()))
Application = Callable[..., Iterable[bytes]]


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def fields(self) -> list[str]:
        return [error["field"] for error in self.json["errors"]]


class Client:
    def __init__(self, application: Application) -> None:
        self._application = application
        self.closed = 0
        self.seen: set[tuple[str, str, int]] = set()

    def get(self, target: str, **headers: str) -> Reply:
        return self.request("GET", target, **headers)

    def post(self, target: str, body: Any, **headers: str) -> Reply:
        return self.request("POST", target, json.dumps(body).encode(), **headers)

    def put(self, target: str, body: Any, **headers: str) -> Reply:
        return self.request("PUT", target, json.dumps(body).encode(), **headers)

    def delete(self, target: str, **headers: str) -> Reply:
        return self.request("DELETE", target, **headers)

    def request(
        self, method: str, target: str, body: bytes | None = None, /, **headers: str
    ) -> Reply:
        """``headers`` are those of the environment, such as HTTP_AUTHORIZATION."""
        path, _, query = target.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote(path, encoding="latin-1"),
            "QUERY_STRING": query,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "8080",
            "SERVER_PROTOCOL": "HTTP/1.0",
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(body or b""),
            "lw4o6.close": self._close,
        }
        if body is not None:
            environ |= {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body))}
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
            started.append((status, headers))

        chunks = self._application(environ | headers, start)
        ((status, sent),) = started
        reply = Reply(int(status[:3]), dict(sent), b"".join(chunks))
        self._check(method, path, reply)
        return reply

    def _close(self) -> None:
        self.closed += 1

    def _check(self, method: str, path: str, reply: Reply) -> None:
        if method == "HEAD":
            assert not reply.body
            method = "GET"
        elif reply.body:
            assert reply.headers["Content-Length"] == str(len(reply.body))
        if reply.status >= 400:
            assert reply.headers["Content-Type"] == "application/problem+json"
            if reply.body:
                check(reply.json, {"$ref": "#/components/schemas/Problem"})
                assert reply.json["status"] == reply.status
            return
        if method == "OPTIONS":
            return
        route = _route(unquote(path), method)
        self.seen.add((method, route.path, reply.status))
        answers = DOCUMENT["paths"][route.path][method.lower()]["responses"]
        content = answers[str(reply.status)].get("content", {})
        assert reply.headers.get("Content-Type") == next(iter(content), None)
        if reply.body:
            check(reply.json, content["application/json"]["schema"])


def _route(path: str, method: str) -> routes.Route:
    try:
        route, _, _ = routes.find(path, method)
    except Problem:
        raise AssertionError(f"{path} is not in the document") from None
    assert route is not None
    return route


_TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "integer": int, "number": (int, float),
    "boolean": bool, "null": type(None),
}  # fmt: skip


def check(value: Any, schema: dict[str, Any], at: str = "$") -> None:
    """Assert that ``value`` is what ``schema`` says, in so far as this API's schemas go."""
    if "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    types = schema.get("type", list(_TYPES))
    types = [types] if isinstance(types, str) else types
    assert any(isinstance(value, _TYPES[t]) for t in types), f"{at}: {value!r} is no {types}"
    if "enum" in schema:
        assert value in schema["enum"], at
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        assert set(schema.get("required", ())) <= set(value), at
        others = schema.get("additionalProperties", "required" not in schema or not properties)
        for name, item in value.items():
            if name in properties:
                check(item, properties[name], f"{at}.{name}")
            elif isinstance(others, dict):
                check(item, others, f"{at}.{name}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            check(item, schema.get("items", {}), f"{at}[{index}]")
