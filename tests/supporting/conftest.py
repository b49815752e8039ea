"""Every supporting system, real ones all of them, with a way to fill it."""

from __future__ import annotations

import contextlib
import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, cast

import pytest

from ryu_lw4o6.core import dhcpv4
from ryu_lw4o6.core.binding import Binding
from ryu_lw4o6.core.dhcpv4 import AgentOption
from ryu_lw4o6.core.leases import Leases
from ryu_lw4o6.core.settings import Settings
from ryu_lw4o6.core.settings import SupportingSystem as Source
from ryu_lw4o6.core.times import rfc3339
from ryu_lw4o6.provisioning import kea_config
from ryu_lw4o6.store import Store
from ryu_lw4o6.supporting import SupportingSystem, open_system
from ryu_lw4o6.supporting.kea import KeaSystem
from tests.rules.samples import PREFIXES, instance
from tests.support.kea import Kea, database, server
from tests.support.netns import inside, namespace
from tests.support.postgres import Postgres

NO_STORE = cast(Store, None)


LEASED = (replace(PREFIXES[0], leased_as=IPv4Network("10.64.0.0/18")), *PREFIXES[1:])


def settings(source: str, **fields: Any) -> Settings:
    served = replace(instance(), prefixes=LEASED)
    return Settings((served,), LEASED, (), supporting_system=Source(source, **fields))


@dataclass
class Backend:
    """``fill`` makes these bindings all there are. ``ends`` says how exactly a binding's end is
    kept."""

    system: SupportingSystem
    fill: Callable[[Sequence[Binding]], None]
    ends: Callable[[float], float] = float


@pytest.fixture(
    params=["sqlite", "postgresql", "csv", "json", "kea socket", "kea agent", "kea on postgresql"]
)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    if request.param.startswith("kea"):
        with _kea(request.param, request, tmp_path) as made:
            yield made
        return
    if request.param in ("csv", "json"):
        made = _file(tmp_path / f"bindings.{request.param}")
    elif request.param == "sqlite":
        made = _store(f"sqlite:///{tmp_path}/bindings.sqlite")
    else:
        made = _postgresql(request.getfixturevalue("postgres"))
    yield made
    made.system.close()


def _file(path: Path) -> Backend:
    write = _csv if path.suffix == ".csv" else _json

    def fill(bindings: Sequence[Binding]) -> None:
        new = path.with_suffix(".new")
        write(new, bindings)
        new.rename(path)

    return Backend(open_system(settings(str(path)), NO_STORE), fill)


def _csv(path: Path, bindings: Sequence[Binding]) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["lwb4", "ipv4", "psid", "br_address", "expires_at"])
        for b in bindings:
            end = "" if b.expires_at is None else b.expires_at
            rows.writerow([b.lwb4, b.ipv4, b.psid, b.br_address or "", end])


def _json(path: Path, bindings: Sequence[Binding]) -> None:
    """As REST lists them."""
    listed: list[dict[str, Any]] = [
        {
            "lwb4": str(b.lwb4), "ipv4": str(b.ipv4), "psid": b.psid,
            "psid_offset": b.params.psid_offset, "psid_length": b.params.psid_length,
            "br_address": b.br_address and str(b.br_address), "origin": "rest", "state": {},
            "expires_at": None if b.expires_at is None else rfc3339(b.expires_at),
        }
        for b in bindings
    ]  # fmt: skip
    path.write_text(json.dumps({"total": len(listed), "bindings": listed}))


def _store(url: str) -> Backend:
    def fill(bindings: Sequence[Binding]) -> None:
        store = Store(url)
        old = [binding.key for binding in store.load().bindings]
        store.save(bindings, old)
        store.close()

    return Backend(open_system(settings(url), NO_STORE), fill)


def _postgresql(server: Postgres) -> Backend:
    server.sql("drop schema public cascade; create schema public")
    return _store(server.url)


@contextlib.contextmanager
def _kea(kind: str, request: pytest.FixtureRequest, directory: Path) -> Iterator[Backend]:
    with namespace() as name, inside(name):
        fields: dict[str, Any] = {}
        if kind == "kea on postgresql":
            fields["database"] = database(request.getfixturevalue("postgres"))
        place = server(directory, **fields)
        kea = Kea(directory, kea_configurations(place, agent=kind == "kea agent"), name)
        kea.start()
        endpoint = "http://127.0.0.1:8000" if kind == "kea agent" else place.socket(4)
        try:
            yield Backend(
                KeaSystem(endpoint, settings(endpoint)),
                lambda bindings: fill_kea(kea, bindings),
                math.floor,
            )
        finally:
            kea.stop()


def kea_configurations(place: kea_config.KeaServer, *, agent: bool) -> dict[str, Any]:
    """A kea-dhcp4 that has no clients, only leases."""
    dhcp4: dict[str, Any] = kea_config.dhcp4(settings("x"), place)
    dhcp4["Dhcp4"]["interfaces-config"] = {"interfaces": []}
    dhcp4["Dhcp4"]["subnet4"] = [
        {"id": number, "subnet": str(network)}
        for number, network in enumerate(LEASES.networks.values(), 1)
    ]
    found = {"dhcp4": dhcp4}
    return found | ({"agent": kea_config.control_agent(place)} if agent else {})


LEASES = Leases(LEASED)


def fill_kea(kea: Kea, bindings: Sequence[Binding]) -> None:
    for lease in kea.leases():
        assert (
            kea.command(
                {"command": "lease4-del", "arguments": {"ip-address": lease["ip-address"]}}
            )["result"]
            == 0
        )
    for number, binding in enumerate(bindings):
        answer = kea.command({"command": "lease4-add", "arguments": lease_of(binding, number)})
        assert answer["result"] == 0, answer


def lease_of(binding: Binding, number: int) -> dict[str, Any]:
    """A lease as the relay would have had it made."""
    agent: dict[int, bytes] = {AgentOption.REMOTE_ID: binding.lwb4.packed}
    if binding.br_address is not None:
        agent[AgentOption.CIRCUIT_ID] = binding.br_address.packed
    leased = LEASES.to_server(binding.key)
    assert leased is not None
    subnet = next(n for n, net in enumerate(LEASES.networks.values(), 1) if leased in net)
    lease = {
        "ip-address": str(leased), "subnet-id": subnet,
        "client-id": number.to_bytes(5, "big").hex(":"),
        "hw-address": f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}",
        "user-context": {"ISC": {"relay-agent-info": f"0x{dhcpv4.pack_agent(agent).hex()}"}},
        "valid-lft": dhcpv4.INFINITE if binding.expires_at is None else 3600,
    }  # fmt: skip
    if binding.expires_at is not None:
        lease["expire"] = math.floor(binding.expires_at)
    return lease
