"""Bindings over REST. The client holds every answer against the API's own document.

The service has 192.0.2.0/28 (PSID offset 6, length 6) and 203.0.113.0/29 (full addresses), and
one static binding: 192.0.2.1 PSID 3, which has the ports 1024 n + 48 to 1024 n + 63.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Any

import eventlet
import pytest

from rest import patience
from ryu_lw4o6.core.binding import BindingKey
from ryu_lw4o6.store import StoreError, Unconfirmed
from tests.rest.client import Client
from tests.rest.memory import MemoryService

NEW = {"lwb4": "2001:db8:b4::9", "ipv4": "192.0.2.2", "psid": 9}
OTHER = {"lwb4": "2001:db8:b4::8", "ipv4": "192.0.2.2", "psid": 8}
KEY = BindingKey(IPv4Address("192.0.2.2"), 9)
STATIC = "/v1/bindings/192.0.2.1/3"
APPLIED = {"lwaftr1": {"state": "applied"}}


def test_a_binding_from_beginning_to_end(client: Client, service: MemoryService) -> None:
    made = client.post("/v1/bindings", NEW)
    assert made.status == 201
    assert made.headers["Location"] == "/v1/bindings/192.0.2.2/9"
    assert made.json["ports"][:2] == ["1168-1183", "2192-2207"]  # 1024 + 9 * 16 = 1168
    assert len(made.json["ports"]) == 63
    expected = NEW | {
        "psid_offset": 6, "psid_length": 6, "br_address": None, "origin": "rest",
        "expires_at": None, "state": APPLIED, "ports": made.json["ports"],
    }  # fmt: skip
    assert made.json == expected
    assert client.get("/v1/bindings/192.0.2.2/9").json == expected
    assert service.store.saves == 2  # one when the service began
    assert client.delete("/v1/bindings/192.0.2.2/9").status == 204
    assert client.get("/v1/bindings/192.0.2.2/9").status == 404
    assert client.delete("/v1/bindings/192.0.2.2/9").status == 404


def test_a_full_address_needs_no_psid(client: Client) -> None:
    body = {"lwb4": "2001:db8:b4::9", "ipv4": "203.0.113.1", "br_address": "2001:db8:ffff::22"}
    made = client.post("/v1/bindings", body).json
    assert (made["psid"], made["ports"]) == (0, ["0-65535"])
    assert made["state"] == {"lwaftr2": {"state": "applied"}}  # only it has that br-address


def test_a_lifetime_ends(client: Client, service: MemoryService) -> None:
    before = time.time()
    made = client.post("/v1/bindings", NEW | {"lifetime": 60}).json
    expires = datetime.fromisoformat(made["expires_at"]).astimezone(UTC).timestamp()
    assert before + 59 <= expires <= time.time() + 60
    assert service.changes.expire(before + 59) == []
    assert service.changes.expire(time.time() + 61) == [KEY]
    (expired,) = client.get("/v1/events?type=binding-expired").json["events"]
    assert (expired["binding"], expired["lwb4"]) == ("192.0.2.2/9", NEW["lwb4"])
    assert client.get("/v1/bindings/192.0.2.2/9").status == 404


WRONG: list[tuple[Any, list[str], str]] = [
    # what is posted, the fields that are wrong, and what is said of the first
    ({}, ["lwb4", "ipv4"], "is missing"),
    ([], [""], "a list is not a JSON object"),
    (None, [""], "null is not a JSON object"),
    (NEW | {"ipv4": "192.0.2"}, ["ipv4"], '"192.0.2" is not an IPv4 address'),
    (NEW | {"ipv4": 3221225985}, ["ipv4"], "3221225985 is not an IPv4 address"),
    (NEW | {"ipv4": "2001:db8::1"}, ["ipv4"], "is not an IPv4 address"),
    (NEW | {"ipv4": "10.0.0.1"}, ["ipv4"], "10.0.0.1 is in none of the configured IPv4 prefixes"),
    (NEW | {"lwb4": "192.0.2.1"}, ["lwb4"], "is not an IPv6 address"),
    (NEW | {"lwb4": "fe80::1%eth0"}, ["lwb4"], "is not an IPv6 address without a zone"),
    (NEW | {"lwb4": "ff02::1"}, ["lwb4"], "ff02::1 is no unicast address of a host"),
    (NEW | {"lwb4": "::"}, ["lwb4"], ":: is no unicast address of a host"),
    (NEW | {"lwb4": "2001:db8:ffff::1"}, ["lwb4"], "is an address of the lwAFTR"),
    (NEW | {"lwb4": "2001:db8:1::1"}, ["lwb4"], "is an address of the lwAFTR"),
    (NEW | {"psid": 64}, ["psid"], "a PSID of length 6 is in 0..63"),
    (NEW | {"psid": -1}, ["psid"], "-1 is out of range"),
    (NEW | {"psid": "9"}, ["psid"], '"9" is not a whole number'),
    (NEW | {"psid": True}, ["psid"], "true is not a whole number"),
    (NEW | {"psid": 1.5}, ["psid"], "1.5 is not a whole number"),
    (NEW | {"psid_length": 8}, ["psid_length"], "192.0.2.0/28 has 6, not 8"),
    (NEW | {"ipv4": "203.0.113.1"}, ["psid"], "a full address (PSID length 0) has PSID 0 only"),
    (NEW | {"lifetime": 0}, ["lifetime"], "0 is no lifetime"),
    (NEW | {"lifetime": "soon"}, ["lifetime"], '"soon" is no lifetime'),
    (NEW | {"lifetime": 1e300}, ["lifetime"], "is no lifetime"),
    (NEW | {"br_address": "2001:db8::5"}, ["br_address"], "2001:db8::5 is no instance's"),
    (NEW | {"br_address": "2001:db8:ffff::22"}, ["br_address"],
     "no instance serves 192.0.2.2 from 2001:db8:ffff::22"),
    (NEW | {"ipv4": "198.51.100.130", "psid": 0}, ["ipv4"], "no instance serves 198.51.100.130"),
    (NEW | {"origin": "static"}, ["origin"], "is not yours to set"),
    (NEW | {"expires_at": "2030-01-01"}, ["expires_at"], "is not yours to set"),
    (NEW | {"lwB4": "2001:db8::1"}, ["lwB4"], "unknown field"),
    ({"lwb4": 1, "ipv4": 2, "psid": "x", "colour": 0}, ["colour", "lwb4", "ipv4", "psid"],
     "unknown field"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "fields", "reason"), WRONG)
def test_a_wrong_binding_is_refused_field_by_field(
    client: Client, service: MemoryService, body: Any, fields: list[str], reason: str
) -> None:
    reply = client.post("/v1/bindings", body)
    assert reply.status == 422
    assert reply.fields == fields
    assert reason in reply.json["errors"][0]["reason"]
    assert all(error["suggestion"] for error in reply.json["errors"])
    assert len(service.table) == 1


def test_a_near_miss_is_named(client: Client) -> None:
    reply = client.post("/v1/bindings", NEW | {"lifetme": 5})
    assert reply.json["errors"][0]["suggestion"] == "Did you mean lifetime?"


def test_a_port_set_is_bound_once(client: Client) -> None:
    client.post("/v1/bindings", NEW)
    again = client.post("/v1/bindings", NEW | {"lwb4": "2001:db8:b4::a"})
    assert again.status == 409
    assert "192.0.2.2/9 is already bound to lwB4 2001:db8:b4::9" in again.json["detail"]
    assert again.json["existing"]["lwb4"] == "2001:db8:b4::9"
    assert client.get("/v1/bindings/192.0.2.2/9").json["lwb4"] == "2001:db8:b4::9"


def test_put_makes_and_replaces(client: Client) -> None:
    target = "/v1/bindings/192.0.2.2/9"
    assert client.put(target, {"lwb4": "2001:db8:b4::9"}).status == 201
    again = client.put(target, {"lwb4": "2001:db8:b4::a", "ipv4": "192.0.2.2", "psid": 9})
    assert (again.status, again.json["lwb4"]) == (200, "2001:db8:b4::a")
    other = client.put(target, {"lwb4": "2001:db8:b4::a", "psid": 10})
    assert (other.status, other.fields) == (422, ["psid"])
    assert "the path says 192.0.2.2/9, the body 192.0.2.2/10" in other.json["detail"]
    assert client.get("/v1/bindings/192.0.2.2/10").status == 404


def test_static_bindings_are_the_configurations(client: Client, service: MemoryService) -> None:
    for reply in (
        client.delete(STATIC),
        client.put(STATIC, {"lwb4": "2001:db8:b4::9"}),
        client.post("/v1/bindings", NEW | {"ipv4": "192.0.2.1", "psid": 3}),
        client.post("/v1/bindings/bulk", {"delete": [{"ipv4": "192.0.2.1", "psid": 3}]}),
    ):
        assert reply.status == 409
        assert "192.0.2.1/3" in reply.json["detail"]
    assert client.get(STATIC).json["origin"] == "static"


def test_a_store_that_is_down_changes_nothing(client: Client, service: MemoryService) -> None:
    service.store.down = True
    reply = client.post("/v1/bindings", NEW)
    assert (reply.status, reply.headers["Retry-After"]) == (503, "5")
    assert "nothing was changed: the disk is full. Make room" in reply.json["detail"]
    assert len(service.table) == 1
    service.store.down = False
    assert client.post("/v1/bindings", NEW).status == 201


def test_a_store_that_does_not_say_whether_it_has_done_it(
    client: Client, service: MemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*_: object) -> None:
        raise Unconfirmed(StoreError("the connection broke", "Wait"))

    monkeypatch.setattr(service.store, "save", save)
    reply = client.post("/v1/bindings", NEW)
    assert (reply.status, reply.headers["Retry-After"]) == (503, "5")
    assert "the outcome is unknown: the connection broke. Look" in reply.json["detail"]


def test_a_store_that_stands_still_keeps_nobody_waiting(
    client: Client, service: MemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "STORE_SECONDS", 0.2)
    assert client.post("/v1/bindings", OTHER).status == 201
    saves = service.store.saves
    service.store.moves.clear()
    try:
        begun = client.post("/v1/bindings", NEW)
        assert (begun.status, begun.headers["Retry-After"]) == (503, "5")
        assert "the outcome is unknown: the store has not answered" in begun.json["detail"]
        refused = client.delete("/v1/bindings/192.0.2.2/8")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        assert "nothing was changed: the store has not answered" in refused.json["detail"]
        drain = client.request("POST", "/v1/switches/lwaftr1/drain")
        assert "the outcome is unknown" in drain.json["detail"]
        assert client.get("/v1/bindings").json["total"] == 2  # questions do not wait
    finally:
        service.store.moves.set()
    # What was begun is done; what was refused is not.
    with eventlet.Timeout(10):
        while client.get("/v1/bindings/192.0.2.2/9").status == 404:
            eventlet.sleep(0.01)
        while not client.get("/v1/failover/lwaftr1").json["drained"]:
            eventlet.sleep(0.01)
    assert client.post("/v1/bindings", NEW | {"psid": 10}).status == 201
    assert client.get("/v1/bindings/192.0.2.2/8").status == 200
    assert service.store.saves == saves + 3


# --- waiting for the switch -----------------------------------------------------------------------


def test_wait_applied(client: Client, service: MemoryService) -> None:
    assert client.post("/v1/bindings?wait=applied&timeout=2.5", NEW).status == 201
    assert service.waits == [([KEY], 2.5)]


def test_what_the_switch_has_yet_to_confirm_is_accepted(
    client: Client, service: MemoryService
) -> None:
    service.slow.add(KEY)
    made = client.post("/v1/bindings?wait=applied&timeout=0", NEW)
    assert (made.status, made.json["state"]) == (202, {"lwaftr1": {"state": "pending"}})
    assert KEY in service.table  # stored all the same
    assert client.delete("/v1/bindings/192.0.2.2/9?wait=applied").status == 202
    assert KEY not in service.table


def test_what_a_switch_refuses_is_said(client: Client, service: MemoryService) -> None:
    service.refused[KEY] = "OFPFMFC_TABLE_FULL"
    reply = client.post("/v1/bindings?wait=applied", NEW)
    assert reply.status == 502
    assert reply.fields == ["192.0.2.2/9"]
    assert "lwaftr1 refused it: OFPFMFC_TABLE_FULL" in reply.json["detail"]
    assert KEY in service.table


# --- bulk -----------------------------------------------------------------------------------------


def test_bulk_does_everything_at_once(client: Client, service: MemoryService) -> None:
    client.post("/v1/bindings", NEW)
    saves = service.store.saves
    reply = client.post(
        "/v1/bindings/bulk?wait=applied",
        {
            "create": [NEW | {"psid": 10}, NEW | {"psid": 11}],
            "replace": [NEW | {"psid": 12}],
            "delete": [{"ipv4": "192.0.2.2", "psid": 9}],
        },
    )
    assert (reply.status, reply.json) == (200, {"created": 2, "replaced": 1, "deleted": 1})
    assert service.store.saves == saves + 1
    assert sorted(b.psid for b in service.table if b.origin == "rest") == [10, 11, 12]
    assert len(service.waits[0][0]) == 4


def test_a_binding_may_take_the_place_of_one_that_goes(client: Client) -> None:
    client.post("/v1/bindings", NEW)
    body = {
        "delete": [{"ipv4": "192.0.2.2", "psid": 9}],
        "create": [NEW | {"lwb4": "2001:db8:b4::a"}],
    }
    assert client.post("/v1/bindings/bulk", body).status == 200
    assert client.get("/v1/bindings/192.0.2.2/9").json["lwb4"] == "2001:db8:b4::a"


@pytest.mark.parametrize(
    ("body", "status", "fields"),
    [
        ({"create": [NEW, NEW | {"psid": 64}]}, 422, ["create[1].psid"]),
        ({"create": [NEW, NEW]}, 422, ["create[1]"]),
        ({"create": [NEW], "replace": [NEW]}, 422, ["replace[0]"]),
        ({"create": [NEW], "delete": [{"ipv4": "192.0.2.2"}]}, 422, ["delete[0].psid"]),
        ({"create": [NEW], "delete": [{"ipv4": "192.0.2.2", "psid": 7}]}, 409, ["delete[0]"]),
        ({"create": [NEW], "delete": ["192.0.2.2/7"]}, 422, ["delete[0]"]),
        ({"create": [NEW, NEW | {"ipv4": "192.0.2.1", "psid": 3}]}, 409, ["create[1]"]),
        ({"create": NEW}, 422, ["create"]),
        ({"add": [NEW]}, 422, ["add"]),
        ([NEW], 422, [""]),
    ],
)
def test_bulk_does_nothing_if_anything_is_wrong(
    client: Client, service: MemoryService, body: Any, status: int, fields: list[str]
) -> None:
    reply = client.post("/v1/bindings/bulk", body)
    assert (reply.status, reply.fields) == (status, fields)
    assert len(service.table) == 1
    assert service.store.saves == 1


def test_an_empty_bulk_is_done(client: Client) -> None:
    reply = client.post("/v1/bindings/bulk", {})
    assert (reply.status, reply.json) == (200, {"created": 0, "replaced": 0, "deleted": 0})


# --- lists and lookups ----------------------------------------------------------------------------


@pytest.fixture
def many(client: Client) -> Client:
    """60 more bindings of 192.0.2.2 and one full address, all of five lwB4s."""
    bindings = [NEW | {"lwb4": f"2001:db8:b4::{p % 5 + 1}", "psid": p} for p in range(60)]
    bindings.append({"lwb4": "2001:db8:b4::1", "ipv4": "203.0.113.5"})
    assert client.post("/v1/bindings/bulk", {"create": bindings}).status == 200
    return client


def keys(reply: Any) -> list[tuple[str, int]]:
    return [(b["ipv4"], b["psid"]) for b in reply.json["bindings"]]


def test_pages_hold_every_binding_once_and_in_order(many: Client) -> None:
    reply = many.get("/v1/bindings?limit=25")
    pages = [reply]
    while "next" in reply.json:
        reply = many.get(reply.json["next"])
        pages.append(reply)
    assert [len(keys(page)) for page in pages] == [25, 25, 12]
    assert {page.json["total"] for page in pages} == {62}
    found = [key for page in pages for key in keys(page)]
    expected = [("192.0.2.1", 3), *(("192.0.2.2", p) for p in range(60)), ("203.0.113.5", 0)]
    assert found == expected


def test_a_page_after_a_binding_that_is_gone(many: Client) -> None:
    many.delete("/v1/bindings/192.0.2.2/9")
    reply = many.get("/v1/bindings?after=192.0.2.2/9&limit=2")
    assert keys(reply) == [("192.0.2.2", 10), ("192.0.2.2", 11)]


@pytest.mark.parametrize(
    ("query", "total"),
    [
        ("ipv4=192.0.2.2", 60),
        ("ipv4=192.0.2.3", 0),
        ("prefix=192.0.2.0/28", 61),
        ("prefix=203.0.113.0/24", 1),
        ("prefix=0.0.0.0/0", 62),
        ("prefix=192.0.2.0/28&ipv4=203.0.113.5", 0),
        ("lwb4=2001:DB8:b4:0::1", 14),  # the static one, PSIDs 0, 5, ... 55, the full address
        ("lwb4=2001:db8:b4::1&ipv4=192.0.2.2", 12),
        ("origin=static", 1),
        ("origin=rest&prefix=203.0.113.0/29", 1),
        ("state=applied", 62),
        ("state=failed", 0),
    ],
)
def test_filters(many: Client, query: str, total: int) -> None:
    reply = many.get(f"/v1/bindings?{query}&limit=10000")
    assert (reply.json["total"], len(keys(reply))) == (total, total)
    assert "next" not in reply.json


def test_filters_and_pages_together(many: Client) -> None:
    reply = many.get("/v1/bindings?lwb4=2001:db8:b4::1&origin=rest&limit=5")
    seen = keys(reply)
    while "next" in reply.json:
        reply = many.get(reply.json["next"])
        seen += keys(reply)
    assert seen == [*(("192.0.2.2", p) for p in range(0, 60, 5)), ("203.0.113.5", 0)]


@pytest.mark.parametrize(
    ("query", "lwb4"),
    [
        ("ipv4=192.0.2.1&port=1072", "2001:db8:b4::1"),
        ("ipv4=192.0.2.1&port=64575", "2001:db8:b4::1"),
        ("ipv4=203.0.113.5&port=0", "2001:db8:b4::1"),
        ("ipv4=192.0.2.2&port=1055", "2001:db8:b4::2"),  # 1024 + 16 + 15: PSID 1
    ],
)
def test_who_uses_a_port(many: Client, query: str, lwb4: str) -> None:
    reply = many.get(f"/v1/lookup?{query}")
    assert [b["lwb4"] for b in reply.json["bindings"]] == [lwb4]


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("ipv4=192.0.2.1&port=80", 404, "ports 0 to 1023 belong to nobody (PSID offset 6)"),
        ("ipv4=192.0.2.1&port=1088", 404, "nobody uses 192.0.2.1:1088: PSID 4 is not bound"),
        ("ipv4=10.0.0.1&port=80", 404, "10.0.0.1 is in none of the configured IPv4 prefixes"),
        ("ipv4=192.0.2.1", 400, "give ipv4 and port, or lwb4"),
        ("port=80", 400, "give ipv4 and port, or lwb4"),
        ("", 400, "give ipv4 and port, or lwb4"),
        ("lwb4=2001:db8::1&ipv4=192.0.2.1&port=80", 400, "give ipv4 and port, or lwb4"),
        ("ipv4=192.0.2.1&port=65536", 400, "65536 is out of range"),
    ],
)
def test_a_lookup_that_finds_nothing(client: Client, query: str, status: int, said: str) -> None:
    reply = client.get(f"/v1/lookup?{query}")
    assert reply.status == status
    assert said in reply.json["detail"]


def test_what_an_lwb4_has(many: Client) -> None:
    reply = many.get("/v1/lookup?lwb4=2001:db8:b4::5")
    assert keys(reply) == [("192.0.2.2", p) for p in range(4, 60, 5)]
    assert reply.json["bindings"][0]["ports"][0] == "1088-1103"
    assert many.get("/v1/lookup?lwb4=2001:db8:b4::77").json == {"total": 0, "bindings": []}
