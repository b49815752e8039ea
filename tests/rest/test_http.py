"""What routes have in common: methods, queries, bodies, tokens. No input is a fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rest import routes
from tests.rest import memory
from tests.rest.client import DOCUMENT, Client
from tests.rest.memory import MemoryService

NEW = {"lwb4": "2001:db8:b4::9", "ipv4": "192.0.2.2", "psid": 9}


def test_every_route_answers_as_documented(client: Client) -> None:
    """The client checks each answer; here, that each documented success has been seen."""
    target, body = "/v1/bindings/192.0.2.2/9", {"lwb4": "2001:db8:b4::9"}
    client.post("/v1/bindings", NEW)
    client.put(target, body)
    client.delete(target)
    client.put(target, body)
    client.post("/v1/bindings/bulk", {})
    client.request("POST", "/v1/switches/lwaftr1/drain")
    client.delete("/v1/switches/lwaftr1/drain")
    for path in (
        "", "/bindings", "/bindings/192.0.2.1/3", "/bindings/192.0.2.1/3/counters",
        "/lookup?lwb4=2001:db8:b4::1", "/switches", "/switches/lwaftr1",
        "/counters", "/counters/lwaftr2", "/failover", "/failover/lwaftr1",
        "/provisioning", "/provisioning/lwaftr2", "/events", "/openapi.json",
    ):  # fmt: skip
        assert client.get(f"/v1{path}").status == 200
        assert client.request("HEAD", f"/v1{path}").status == 200
    client.request("HEAD", "/v1/events/stream")  # it has no end: see test_failover.py
    documented = {
        (route.method, route.path, status)
        for route in routes.ROUTES for status in route.answers if status != 202
    }  # fmt: skip
    assert client.seen >= documented


def test_the_document_is_served(client: Client) -> None:
    assert client.get("/v1/openapi.json").json == DOCUMENT
    # The index has what can only be posted to, too.
    assert client.get("/v1").json["links"].keys() == DOCUMENT["paths"].keys()


def test_switches_and_counters_by_name(client: Client, service: MemoryService) -> None:
    assert client.get("/v1/switches/lwaftr2").json["datapath_id"] == "0000000000000002"
    assert client.get("/v1/counters/lwaftr1").json["counters"]["from_internet"] == {
        "packets": 7, "bytes": 700,
    }  # fmt: skip
    reply = client.get("/v1/counters/lwaftr3")
    assert reply.status == 404
    assert "there is lwaftr1, lwaftr2" in reply.json["detail"]
    assert client.get("/v1/bindings/192.0.2.2/3/counters").status == 404
    service.switch_answers = False
    for path in ("/v1/counters", "/v1/bindings/192.0.2.1/3/counters"):
        reply = client.get(path)
        assert reply.status == 504
        assert "no answer to the flow dump within 10 s" in reply.json["detail"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/bindings", "GET, POST, HEAD, OPTIONS"),
        ("PATCH", "/v1/bindings/192.0.2.1/3", "GET, PUT, DELETE, HEAD, OPTIONS"),
        ("GET", "/v1/bindings/bulk", "POST, OPTIONS"),
        ("POST", "/v1/switches", "GET, HEAD, OPTIONS"),
        ("BREW", "/v1", "GET, HEAD, OPTIONS"),
    ],
)
def test_other_methods(client: Client, method: str, path: str, allowed: str) -> None:
    reply = client.request(method, path)
    assert (reply.status, reply.headers["Allow"]) == (405, allowed)
    assert allowed in reply.json["detail"]
    options = client.request("OPTIONS", path)
    assert (options.status, options.headers["Allow"], options.body) == (204, allowed, b"")


@pytest.mark.parametrize("path", ["/", "/v2", "/v1/binding", "/v1/bindings/1/2/3", "/v1/x%00y"])
def test_nothing_there(client: Client, path: str) -> None:
    reply = client.get(path)
    assert reply.status == 404
    assert "GET /v1 lists what there is" in reply.json["detail"]


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        ("/v1/bindings?limit=0", ["limit"]),
        ("/v1/bindings?limit=10001", ["limit"]),
        ("/v1/bindings?limit=ten", ["limit"]),
        ("/v1/bindings?limit=1&limit=2", ["limit"]),
        ("/v1/bindings?page=2", ["page"]),
        ("/v1/bindings?prefix=192.0.2.1/28", ["prefix"]),
        ("/v1/bindings?prefix=192.0.2.0/33&origin=me&state=x", ["prefix", "origin", "state"]),
        ("/v1/bindings?after=192.0.2.1", ["after"]),
        ("/v1/bindings/192.0.2.1/70000", ["psid"]),
        ("/v1/bindings/192.0.2.999/0", ["ipv4"]),
        ("/v1/switches?verbose=1", ["verbose"]),
    ],
)
def test_wrong_parameters_are_all_named(client: Client, target: str, fields: list[str]) -> None:
    reply = client.get(target)
    assert (reply.status, reply.fields) == (400, fields)
    assert all(error["suggestion"] for error in reply.json["errors"])


def test_a_key_that_is_none_is_named_as_a_whole(client: Client) -> None:
    (error,) = client.get("/v1/bindings?after=192.0.2.1").json["errors"]
    assert error["reason"] == '"192.0.2.1" is not the key of a binding'


def test_wrong_waits(client: Client, service: MemoryService) -> None:
    for query in ("wait=forever", "wait=applied&timeout=61", "wait=applied&timeout=nan"):
        assert client.post(f"/v1/bindings?{query}", NEW).status == 400
    assert len(service.table) == 1


def test_a_wait_as_precise_as_programs_write_it(client: Client, service: MemoryService) -> None:
    reply = client.post("/v1/bindings?wait=applied&timeout=4.4001126498219065", NEW)
    assert reply.status == 201
    assert [seconds for _, seconds in service.waits] == [4.4001126498219065]


@pytest.mark.parametrize(
    "query", ["limit=%zz", "limit=%ff", "&".join(f"a{n}=1" for n in range(60))]
)
def test_queries_that_cannot_be_read(client: Client, query: str) -> None:
    assert client.get(f"/v1/bindings?{query}").status == 400


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "there is no body"),
        (b"{", "not JSON"),
        (b'{"a": 1,}', "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"NaN", "NaN is no JSON value"),
        (b'{"psid": ' + b"9" * 5000 + b"}", "a number that is too long"),
        (b'{"lwb4": "a", "lwb4": "b"}', "the name 'lwb4' twice"),
    ],
)
def test_bodies_that_are_no_json(client: Client, body: bytes, said: str) -> None:
    reply = client.request("POST", "/v1/bindings", body)
    assert reply.status == 400
    assert said in reply.json["detail"]


def test_bodies_of_another_kind(client: Client) -> None:
    body = json.dumps(NEW).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "",
                 "application/json; charset=utf-16"):  # fmt: skip
        reply = client.request("POST", "/v1/bindings", body, CONTENT_TYPE=kind)
        assert (reply.status, reply.headers["Accept"]) == (415, "application/json")
    reply = client.request("POST", "/v1/bindings", body, HTTP_CONTENT_ENCODING="gzip")
    assert (reply.status, reply.headers["Accept-Encoding"]) == (415, "identity")
    kind = 'application/json; charset="UTF-8"'
    assert client.request("POST", "/v1/bindings", body, CONTENT_TYPE=kind).status == 201


def test_bodies_have_a_limit(client_of: Callable[[MemoryService], Client]) -> None:
    client = client_of(MemoryService(memory.settings(max_body=1024)))
    reply = client.request("POST", "/v1/bindings", b" " * 1025)
    assert reply.status == 413
    assert "larger than 1024 bytes (rest.max_body)" in reply.json["detail"]
    assert client.closed == 1  # what follows on the connection is the rest of the body
    body = json.dumps(NEW).encode().ljust(1024)
    assert client.request("POST", "/v1/bindings", body).status == 201


def test_chunked_bodies_are_refused(client: Client) -> None:
    reply = client.request("POST", "/v1/bindings", b"{}", HTTP_TRANSFER_ENCODING="chunked")
    assert reply.status == 411


def test_a_token_is_asked_for(client_of: Callable[[MemoryService], Client]) -> None:
    client = client_of(MemoryService(memory.settings(token="s3cret-token")))
    for said in ("", "Bearer", "Bearer wrong", "Basic s3cret-token", "Bearer s3cret-token\xe4"):
        reply = client.get("/v1/bindings", HTTP_AUTHORIZATION=said)
        assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, 'Bearer realm="lw4o6"')
        assert "s3cret-token" not in reply.body.decode()
    assert client.get("/v2").status == 401  # nothing is told to a stranger
    for said in ("Bearer s3cret-token", "bearer  s3cret-token "):
        assert client.get("/v1/bindings", HTTP_AUTHORIZATION=said).status == 200


def test_a_fault_of_ours_shows_nothing(client: Client, service: MemoryService) -> None:
    def broken() -> Any:
        raise RuntimeError("secret inner workings")

    service.switches = broken  # type: ignore[method-assign]
    reply = client.get("/v1/switches")
    assert reply.status == 500
    assert "secret" not in reply.body.decode()


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from(["192.0.2.2", "2001:db8:b4::9", "", "\0", "1e999", "fe80::1%x"]),
        st.text(max_size=20),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(
                st.sampled_from(["lwb4", "ipv4", "psid", "lifetime", "create", "delete"]),
                st.text(max_size=8),
            ),
            inner, max_size=5,
        ),
    ),
)  # fmt: skip
FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@FUZZ
@given(
    target=st.sampled_from(
        [
            "/v1/bindings",
            "/v1/bindings/bulk",
            "/v1/bindings/192.0.2.2/9",
            "/v1/bindings?wait=applied",
        ]
    ),
    method=st.sampled_from(["POST", "PUT"]),
    body=st.one_of(
        JSON,
        st.builds(lambda more: NEW | more, st.dictionaries(st.sampled_from(sorted(NEW)), JSON)),
        st.builds(lambda item: {"create": [item], "delete": [item]}, JSON),
    ),
)
def test_no_body_is_a_fault(client: Client, target: str, method: str, body: Any) -> None:
    assert client.request(method, target, json.dumps(body).encode()).status < 500


@FUZZ
@example(path="/v1/bindings/\u0660.0.0.1/\u0663", query="")
@given(
    path=st.one_of(
        st.sampled_from(["/v1/bindings", "/v1/lookup", "/v1/switches", "/v1/bindings/192.0.2.2/9"]),
        st.text(max_size=30).map(lambda text: f"/v1/{text}"),
        st.builds(lambda a, b: f"/v1/bindings/{a}/{b}", st.text(max_size=12), st.text(max_size=6)),
    ).map(lambda text: text.replace("?", "").replace("%", "")),
    query=st.one_of(
        st.text(max_size=30),
        st.builds(
            lambda name, value: f"{name}={value}",
            st.sampled_from(sorted(routes.PARAMETERS)),
            st.one_of(st.text(max_size=20), st.integers().map(str), st.floats().map(str)),
        ),
    ),
)
def test_no_path_and_no_query_is_a_fault(client: Client, path: str, query: str) -> None:
    encoded = path.encode("utf-8", "surrogatepass").decode("latin-1")
    for method in ("GET", "DELETE"):
        assert client.request(method, f"{encoded}?{query}").status < 500
