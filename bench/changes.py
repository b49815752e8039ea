"""Bindings that come and go, over REST, beside the packets of one that stays.

Every bulk request makes as many bindings as it removes, and is answered when the switch has
confirmed both: first at a steady pace, then one request after the other. The packets of the binding
that stays carry numbers: none may be lost.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from bench.rig import Result, Rig, Row, Stream, bindings, lwaftr
from ryu_lw4o6.core.binding import Binding
from tests.support.netns import inside

BINDINGS = 10_000
TARGET = 1000
"""Changes per second."""

PACE = 1100
"""What is asked for: a little more, as no pace is kept exactly."""

SECONDS = 30
FULL_SPEED_SECONDS = 10
PER_REQUEST = 50
"""Bindings made by a request, and bindings removed by it."""


def measure() -> Result:
    with lwaftr(BINDINGS) as rig:
        rig.controller.start()
        rig.wait_ready()
        with _rest(rig) as client:
            subscribers = _Subscribers(client)
            with Stream(rig, bindings(1)[0]) as stream:
                steady = _change(subscribers, SECONDS, PACE)
            with Stream(rig, bindings(1)[0]) as full_speed_stream:
                full_speed = _change(subscribers, FULL_SPEED_SECONDS)
    loss, full_speed_loss = stream.loss, full_speed_stream.loss
    return Result(
        [
            Row("confirmed changes/s over REST", f"{steady:,.0f}", f">= {TARGET:,}",
                steady >= TARGET),
            Row("packets lost", f"{loss.lost} of {loss.sent}", "0", loss.lost == 0),
            Row("changes/s without a pause", f"{full_speed:,.0f}"),
            Row("packets lost", f"{full_speed_loss.lost} of {full_speed_loss.sent}"),
        ],
        {
            "bindings": BINDINGS,
            "steady": {"changes_per_second": steady, **asdict(loss)},
            "full_speed": {"changes_per_second": full_speed, **asdict(full_speed_loss)},
        },
    )  # fmt: skip


def _change(subscribers: _Subscribers, seconds: float, pace: float | None = None) -> float:
    """Replace subscribers for a while, at most ``pace`` changes/s; the changes/s there were."""
    changes = 0
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        changes += subscribers.replace()
        if pace is not None:
            time.sleep(max(0.0, changes / pace - (time.monotonic() - started)))
    return changes / (time.monotonic() - started)


class _Subscribers:
    """A block of bindings beside those in the store, which wanders through the address space."""

    def __init__(self, client: http.client.HTTPConnection) -> None:
        self._client = client
        self._first = BINDINGS
        self._bulk({"create": [_json(b) for b in bindings(PER_REQUEST, self._first)]})

    def replace(self) -> int:
        """Put new subscribers in the place of the old; how many changes that made."""
        old = bindings(PER_REQUEST, self._first)
        self._first += PER_REQUEST
        new = bindings(PER_REQUEST, self._first)
        self._bulk({"create": [_json(b) for b in new], "delete": [_key(b) for b in old]})
        return len(old) + len(new)

    def _bulk(self, body: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/json"}
        self._client.request("POST", "/v1/bindings/bulk?wait=applied", json.dumps(body), headers)
        answer = self._client.getresponse()
        text = answer.read()
        assert answer.status == 200, text


def _json(binding: Binding) -> dict[str, Any]:
    return _key(binding) | {"lwb4": str(binding.lwb4)}


def _key(binding: Binding) -> dict[str, Any]:
    return {"ipv4": str(binding.ipv4), "psid": binding.psid}


@contextlib.contextmanager
def _rest(rig: Rig) -> Iterator[http.client.HTTPConnection]:
    client = http.client.HTTPConnection("127.0.0.1", 8080, timeout=30)
    with inside(rig.ovs.name):
        client.connect()
    with contextlib.closing(client):
        yield client
