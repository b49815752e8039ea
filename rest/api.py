"""The handlers: a request, a call of the service, an answer. No logic of their own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import eventlet

from rest import openapi, routes
from rest.codec import Errors, Reader, binding_json
from rest.http import Answer, Environ, Problem, read_json
from rest.listing import Listing, Page, Wanted
from rest.patience import Patience
from rest.routes import ROUTES
from rest.service import BindingService
from rest.stream import MAX_STREAMS, Stream, wanted
from rest.values import Bad
from ryu_lw4o6 import __version__
from ryu_lw4o6.changes import StaticBinding
from ryu_lw4o6.core.binding import Binding, BindingConflict, BindingKey, UnknownPrefix, is_static
from ryu_lw4o6.service import SwitchState

_PER_TURN = 500
"""How many items of a request are read, or of an answer written, before others have a turn."""
_CHANGES = ("create", "replace", "delete")


@dataclass(frozen=True, slots=True)
class Call:
    """A request as its handler sees it. ``values`` has every parameter of the route."""

    values: dict[str, Any]
    query: str
    body: Any = None

    @property
    def key(self) -> BindingKey:
        return BindingKey(self.values["ipv4"], self.values["psid"])


class Api:
    def __init__(self, service: BindingService, clock: Callable[[], float] = time.time) -> None:
        self._service = service
        self._clock = clock
        self._listing = Listing(service)
        self._streams: set[Stream] = set()
        self._changing, self._draining = Patience(), Patience()
        self._reader = Reader(service.settings, service.table)

    def dispatch(self, environ: Environ) -> Answer | Stream:
        """Answer a request. Raises Problem."""
        try:
            path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8")
        except UnicodeError:
            raise Problem(400, "the path is not UTF-8") from None
        method = environ["REQUEST_METHOD"]
        route, texts, allowed = routes.find(path, method)
        if route is None:
            allow = {"Allow": ", ".join(allowed)}
            if method == "OPTIONS":
                return Answer(None, 204, allow)
            detail = f"{method[:60]} is not for {path[:200]}; {', '.join(allowed)} are"
            raise Problem(405, detail, headers=allow)
        query = environ.get("QUERY_STRING", "")
        # Everything is read and checked before anything is done.
        call = Call(
            routes.read_parameters(route, texts, query),
            query,
            None
            if route.body is None
            else read_json(environ, self._service.settings.rest.max_body),
        )
        handler: Callable[[Call], Answer | Stream] = getattr(self, route.handler)
        return handler(call)

    # --- bindings -------------------------------------------------------------------------------

    def index(self, call: Call) -> Answer:
        links: dict[str, str] = {}
        for route in ROUTES:
            links.setdefault(route.path, route.summary)
        return Answer({"name": "ryu-lw4o6", "version": __version__, "links": links})

    def list(self, call: Call) -> Answer:
        asked = dict(call.values)
        after, limit = asked.pop("after"), asked.pop("limit")
        page = self._listing.page(Wanted(**asked), after, limit)
        body = self._page_json(page, ports=False)
        if page.more:
            body["next"] = _next(page, {**asked, "limit": limit})
        return Answer(body)

    def get(self, call: Call) -> Answer:
        return Answer(self._json(self._existing(call.key)))

    def create(self, call: Call) -> Answer:
        binding = self._one(call.body)
        self._change(create=[binding])
        return self._made(binding, call, 201)

    def put(self, call: Call) -> Answer:
        key, body = call.key, call.body
        if isinstance(body, dict):
            body = {"ipv4": str(key.ipv4), "psid": key.psid} | body
        binding = self._one(body, key)
        status = 200 if key in self._service.table else 201
        self._change(replace=[binding])
        return self._made(binding, call, status)

    def delete(self, call: Call) -> Answer:
        binding = self._existing(call.key)
        self._change(delete=[call.key])
        if not self._waited([call.key], call):
            return Answer(self._json(binding), 202)
        return Answer(None, 204)

    def bulk(self, call: Call) -> Answer:
        errors = Errors()
        lists = _bulk_lists(call.body, errors)
        _refuse(422, errors)
        now = self._clock()
        put: dict[BindingKey, str] = {}
        made: dict[str, list[Binding]] = {"create": [], "replace": []}
        gone: dict[BindingKey, str] = {}
        taken = Errors()  # what the bindings that are there do not allow
        for place, item in _places(lists["delete"], "delete"):
            key = self._reader.key(item, errors.at(place))
            if key is None:
                continue
            if key in gone:
                errors.at(place).add("", Bad(f"{key} is in {gone[key]} too", "Give it once"))
            elif key not in self._service.table:
                taken.at(place).add("", Bad(f"there is no binding {key}", "Leave it out"))
            else:
                self._check_changeable(key, taken.at(place))
            gone.setdefault(key, place)
        for name, bindings in made.items():
            for place, item in _places(lists[name], name):
                binding = self._reader.binding(item, errors.at(place), now)
                if binding is None:
                    continue
                key = binding.key
                if key in put:
                    errors.at(place).add("", Bad(f"{key} is in {put[key]} too", "Give it once"))
                elif key not in gone and self._check_changeable(key, taken.at(place)):
                    existing = self._service.table.get(key)
                    if name == "create" and existing is not None:
                        reason = f"{key} is already bound to lwB4 {existing.lwb4}"
                        taken.at(place).add("", Bad(reason, "Put it into replace, or leave it out"))
                put.setdefault(key, place)
                bindings.append(binding)
        if errors.found:
            errors.found.extend(taken.found)
        _refuse(422, errors)
        _refuse(409, taken)
        self._change(**made, delete=list(gone))
        counts = {
            "created": len(made["create"]), "replaced": len(made["replace"]), "deleted": len(gone),
        }  # fmt: skip
        confirmed = self._waited(list({**gone, **put}), call)
        return Answer(counts, 200 if confirmed else 202)

    def lookup(self, call: Call) -> Answer:
        ipv4, port, lwb4 = (call.values[name] for name in ("ipv4", "port", "lwb4"))
        if (lwb4 is None) == (ipv4 is None) or (ipv4 is None) != (port is None):
            raise Problem(400, "give ipv4 and port, or lwb4")
        if lwb4 is not None:
            page = self._listing.page(Wanted(lwb4=lwb4), None, routes.DEFAULT_PAGE)
            body = self._page_json(page, ports=True)
            if page.more:
                body["next"] = _next(page, {"lwb4": lwb4})
            return Answer(body)
        try:
            binding = self._service.table.by_port(ipv4, port)
            params = self._service.table.prefix_of(ipv4).params
        except UnknownPrefix as error:
            raise Problem(404, str(error)) from None
        if binding is None:
            psid = params.psid_of(port)
            last = len(params.excluded_ports) - 1
            why = (
                f"ports 0 to {last} belong to nobody (PSID offset {params.psid_offset})"
                if psid is None
                else f"PSID {psid} is not bound"
            )
            raise Problem(404, f"nobody uses {ipv4}:{port}: {why}")
        return Answer({"total": 1, "bindings": [self._json(binding)]})

    # --- switches -------------------------------------------------------------------------------

    def switches(self, call: Call) -> Answer:
        return Answer({"switches": self._service.switches()})

    def switch(self, call: Call) -> Answer:
        return Answer(_named(self._service.switches(), "name", call.values["name"]))

    def binding_counters(self, call: Call) -> Answer:
        binding = self._existing(call.key)
        with _asking_a_switch():
            return Answer({"counters": self._service.binding_counters(binding.key)})

    def counters(self, call: Call) -> Answer:
        return Answer({"counters": self._read_counters()})

    def counter(self, call: Call) -> Answer:
        return Answer(_named(self._read_counters(), "instance", call.values["name"]))

    # --- failover -------------------------------------------------------------------------------

    def drain(self, call: Call) -> Answer:
        return self._drain(call, drained=True)

    def undrain(self, call: Call) -> Answer:
        return self._drain(call, drained=False)

    def _drain(self, call: Call, *, drained: bool) -> Answer:
        self.failover(call)  # raises the problem if there is no such instance
        name = call.values["name"]
        self._draining.wait_for(
            f"{name}: {'drain' if drained else 'undrain'}",
            lambda: self._service.drain(name, drained=drained),
        )
        return self.failover(call)

    def failovers(self, call: Call) -> Answer:
        return Answer(self._service.failover())

    def failover(self, call: Call) -> Answer:
        return Answer(_named(self._service.failover()["instances"], "name", call.values["name"]))

    def provisionings(self, call: Call) -> Answer:
        return Answer({"instances": self._service.provisioning()})

    def provisioning(self, call: Call) -> Answer:
        return Answer(_named(self._service.provisioning(), "name", call.values["name"]))

    def events(self, call: Call) -> Answer:
        events, values = self._service.events, call.values
        after, limit = values["since"] or 0, values["limit"]
        found: list[dict[str, Any]] = []
        while len(found) < limit and (some := events.since(after, _PER_TURN)):
            found += [event for event in some if wanted(event, values["type"], values["lwb4"])]
            after = some[-1]["id"]
            eventlet.sleep(0)
        return Answer({"last": events.last, "events": found[:limit]})

    def stream(self, call: Call) -> Stream:
        if len(self._streams) >= MAX_STREAMS:
            detail = (
                f"{MAX_STREAMS} streams of events are open, and there may be no more; close one, "
                "or ask /v1/events"
            )
            raise Problem(503, detail, headers={"Retry-After": "30"})
        events, values = self._service.events, call.values
        return Stream(events, values["since"], values["type"], values["lwb4"], self._streams)

    def openapi(self, call: Call) -> Answer:
        return Answer(openapi.document())

    # --- helpers --------------------------------------------------------------------------------

    def _read_counters(self) -> Sequence[dict[str, Any]]:
        with _asking_a_switch():
            return self._service.counters()

    def _one(self, body: Any, key: BindingKey | None = None) -> Binding:
        errors = Errors()
        binding = self._reader.binding(body, errors, self._clock())
        if binding is not None and key is not None and binding.key != key:
            field = "ipv4" if binding.ipv4 != key.ipv4 else "psid"
            reason = f"the path says {key}, the body {binding.key}"
            errors.add(field, Bad(reason, "Leave it out of the body"))
        _refuse(422, errors)
        assert binding is not None
        return binding

    def _existing(self, key: BindingKey) -> Binding:
        binding = self._service.table.get(key)
        if binding is None:
            raise Problem(404, f"there is no binding {key}")
        return binding

    def _check_changeable(self, key: BindingKey, errors: Errors) -> bool:
        if not is_static(self._service.table.get(key)):
            return True
        errors.add("", Bad(str(StaticBinding(key)), "Change it there"))
        return False

    def _change(
        self,
        create: Sequence[Binding] = (),
        replace: Sequence[Binding] = (),
        delete: Sequence[BindingKey] = (),
    ) -> None:
        if not (create or replace or delete):
            return
        try:
            self._changing.wait_for(
                "a change by REST",
                lambda: self._service.changes.change(create=create, replace=replace, delete=delete),
            )
        except BindingConflict as error:
            raise Problem(
                409, f"{error}; PUT replaces it", existing=self._json(error.existing)
            ) from None
        except StaticBinding as error:
            raise Problem(
                409, f"{error}; change it there", existing=self._json(self._existing(error.key))
            ) from None
        except KeyError as error:
            raise Problem(404, f"there is no binding {error.args[0]}") from None

    def _made(self, binding: Binding, call: Call, status: int) -> Answer:
        if not self._waited([binding.key], call):
            status = 202
        return Answer(self._json(binding), status, {"Location": f"/v1/bindings/{binding.key}"})

    def _waited(self, keys: Sequence[BindingKey], call: Call) -> bool:
        """Wait if the query asks for it; False when the switches have yet to confirm.

        Raises a 502 problem when one refused. What is stored stays stored.
        """
        if call.values["wait"] is None or not keys:
            return True
        if self._service.wait_applied(keys, call.values["timeout"]):
            return True
        refused = Errors()
        for key in keys:
            for name, applied in self._service.applied(key).items():
                if applied.state is SwitchState.FAILED:
                    reason = f"{name} refused it: {applied.error}"
                    refused.add(str(key), Bad(reason, "It is stored; replace or delete it"))
        _refuse(502, refused)
        return False

    def _json(self, binding: Binding) -> dict[str, Any]:
        return binding_json(binding, self._service.applied(binding.key), ports=True)

    def _page_json(self, page: Page, *, ports: bool) -> dict[str, Any]:
        shown = []
        for start in range(0, len(page.bindings), _PER_TURN):
            for binding in page.bindings[start : start + _PER_TURN]:
                shown.append(binding_json(binding, self._service.applied(binding.key), ports=ports))
            eventlet.sleep(0)
        return {"total": page.total, "bindings": shown}


@contextlib.contextmanager
def _asking_a_switch() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise Problem(504, str(error)) from None


def _refuse(status: int, errors: Errors) -> None:
    if errors.found:
        first = errors.found[0]
        detail = f"{first['field']}: {first['reason']}" if first["field"] else first["reason"]
        if len(errors.found) > 1:
            detail += f" (and {len(errors.found) - 1} more)"
        raise Problem(status, detail, errors=errors.found)


def _next(page: Page, query: dict[str, Any]) -> str:
    last = str(page.bindings[-1].key)
    asked = {name: str(value) for name, value in query.items() if value is not None}
    return f"/v1/bindings?{urlencode({**asked, 'after': last}, safe='/:')}"


def _bulk_lists(body: Any, errors: Errors) -> dict[str, Any]:
    if not isinstance(body, dict):
        errors.add("", Bad("this is not a JSON object", f"Give {', '.join(_CHANGES)}"))
        return {}
    for name, value in body.items():
        if name not in _CHANGES:
            errors.add(name[:60], Bad("unknown field", f"Known are {', '.join(_CHANGES)}"))
        elif not isinstance(value, list):
            errors.add(name, Bad("is not a list", "Give a list of objects"))
    return {name: body.get(name, []) for name in _CHANGES}


def _places(items: list[Any], name: str) -> Iterator[tuple[str, Any]]:
    for index, item in enumerate(items):
        if index % _PER_TURN == _PER_TURN - 1:
            eventlet.sleep(0)
        yield f"{name}[{index}]", item


def _named(found: Sequence[dict[str, Any]], key: str, name: str) -> dict[str, Any]:
    for item in found:
        if item[key] == name:
            return item
    known = ", ".join(str(item[key]) for item in found)
    raise Problem(404, f"there is no instance {name[:100]!r}; there is {known}")
