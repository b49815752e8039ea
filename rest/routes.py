"""What requests there are. Each parameter's name means one thing everywhere, declared once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from rest import values
from rest.http import EVENT_STREAM, JSON, Problem
from rest.values import Bad, shown
from ryu_lw4o6.core.binding import Origin
from ryu_lw4o6.events import KINDS
from ryu_lw4o6.service import SwitchState

DEFAULT_PAGE, MAX_PAGE = 100, 10_000
DEFAULT_WAIT, MAX_WAIT = 10, 60


@dataclass(frozen=True, slots=True)
class Parameter:
    """``read`` makes a value of the text, or raises Bad."""

    description: str
    schema: Mapping[str, Any]
    read: Callable[[str], Any]
    default: Any = None


def _choice(description: str, *choices: str) -> Parameter:
    return Parameter(
        description, {"type": "string", "enum": list(choices)}, values.choice(*choices)
    )


def _integer(description: str, low: int, high: int, default: int | None = None) -> Parameter:
    schema: dict[str, Any] = {"type": "integer", "minimum": low, "maximum": high}
    if default is not None:
        schema["default"] = default
    return Parameter(description, schema, values.digits(low, high), default)


PARAMETERS: dict[str, Parameter] = {
    "ipv4": Parameter(
        "a public IPv4 address", {"type": "string", "format": "ipv4"}, values.ipv4
    ),
    "psid": _integer("a port set of that address (RFC 7597)", 0, 65535),
    "lwb4": Parameter(
        "the IPv6 address of an lwB4", {"type": "string", "format": "ipv6"}, values.ipv6
    ),
    "prefix": Parameter("an IPv4 prefix, such as 192.0.2.0/28", {"type": "string"}, values.network),
    "origin": _choice("who made the binding", *Origin),
    "state": _choice("the state that any switch reports", *SwitchState),
    "port": _integer("a port of that address", 0, 65535),
    "limit": _integer("how many at most", 1, MAX_PAGE, DEFAULT_PAGE),
    "after": Parameter(
        "the key of the binding before the first, such as 192.0.2.1/3",
        {"type": "string"}, values.key,
    ),
    "since": _integer("the id of the event before the first", 0, 10**12),
    "type": _choice("a type of event", *KINDS),
    "name": Parameter("the name of an instance", {"type": "string"}, str),
    "wait": _choice("answer when the switches have confirmed the change", "applied"),
    "timeout": Parameter(
        "how long to wait, in seconds",
        {"type": "number", "minimum": 0, "maximum": MAX_WAIT, "default": DEFAULT_WAIT},
        values.seconds(0, MAX_WAIT), float(DEFAULT_WAIT),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Route:
    """``handler`` names a method of Api. ``answers`` gives, by status, what comes back, as the
    name of a schema, in the form ``media``; every status that is not listed is a problem. ``body``
    is the schema of what is sent."""

    method: str
    path: str
    handler: str
    summary: str
    answers: Mapping[int, str | None]
    query: tuple[str, ...] = ()
    body: str | None = None
    media: str = JSON
    pattern: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(self.path))
        object.__setattr__(self, "pattern", re.compile(pattern, re.DOTALL))


_WAIT = ("wait", "timeout")
_ONE = "/v1/bindings/{ipv4}/{psid}"

ROUTES = (
    Route("GET", "/v1", "index", "What there is", {200: "Index"}),
    Route(
        "GET", "/v1/bindings", "list", "Bindings, by address and PSID, in pages",
        {200: "Bindings"}, ("ipv4", "lwb4", "prefix", "origin", "state", "limit", "after"),
    ),
    Route(
        "POST", "/v1/bindings", "create", "Make a binding",
        {201: "Binding", 202: "Binding"}, _WAIT, "NewBinding",
    ),
    Route(
        "POST", "/v1/bindings/bulk", "bulk", "Make, replace and remove bindings, all or none",
        {200: "BulkDone", 202: "BulkDone"}, _WAIT, "Bulk",
    ),
    Route("GET", _ONE, "get", "One binding", {200: "Binding"}),
    Route(
        "PUT", _ONE, "put", "Make or replace a binding",
        {200: "Binding", 201: "Binding", 202: "Binding"}, _WAIT, "NewBinding",
    ),
    Route(
        "DELETE", _ONE, "delete", "Remove a binding", {202: "Binding", 204: None}, _WAIT,
    ),
    Route(
        "GET", f"{_ONE}/counters", "binding_counters", "What has passed a binding, each way",
        {200: "BindingCounters"},
    ),
    Route(
        "GET", "/v1/lookup", "lookup", "Who uses an address and port, or what an lwB4 has",
        {200: "Bindings"}, ("ipv4", "port", "lwb4"),
    ),
    Route("GET", "/v1/switches", "switches", "Every switch and its state", {200: "Switches"}),
    Route("GET", "/v1/switches/{name}", "switch", "One switch", {200: "Switch"}),
    Route(
        "POST", "/v1/switches/{name}/drain", "drain",
        "Withdraw the routes of an instance until this is undone", {200: "Failover"},
    ),
    Route(
        "DELETE", "/v1/switches/{name}/drain", "undrain", "Announce them again",
        {200: "Failover"},
    ),
    Route(
        "GET", "/v1/failover", "failovers", "The supporting system, validations, announcements",
        {200: "AllFailover"},
    ),
    Route("GET", "/v1/failover/{name}", "failover", "Those of one instance", {200: "Failover"}),
    Route(
        "GET", "/v1/provisioning", "provisionings", "How lwB4s come to their bindings",
        {200: "AllProvisioning"},
    ),
    Route(
        "GET", "/v1/provisioning/{name}", "provisioning", "That of one instance",
        {200: "Provisioning"},
    ),
    Route(
        "GET", "/v1/events", "events", "What has happened, oldest first", {200: "Events"},
        ("since", "type", "lwb4", "limit"),
    ),
    Route(
        "GET", "/v1/events/stream", "stream", "What happens, as server-sent events",
        {200: "EventStream"}, ("since", "type", "lwb4"), media=EVENT_STREAM,
    ),
    Route("GET", "/v1/counters", "counters", "The counters of every switch", {200: "AllCounters"}),
    Route(
        "GET", "/v1/counters/{name}", "counter", "The counters of one switch", {200: "Counters"},
    ),
    Route("GET", "/v1/openapi.json", "openapi", "This API, as OpenAPI 3.1", {200: "OpenApi"}),
)  # fmt: skip


def find(path: str, method: str) -> tuple[Route | None, dict[str, str], list[str]]:
    """The route of a request, the texts in its path, and every method allowed there.

    The route is None for another method. Raises a 404 problem if there is nothing at ``path``.
    """
    found: Route | None = None
    texts: dict[str, str] = {}
    allowed: list[str] = []
    for route in ROUTES:
        match = route.pattern.fullmatch(path)
        if match is None:
            continue
        allowed.append(route.method)
        if route.method == ("GET" if method == "HEAD" else method):
            found, texts = route, match.groupdict()
    if not allowed:
        raise Problem(404, f"there is nothing at {path[:200]}; GET /v1 lists what there is")
    if "GET" in allowed:
        allowed.append("HEAD")
    return found, texts, [*allowed, "OPTIONS"]


def read_parameters(route: Route, path: dict[str, str], query: str) -> dict[str, Any]:
    """Every parameter of the route as a value: that of the request, else its default.

    Raises a 400 problem that lists everything wrong.
    """
    errors: list[dict[str, str]] = []
    texts = dict(path)
    for name, text in _split(query):
        if name not in route.query:
            known = f"Use {', '.join(route.query)}" if route.query else "Leave it out"
            errors.append(Bad("unknown query parameter", known).error(name[:60]))
        elif name in texts:
            errors.append(Bad("is there twice", "Give it once").error(name))
        else:
            texts[name] = text
    read: dict[str, Any] = {}
    for name in (*path, *route.query):
        parameter = PARAMETERS[name]
        if name not in texts:
            read[name] = parameter.default
            continue
        try:
            read[name] = parameter.read(texts[name])
        except Bad as bad:
            errors.append(bad.error(name))
    if errors:
        said = "; ".join(f"{e['field']}: {e['reason']}" for e in errors[:3])
        raise Problem(400, said, errors=errors)
    return read


def _split(query: str) -> list[tuple[str, str]]:
    if re.search(r"%(?![0-9A-Fa-f]{2})", query):
        raise Problem(400, f"the query {shown(query)} has a % that is no percent-encoding")
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=50)
    except UnicodeDecodeError:
        raise Problem(400, "the query is not UTF-8") from None
    except ValueError:
        raise Problem(400, "the query has too many parameters") from None
