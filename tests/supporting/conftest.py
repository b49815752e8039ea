"""Every supporting system, real ones all of them, with a way to fill it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from ryu_lw4o6.core.binding import Binding
from ryu_lw4o6.core.settings import Settings
from ryu_lw4o6.core.settings import SupportingSystem as Source
from ryu_lw4o6.core.times import rfc3339
from ryu_lw4o6.store import Store
from ryu_lw4o6.supporting import SupportingSystem, open_system
from tests.rules.samples import PREFIXES, instance
from tests.support.postgres import Postgres

NO_STORE = cast(Store, None)


def settings(source: str) -> Settings:
    return Settings((instance(),), PREFIXES, (), supporting_system=Source(source))


@dataclass
class Backend:
    """``fill`` makes these bindings all there are."""

    system: SupportingSystem
    fill: Callable[[Sequence[Binding]], None]


@pytest.fixture(params=["sqlite", "postgresql", "csv", "json"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
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
