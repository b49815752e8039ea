"""Kea as supporting system: when it is down, slow or no Kea, and how changes are followed."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ryu_lw4o6.core.binding import Binding, BindingKey, BindingTable
from ryu_lw4o6.core.failover import foreseen
from ryu_lw4o6.core.settings import Failover
from ryu_lw4o6.supporting import SystemUnavailable
from ryu_lw4o6.supporting.kea import KeaSystem
from tests.support.kea import Kea, server
from tests.support.netns import inside, namespace
from tests.support.ovs import wait_for
from tests.supporting.conftest import (
    LEASED,
    LEASES,
    fill_kea,
    kea_configurations,
    lease_of,
    settings,
)
from tests.supporting.test_conformance import ONE, TWO, WHOLE

DEADLINE = 0.5


def system(endpoint: str, **fields: Any) -> KeaSystem:
    return KeaSystem(endpoint, settings("kea:" + endpoint, deadline=DEADLINE, **fields))


@pytest.fixture(params=["socket", "agent"])
def kea(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Kea, str]]:
    """A Kea, and how to reach it."""
    with namespace() as name, inside(name):
        place = server(tmp_path)
        made = Kea(tmp_path, kea_configurations(place, agent=request.param == "agent"), name)
        made.start()
        fill_kea(made, [ONE])
        try:
            yield made, "http://127.0.0.1:8000" if request.param == "agent" else place.socket(4)
        finally:
            made.stop()


def unavailable(tried: KeaSystem) -> SystemUnavailable:
    began = time.monotonic()
    with pytest.raises(SystemUnavailable) as caught:
        tried.find([ONE.key])
    assert time.monotonic() - began < DEADLINE + 1
    assert caught.value.suggestion
    return caught.value


def test_killed_and_restarted(kea: tuple[Kea, str]) -> None:
    server, endpoint = kea
    asked = system(endpoint)
    assert ONE.key in asked.find([ONE.key])
    names = server.names
    server.kill()
    unavailable(asked)
    server.start(*names)
    assert ONE.key in asked.find([ONE.key])  # the leases are in its file


def test_frozen_and_woken(kea: tuple[Kea, str]) -> None:
    server, endpoint = kea
    asked = system(endpoint)
    with server.frozen("dhcp4"):
        unavailable(asked)
        with pytest.raises(SystemUnavailable):
            asked.wait_for_changes(0.1)
    wait_for("it answers again", lambda: _answers(asked))


def _answers(asked: KeaSystem) -> bool:
    with contextlib.suppress(SystemUnavailable):
        return ONE.key in asked.find([ONE.key])
    return False


def test_without_the_lease_commands(tmp_path: Path) -> None:
    with namespace() as name:
        place = server(tmp_path)
        configurations = kea_configurations(place, agent=False)
        configurations["dhcp4"]["Dhcp4"]["hooks-libraries"] = []
        made = Kea(tmp_path, configurations, name)
        made.start()
        try:
            said = unavailable(system(place.socket(4)))
        finally:
            made.stop()
    assert "'lease4-get' command not supported" in said.reason
    assert "libdhcp_lease_cmds.so" in said.suggestion


@pytest.mark.parametrize("endpoint", ["/nowhere/socket", "http://127.0.0.1:1", "http://[::1]:1/"])
def test_nobody_there(endpoint: str) -> None:
    unavailable(system(endpoint))


class Impostor:
    """Listens at a path, and answers everything with the same bytes; None: not at all."""

    def __init__(self, path: Path, answer: bytes | None) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self.answer = answer
        self._kept: list[socket.socket] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._socket.accept()[0]
                self._kept.append(connection)
                if self.answer is not None:
                    connection.recv(65536)
                    connection.sendall(self.answer)
                    connection.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in self._kept:
            connection.close()


@pytest.mark.parametrize(
    "answer",
    [None, b"", b"no JSON", b"[]", b"{}", b"7", b'{"result": "0"}', b'[{"result": 0}, 1]',
     b"[" * 100_000, b"\xff\xfe"],
    ids=lambda answer: repr(answer)[:20],
)  # fmt: skip
def test_garbage(tmp_path: Path, answer: bytes | None) -> None:
    impostor = Impostor(tmp_path / "socket", answer)
    asked = system(str(tmp_path / "socket"))
    unavailable(asked)
    with pytest.raises(SystemUnavailable):
        asked.wait_for_changes(0.1)
    impostor.close()


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5)
        | st.sampled_from(["10.64.0.67", "0x0210" + "20" * 16, "0xzz"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
            st.sampled_from(["leases", "ip-address", "state", "cltt", "valid-lft", "user-context",
                             "ISC", "relay-agent-info", "sub-options"]), inner, max_size=6),
    )
)  # fmt: skip
def test_any_lease_is_read_or_passed_over(lease: Any) -> None:
    """Not one of them ends the controller."""
    asked = system("/nowhere")
    found = asked._binding(lease)
    assert found is None or found.key.ipv4 == IPv4Address("192.0.2.1")
    known = lease_of(ONE, 0) | {"state": 0, "cltt": 1}
    for key in ("user-context", "state", "cltt", "valid-lft", "ip-address"):
        asked._binding(known | {key: lease})


@pytest.mark.parametrize(
    ("began", "end"),
    [("1e308", None), ("Infinity", None), (str(10**15), None), ("1000", 1060.0)],
)
def test_a_lease_that_ends_beyond_every_calendar_does_not_end(
    began: str, end: float | None
) -> None:
    """What ends is logged, with the time."""
    lease = lease_of(ONE, 0) | {"state": 0, "cltt": json.loads(began), "valid-lft": 60}
    found = system("/nowhere")._binding(lease)
    assert found is not None
    assert found.expires_at == end


def test_a_lease_that_ends_at_no_time_is_none() -> None:
    lease = lease_of(ONE, 0) | {"state": 0, "cltt": json.loads("NaN"), "valid-lft": 60}
    assert system("/nowhere")._binding(lease) is None


def test_leases_that_are_no_bindings(tmp_path: Path) -> None:
    """Declined ones, those of other subnets' clients, and those that name no lwB4."""
    with namespace() as name:
        place = server(tmp_path)
        made = Kea(tmp_path, kea_configurations(place, agent=False), name)
        made.start()
        try:
            for binding, changed in (
                (ONE, {"state": 1}), (TWO, {"user-context": {}}), (WHOLE, {}),
            ):  # fmt: skip
                number = int(binding.lwb4) & 0xFF
                arguments = lease_of(binding, number) | changed
                assert (
                    made.command({"command": "lease4-add", "arguments": arguments})["result"] == 0
                )
            asked = system(place.socket(4))
            assert list(asked.find([ONE.key, TWO.key, WHOLE.key])) == [WHOLE.key]
            assert asked.wait_for_changes(0) is None
            assert [b.key for b in all_of(asked)] == [WHOLE.key]
        finally:
            made.stop()


def test_changes_are_followed(kea: tuple[Kea, str]) -> None:
    server, endpoint = kea
    asked = system(endpoint, refresh=1)
    many = [
        replace(ONE, lwb4=ONE.lwb4 + n, ipv4=IPv4Address("192.0.2.9") + n // 64, psid=n % 64)
        for n in range(1200)
    ]  # more than two pages
    fill_kea(server, [ONE, *many])
    assert asked.wait_for_changes(0) is None
    assert {b.key for b in all_of(asked)} == {ONE.key, *(b.key for b in many)}
    assert asked.wait_for_changes(0.1) == []
    moved = replace(ONE, lwb4=IPv6Address("2001:db8:b4::77"))
    fill_kea(server, [moved, WHOLE, *many[:-1]])
    found: set[BindingKey] = set()

    def seen() -> bool:
        found.update(asked.wait_for_changes(0.1) or [])
        return bool(found)

    wait_for("the changes are seen", seen)
    assert found == {ONE.key, WHOLE.key, many[-1].key}
    assert [b.lwb4 for b in asked.changed([ONE.key, many[-1].key])] == [moved.lwb4]


def all_of(asked: KeaSystem) -> list[Binding]:
    return [binding for page in asked.pages() for binding in page]


def test_what_is_foreseen() -> None:
    (served,) = settings("kea:/x").instances
    validating = replace(served, failover=Failover.DATA_PACKET)
    table = BindingTable(LEASED)
    table.add(ONE)
    expired = replace(TWO, expires_at=5.0)
    assert foreseen([ONE, WHOLE, TWO], table, [validating], 10.0) == [WHOLE, TWO]
    assert foreseen([expired], table, [validating], 10.0) == []
    assert foreseen([WHOLE], table, [served], 10.0) == []
    assert LEASES.to_server(ONE.key) == IPv4Address("10.64.0.67")
    assert json.dumps(lease_of(ONE, 1))
