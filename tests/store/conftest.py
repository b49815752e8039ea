from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.postgres import Postgres


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store, of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/bindings.sqlite"
    server: Postgres = request.getfixturevalue("postgres")
    server.sql("drop schema public cascade; create schema public")
    return server.url
