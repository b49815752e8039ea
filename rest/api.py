"""Routes: a request, a call of the service, an answer. No logic of its own.

``handle`` takes every request and answers it, errors too: nothing is raised past it, so that no
traceback can reach a client.
"""

from __future__ import annotations

import logging
import re
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any
from urllib.parse import urlencode

from webob import Request, Response

from rest.codec import Bad, Errors, binding_json, ipv4, ipv6, parse_binding, parse_key
from rest.http import Problem, answer, authorize, read_json
from ryu_lw4o6 import __version__
from ryu_lw4o6.core.binding import Binding, BindingConflict, BindingKey, Origin, UnknownPrefix
from ryu_lw4o6.service import Service, StaticBinding, StoreUnavailable, SwitchState

LOG = logging.getLogger(__name__)

DEFAULT_PAGE, MAX_PAGE = 100, 10_000
DEFAULT_WAIT, MAX_WAIT = 10.0, 60.0
_KEY = r"/v1/bindings/(?P<ipv4>[^/]+)/(?P<psid>[^/]+)"


@dataclass(frozen=True, slots=True)
class Route:
    """``path`` is a regular expression for the whole path, ``template`` its form for people."""

    method: str
    path: str
    template: str
    handler: str
    summary: str
    query: tuple[str, ...] = ()


ROUTES = (
    Route("GET", r"/v1/?", "/v1", "index", "What there is"),
    Route(
        "GET", r"/v1/bindings", "/v1/bindings", "list", "Bindings, by address and PSID, in pages",
        ("ipv4", "lwb4", "prefix", "origin", "state", "ports", "limit", "after"),
    ),
    Route("POST", r"/v1/bindings", "/v1/bindings", "create", "Make a binding", ("wait", "timeout")),
    Route(
        "POST", r"/v1/bindings/bulk", "/v1/bindings/bulk", "bulk",
        "Make, replace and remove many bindings, all or none", ("wait", "timeout"),
    ),
    Route("GET", _KEY, "/v1/bindings/{ipv4}/{psid}", "get", "One binding"),
    Route(
        "PUT", _KEY, "/v1/bindings/{ipv4}/{psid}", "put", "Make or replace a binding",
        ("wait", "timeout"),
    ),
    Route(
        "DELETE", _KEY, "/v1/bindings/{ipv4}/{psid}", "delete", "Remove a binding",
        ("wait", "timeout"),
    ),
    Route(
        "GET", r"/v1/lookup", "/v1/lookup", "lookup", "Who uses an address and port, or an lwB4",
        ("ipv4", "port", "lwb4"),
    ),
    Route("GET", r"/v1/switches", "/v1/switches", "switches", "Every switch and its state"),
    Route("GET", r"/v1/switches/(?P<name>[^/]+)", "/v1/switches/{name}", "switch", "One switch"),
    Route("GET", r"/v1/counters", "/v1/counters", "counters", "Every counter of every switch"),
    Route(
        "GET", r"/v1/counters/(?P<name>[^/]+)", "/v1/counters/{name}", "counter",
        "The counters of one switch",
    ),
    Route("GET", r"/v1/openapi.json", "/v1/openapi.json", "openapi", "This API, as OpenAPI 3.1"),
)  # fmt: skip


class Api:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._ordered: tuple[int, list[int]] = (-1, [])

    def handle(self, request: Request) -> Response:
        """Answer a request, whatever it is."""
        try:
            response = self._dispatch(request)
        except Problem as problem:
            response = problem.response()
        except Exception:
            LOG.exception("unforeseen fault in %s", request.environ.get("PATH_INFO", "")[:200])
            response = Problem(500, "the fault is in the controller's log").response()
        if request.environ.get("REQUEST_METHOD") == "HEAD":
            response.body = b""
        return response

    def _dispatch(self, request: Request) -> Response:
        authorize(request, self._service.settings.rest)
        try:
            path = request.environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8")
        except UnicodeError:
            raise Problem(400, "the path is not UTF-8") from None
        method = request.environ["REQUEST_METHOD"]
        allowed = []
        for route in ROUTES:
            match = re.fullmatch(route.path, path)
            if match is None:
                continue
            allowed.append(route.method)
            if route.method == ("GET" if method == "HEAD" else method):
                query = _query(request, route)
                handler: Callable[..., Response] = getattr(self, route.handler)
                try:
                    return handler(request, query, **match.groupdict())
                except StoreUnavailable as error:
                    raise Problem(503, f"nothing was changed: {error}") from None
        if not allowed:
            raise Problem(404, f"there is nothing at {path[:200]}; see /v1")
        if "GET" in allowed:
            allowed.append("HEAD")
        if method == "OPTIONS":
            return answer(None, 204, {"Allow": ", ".join(allowed)})
        raise Problem(
            405, f"{method} is not for {path[:200]}", headers={"Allow": ", ".join(allowed)}
        )

    # --- bindings -------------------------------------------------------------------------------

    def index(self, request: Request, query: dict[str, str]) -> Response:
        links = {r.template: r.summary for r in ROUTES if r.method == "GET"}
        return answer({"name": "ryu-lw4o6", "version": __version__, "links": links})

    def list(self, request: Request, query: dict[str, str]) -> Response:
        limit = _number(query, "limit", DEFAULT_PAGE, 1, MAX_PAGE)
        ports = _choice(query, "ports", ("true", "false"), "false") == "true"
        origin = _choice(query, "origin", [str(o) for o in Origin], None)
        state = _choice(query, "state", [str(s) for s in SwitchState], None)
        page: list[dict[str, Any]] = []
        last: BindingKey | None = None
        more = False
        for binding in self._select(query):
            if origin is not None and binding.origin != origin:
                continue
            states = self._service.applied(binding.key)
            if state is not None and all(s.state != state for s in states.values()):
                continue
            if len(page) == limit:
                more = True
                break
            page.append(binding_json(binding, states, ports=ports))
            last = binding.key
        body: dict[str, Any] = {"total": len(self._service.table), "bindings": page}
        if more and last is not None:
            after = urlencode({**query, "after": str(last)}, safe="/:")
            body["next"] = f"/v1/bindings?{after}"
        return answer(body)

    def _select(self, query: dict[str, str]) -> Iterator[Binding]:
        """The bindings that the query's addresses choose, in order of address and PSID."""
        table = self._service.table
        if "lwb4" in query:
            lwb4 = _parsed(query, "lwb4", ipv6)
            wanted = sorted(table.by_lwb4(lwb4), key=lambda b: _order(b.key))
            chosen = _parsed(query, "ipv4", ipv4) if "ipv4" in query else None
            after = _order(_cursor(query)) if "after" in query else -1
            network = _parsed(query, "prefix", _network) if "prefix" in query else None
            yield from (
                b for b in wanted
                if (chosen is None or b.ipv4 == chosen) and _order(b.key) > after
                and (network is None or b.ipv4 in network)
            )  # fmt: skip
            return
        order = self._order_of_all()
        low, high = 0, len(order)
        if "prefix" in query:
            network = _parsed(query, "prefix", _network)
            low = bisect_left(order, int(network.network_address) << 16)
            high = bisect_left(order, int(network.broadcast_address) + 1 << 16)
        if "ipv4" in query:
            address = int(_parsed(query, "ipv4", ipv4))
            low = max(low, bisect_left(order, address << 16))
            high = min(high, bisect_left(order, address + 1 << 16))
        if "after" in query:
            low = max(low, bisect_right(order, _order(_cursor(query))))
        for number in order[low:high]:
            binding = table.get(BindingKey.from_numbers(number >> 16, number & 0xFFFF))
            if binding is not None:
                yield binding

    def _order_of_all(self) -> Any:
        """Every key as a number, sorted; kept until the table changes."""
        version = self._service.table.version
        if self._ordered[0] != version:
            keys = (int(b.ipv4) << 16 | b.psid for b in self._service.table)
            self._ordered = (version, sorted(keys))
        return self._ordered[1]

    def get(self, request: Request, query: dict[str, str], ipv4: str, psid: str) -> Response:
        return answer(self._json(self._existing(_key(ipv4, psid))))

    def create(self, request: Request, query: dict[str, str]) -> Response:
        binding = self._one(self._body(request))
        self._change(create=[binding])
        return self._made(binding, query, 201)

    def put(self, request: Request, query: dict[str, str], ipv4: str, psid: str) -> Response:
        key = _key(ipv4, psid)
        body = self._body(request)
        if isinstance(body, dict):
            body = {"ipv4": str(key.ipv4), "psid": key.psid} | body
        binding = self._one(body)
        if binding.key != key:
            reason = f"the path says {key}, the body {binding.key}"
            errors = [{"field": "ipv4, psid", "reason": reason, "suggestion": "Leave them out"}]
            raise Problem(422, reason, errors=errors)
        status = 200 if key in self._service.table else 201
        self._change(replace=[binding])
        return self._made(binding, query, status)

    def delete(self, request: Request, query: dict[str, str], ipv4: str, psid: str) -> Response:
        key = _key(ipv4, psid)
        self._existing(key)
        self._change(delete=[key])
        if not self._waited([key], query):
            return answer({"deleted": str(key), "state": "pending"}, 202)
        return answer(None, 204)

    def bulk(self, request: Request, query: dict[str, str]) -> Response:
        body = self._body(request)
        errors = Errors()
        known = ("create", "replace", "delete")
        if not isinstance(body, dict):
            errors.add("", "this is not a JSON object", f"Give lists: {', '.join(known)}")
            errors.check()
        for name, value in body.items():
            if name not in known:
                errors.add(name, "unknown field", f"Known are {', '.join(known)}")
            elif not isinstance(value, list):
                errors.add(name, "this is not a list", "Give a list")
        errors.check()
        now = time.time()
        settings, table = self._service.settings, self._service.table
        put: dict[str, list[Binding]] = {"create": [], "replace": []}
        for name, found in put.items():
            for index, item in enumerate(body.get(name, ())):
                binding = parse_binding(item, settings, table, errors.at(f"{name}[{index}]"), now)
                if binding is not None:
                    found.append(binding)
        gone = []
        for index, item in enumerate(body.get("delete", ())):
            place = errors.at(f"delete[{index}]")
            key = parse_key(item, place)
            if key is not None and key not in table:
                place.add("", f"there is no binding {key}", "Leave it out")
            elif key is not None:
                gone.append(key)
        errors.check()
        self._change(put["create"], put["replace"], gone)
        keys = [b.key for b in (*put["create"], *put["replace"])] + gone
        counts = {
            "created": len(put["create"]), "replaced": len(put["replace"]), "deleted": len(gone),
        }  # fmt: skip
        if not self._waited(keys, query):
            return answer(counts | {"state": "pending"}, 202)
        return answer(counts)

    def lookup(self, request: Request, query: dict[str, str]) -> Response:
        table = self._service.table
        if "lwb4" in query:
            lwb4 = _parsed(query, "lwb4", ipv6)
            return answer({"bindings": [self._json(b) for b in table.by_lwb4(lwb4)]})
        if "ipv4" not in query:
            raise Problem(400, "give ipv4 and port, or lwb4")
        address = _parsed(query, "ipv4", ipv4)
        port = _number(query, "port", None, 0, 65535)
        try:
            binding = table.by_port(address, port)
        except UnknownPrefix as error:
            raise Problem(404, str(error)) from None
        if binding is None:
            raise Problem(404, f"nobody uses {address}:{port}")
        return answer({"bindings": [self._json(binding)]})

    # --- switches -------------------------------------------------------------------------------

    def switches(self, request: Request, query: dict[str, str]) -> Response:
        return answer({"switches": self._service.switches()})

    def switch(self, request: Request, query: dict[str, str], name: str) -> Response:
        return answer(_named(self._service.switches(), "name", name))

    def counters(self, request: Request, query: dict[str, str]) -> Response:
        return answer({"counters": self._read_counters()})

    def counter(self, request: Request, query: dict[str, str], name: str) -> Response:
        return answer(_named(self._read_counters(), "instance", name))

    def openapi(self, request: Request, query: dict[str, str]) -> Response:
        from rest.openapi import document

        return answer(document())

    # --- helpers --------------------------------------------------------------------------------

    def _read_counters(self) -> Any:
        try:
            return self._service.counters()
        except TimeoutError as error:
            raise Problem(504, str(error)) from None

    def _body(self, request: Request) -> Any:
        return read_json(request, self._service.settings.rest.max_body)

    def _one(self, body: Any) -> Binding:
        errors = Errors()
        now = time.time()
        binding = parse_binding(body, self._service.settings, self._service.table, errors, now)
        errors.check()
        assert binding is not None
        return binding

    def _existing(self, key: BindingKey) -> Binding:
        binding = self._service.table.get(key)
        if binding is None:
            raise Problem(404, f"there is no binding {key}")
        return binding

    def _change(self, create: Any = (), replace: Any = (), delete: Any = ()) -> None:
        try:
            self._service.change(create=create, replace=replace, delete=delete)
        except BindingConflict as error:
            existing = self._json(error.existing)
            raise Problem(409, f"{error}; PUT replaces it", existing=existing) from None
        except StaticBinding as error:
            raise Problem(409, f"{error}; change it there") from None
        except KeyError as error:
            raise Problem(404, f"there is no binding {error.args[0]}") from None

    def _made(self, binding: Binding, query: dict[str, str], status: int) -> Response:
        if not self._waited([binding.key], query):
            status = 202
        location = f"/v1/bindings/{binding.key}"
        return answer(self._json(binding), status, {"Location": location})

    def _waited(self, keys: Any, query: dict[str, str]) -> bool:
        """Wait if the query asks for it; False when the switches have yet to confirm. Raises a
        502 problem when one refused."""
        wait = _choice(query, "wait", ("applied",), None)
        timeout = _number(query, "timeout", DEFAULT_WAIT, 0, MAX_WAIT)
        if wait is None or self._service.wait_applied(keys, timeout):
            return True
        for key in keys:
            for name, applied in self._service.applied(key).items():
                if applied.state is SwitchState.FAILED:
                    raise Problem(502, f"{name} refused binding {key}: {applied.error}")
        return False

    def _json(self, binding: Binding) -> dict[str, Any]:
        return binding_json(binding, self._service.applied(binding.key), ports=True)


def _order(key: BindingKey) -> int:
    return int(key.ipv4) << 16 | key.psid


def _named(found: Any, key: str, name: str) -> Any:
    for item in found:
        if item[key] == name:
            return item
    raise Problem(404, f"there is no instance {name[:100]!r}")


def _query(request: Request, route: Route) -> dict[str, str]:
    try:
        found = dict(request.GET)
    except UnicodeDecodeError:
        raise Problem(400, "the query is not UTF-8") from None
    for name in found:
        if name not in route.query:
            known = ", ".join(route.query) or "none"
            raise Problem(400, f"unknown query parameter {name[:60]!r}; known: {known}")
    return found


def _parsed(query: dict[str, str], name: str, convert: Callable[[Any], Any]) -> Any:
    try:
        return convert(query[name])
    except Bad as bad:
        raise Problem(400, f"{name}: {bad.args[0]}. {bad.args[1]}") from None


def _network(text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except ValueError:
        raise Bad(f"{text[:60]!r} is not an IPv4 prefix", "Write it like 192.0.2.0/28") from None


def _cursor(query: dict[str, str]) -> BindingKey:
    address, _, psid = query["after"].partition("/")
    return _key(address, psid)


def _key(address: str, psid: str) -> BindingKey:
    try:
        found = ipv4(address)
    except Bad as bad:
        raise Problem(400, f"{bad.args[0]}. {bad.args[1]}") from None
    if not (psid.isascii() and psid.isdecimal() and len(psid) <= 5 and int(psid) <= 65535):
        raise Problem(400, f"{psid[:60]!r} is no PSID: use 0 to 65535")
    return BindingKey(found, int(psid))


def _number(query: dict[str, str], name: str, default: Any, low: int, high: float) -> Any:
    text = query.get(name)
    if text is None:
        if default is None:
            raise Problem(400, f"{name} is missing")
        return default
    try:
        value = float(text) if isinstance(default, float) else int(text)
    except ValueError:
        raise Problem(400, f"{name}: {text[:60]!r} is no number") from None
    if not low <= value <= high:
        raise Problem(400, f"{name}: use {low} to {high:g}")
    return value


def _choice(query: dict[str, str], name: str, choices: Any, default: str | None) -> str | None:
    value = query.get(name, default)
    if value is not None and value not in choices:
        raise Problem(400, f"{name}: {value[:60]!r} is none of {', '.join(choices)}")
    return value
