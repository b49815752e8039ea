"""Failover and events over REST."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import IPv6Address
from typing import Any

import eventlet
import pytest

from rest.stream import Stream
from ryu_lw4o6.core.binding import BindingKey
from ryu_lw4o6.events import KEPT, Events
from tests.rest.client import Client
from tests.rest.memory import STATIC, MemoryService

NEW = {"lwb4": "2001:db8:b4::9", "ipv4": "192.0.2.2", "psid": 9}


def test_the_state_of_failover(client: Client) -> None:
    found = client.get("/v1/failover").json
    assert found["supporting_system"] is None  # nobody is asked with the ICMPv6 trigger
    assert [i["name"] for i in found["instances"]] == ["lwaftr1", "lwaftr2"]
    one = client.get("/v1/failover/lwaftr2").json
    assert (one["mechanism"], one["drained"]) == ("icmpv6", False)
    assert one["obstacle"] == "the switch is not connected"
    assert client.get("/v1/failover/nobody").status == 404


def test_the_state_of_provisioning(client: Client) -> None:
    assert client.get("/v1/provisioning").json == {
        "instances": [
            {"name": "lwaftr1", "pcp": None, "dhcp": None},
            {"name": "lwaftr2", "pcp": None, "dhcp": None},
        ]
    }
    one = {"name": "lwaftr2", "pcp": None, "dhcp": None}
    assert client.get("/v1/provisioning/lwaftr2").json == one
    assert client.get("/v1/provisioning/nobody").status == 404


def test_drain(client: Client, service: MemoryService) -> None:
    reply = client.request("POST", "/v1/switches/lwaftr1/drain")
    assert (reply.status, reply.json["drained"], reply.json["obstacle"]) == (200, True, "drained")
    client.request("POST", "/v1/switches/lwaftr1/drain")  # again does no harm
    assert client.get("/v1/failover/lwaftr2").json["drained"] is False
    assert client.delete("/v1/switches/lwaftr1/drain").json["drained"] is False
    kinds = [event["type"] for event in client.get("/v1/events").json["events"]]
    assert kinds == ["drained", "undrained"]
    assert client.request("POST", "/v1/switches/nobody/drain").status == 404
    service.store.down = True
    reply = client.request("POST", "/v1/switches/lwaftr1/drain")
    assert reply.status == 503
    assert client.get("/v1/failover/lwaftr1").json["drained"] is False


def test_changes_of_bindings_are_events(client: Client) -> None:
    client.post("/v1/bindings", NEW | {"lifetime": 60})
    client.delete("/v1/bindings/192.0.2.2/9")
    found = client.get("/v1/events").json
    assert found["last"] == 2
    created, deleted = found["events"]
    assert created["type"] == "binding-created"
    assert (created["binding"], created["lwb4"]) == ("192.0.2.2/9", "2001:db8:b4::9")
    assert created["origin"] == "rest"
    assert created["expires_at"].endswith("Z")
    assert (deleted["type"], deleted["binding"]) == ("binding-deleted", "192.0.2.2/9")
    assert (deleted["lwb4"], deleted["reason"]) == ("2001:db8:b4::9", "rest")
    only = client.get("/v1/events?type=binding-deleted").json["events"]
    assert [event["id"] for event in only] == [2]
    assert client.get("/v1/events?since=1&limit=1").json["events"] == [deleted]
    assert client.get("/v1/events?since=2").json["events"] == []
    assert client.get("/v1/events?since=x").status == 400
    (error,) = client.get("/v1/events?type=binding-create").json["errors"]
    assert error["suggestion"] == "Did you mean binding-created?"


def test_events_of_one_lwb4(client: Client) -> None:
    for psid, lwb4 in ((9, "2001:db8:b4::9"), (10, "2001:db8:b4::a")):
        client.post("/v1/bindings", NEW | {"psid": psid, "lwb4": lwb4})
        client.delete(f"/v1/bindings/192.0.2.2/{psid}")
    # However it is written (RFC 4291 section 2.2).
    its = client.get("/v1/events?lwb4=2001:DB8:b4:0::9").json["events"]
    assert [(event["id"], event["type"]) for event in its] == [
        (1, "binding-created"), (2, "binding-deleted"),
    ]  # fmt: skip
    both = client.get("/v1/events?lwb4=2001:db8:b4::a&type=binding-deleted").json["events"]
    assert [event["id"] for event in both] == [4]
    assert client.get("/v1/events?lwb4=192.0.2.1").status == 400


def test_a_refused_change_is_no_event(client: Client) -> None:
    assert client.post("/v1/bindings", NEW | {"psid": 99}).status == 422
    assert client.get("/v1/events").json == {"last": 0, "events": []}


def stream(
    events: Events,
    since: int | None = None,
    kind: str | None = None,
    lwb4: IPv6Address | None = None,
    **environ: Any,
) -> Any:
    started: list[Any] = []
    chunks: Iterator[bytes] = iter(
        Stream(events, since, kind, lwb4, set())(environ, lambda *args: started.append(args))
    )
    assert started[0][0] == "200 OK"
    assert ("Content-Type", "text/event-stream") in started[0][1]
    assert next(chunks) == b"retry: 1000\n\n"
    return chunks


def read(chunk: bytes) -> list[dict[str, Any]]:
    """The events of a chunk, each checked against the format."""
    found = []
    for block in chunk.decode().removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        event = json.loads(fields["data"])
        assert (fields["id"], fields["event"]) == (str(event["id"]), event["type"])
        found.append(event)
    return found


def test_a_stream_begins_with_what_happens_next() -> None:
    events = Events()
    events.add("old")
    chunks = stream(events)
    eventlet.spawn_after(0.05, events.add, "new", binding=BindingKey(STATIC.ipv4, 3), count=7)
    with eventlet.Timeout(5):
        (event,) = read(next(chunks))
    assert (event["type"], event["binding"], event["count"]) == ("new", "192.0.2.1/3", 7)


@pytest.mark.parametrize("how", ["since", "header"])
def test_a_stream_goes_on_where_the_client_has_been(how: str) -> None:
    events = Events()
    for n in range(5):
        events.add("tick", n=n)
    chunks = stream(events, since=3) if how == "since" else stream(events, HTTP_LAST_EVENT_ID="3")
    assert [event["n"] for event in read(next(chunks))] == [3, 4]


def test_a_stream_of_one_kind() -> None:
    events = Events()
    for kind in ("a", "b", "a"):
        events.add(kind)
    assert [event["id"] for event in read(next(stream(events, since=0, kind="a")))] == [1, 3]


def test_a_stream_of_one_lwb4() -> None:
    events = Events()
    mine, other = IPv6Address("2001:db8:b4::9"), IPv6Address("2001:db8:b4::a")
    for lwb4 in (mine, other, None, mine):
        events.add("a", lwb4=lwb4)
    assert [event["id"] for event in read(next(stream(events, since=0, lwb4=mine)))] == [1, 4]


def test_a_controller_that_has_started_anew_begins_at_one() -> None:
    events = Events()
    chunks = stream(events, since=900)
    eventlet.spawn_after(0.05, events.add, "first")
    with eventlet.Timeout(5):
        assert read(next(chunks))[0]["id"] == 1


def test_old_events_are_forgotten() -> None:
    events = Events()
    for n in range(KEPT + 10):
        events.add("tick", n=n)
    assert events.since(0, 1)[0]["id"] == 11
    assert events.since(KEPT + 9, 100)[0]["id"] == KEPT + 10
    assert events.since(KEPT + 10, 100) == []
    assert events.since(KEPT + 99, 100) == []
