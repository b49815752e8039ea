"""Supporting systems that are broken, and then mended."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ryu_lw4o6.core.binding import Binding
from ryu_lw4o6.core.config import ConfigError, bindings_of
from ryu_lw4o6.store import Store
from ryu_lw4o6.supporting import SystemUnavailable, open_system
from tests.support.ovs import wait_for
from tests.support.postgres import Postgres
from tests.supporting.conftest import NO_STORE, settings
from tests.supporting.test_conformance import ONE

HEADER = "lwb4,ipv4,psid,expires_at\n"
ROW = "2001:db8:b4::1,192.0.2.1,3,\n"


@pytest.mark.parametrize("name", ["none.csv", "none.json"])
def test_a_file_that_is_not_there_is_unavailable_until_it_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    system = open_system(settings(str(path)), NO_STORE)
    with pytest.raises(SystemUnavailable, match="was never read whole"):
        system.find([ONE.key])
    path.write_text(HEADER + ROW if name.endswith("csv") else "[]")
    system.find([ONE.key])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (HEADER + ROW + "2001:db8:b4::2,192.0.2.1,64,\n",
         "bindings.csv:3: PSID 64 is out of range"),
        (HEADER + ROW + ROW, "bindings.csv:3: 192.0.2.1 PSID 3 is bound already (line 2)"),
        (HEADER + "2001:db8:b4::2,192.0.2.1,3,soon\n",
         "bindings.csv:2: expires_at: 'soon' is no date and time"),
        (HEADER + "2001:db8:b4::2,192.0.2.1,3,1798761599000\n",  # milliseconds
         "bindings.csv:2: expires_at: '1798761599000' is no date and time"),
        ("lwb4,ipv4,color\n", "bindings.csv:1: unknown column 'color'"),
        ("", "bindings.csv:1: the file is empty"),
        (HEADER + "192.0.2.1,192.0.2.1,3,\n", "bindings.csv:2: lwb4: 192.0.2.1 is IPv4"),
    ],
)  # fmt: skip
def test_a_file_with_a_mistake_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: str, said: str
) -> None:
    path = tmp_path / "bindings.csv"
    path.write_text(HEADER + ROW)
    system = open_system(settings(str(path)), NO_STORE)
    assert ONE.key in system.find([ONE.key])
    path.write_text(wrong)
    with caplog.at_level(logging.ERROR):
        assert ONE.key in system.find([ONE.key])
    assert said in caplog.text
    path.write_text(HEADER)
    assert system.find([ONE.key]) == {}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ('[{"lwb4": "2001:db8:b4::1", "ipv4": "192.0.2.1", "psid": 64}]',
         "bindings.json: bindings[0]: PSID 64 is out of range"),
        ('[{"lwb4": "2001:db8:b4::1", "psid": 4}]', "bindings[0].ipv4: "),
        ('[{"lwb4": "2001:db8:b4::1", "ipv4": "192.0.2.1", "psdi": 4}]',
         "bindings[0]: unknown field 'psdi'. Did you mean psid?"),
        ("[7]", "bindings[0]: not an object"),
        ('{"bindings": 7}', "not a list of bindings"),
        ("[", "bindings.json:1: not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
    ids=str,
)  # fmt: skip
def test_json_with_a_mistake(tmp_path: Path, wrong: str, said: str) -> None:
    path = tmp_path / "bindings.json"
    path.write_text(wrong)
    with pytest.raises(ConfigError) as caught:
        bindings_of(path, settings(str(path)))
    assert any(said in str(problem) for problem in caught.value.problems), caught.value.problems


@pytest.mark.parametrize("suffix", [".csv", ".json"])
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(data=st.data())
def test_any_file_is_read_or_refused(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    text = data.draw(
        st.one_of(
            st.text(max_size=200),
            st.lists(
                st.sampled_from(
                    ["lwb4", "ipv4", "psid", "br_address", "expires_at", ",", "\n", '"', "[", "]",
                     "{", "}", ":", "192.0.2.1", "2001:db8::1", "3", "1e999", "-1", "null", "NaN",
                     "2026-13-01", "true"]
                ),
                max_size=40,
            ).map("".join),
        )
    )  # fmt: skip
    path = tmp_path / f"bindings{suffix}"
    path.write_text(text, errors="surrogatepass")
    with contextlib.suppress(ConfigError):
        bindings_of(path, settings(str(path)))


def fill(url: str, *bindings: Binding) -> None:
    store = Store(url)
    store.save(bindings, [binding.key for binding in store.load().bindings])
    store.close()


def test_a_database_file_that_another_one_has_replaced(tmp_path: Path) -> None:
    """Whoever fills it makes a new one and renames it."""
    url, new = (f"sqlite:///{tmp_path}/{name}.sqlite" for name in ("system", "new"))
    fill(url, ONE)
    system = open_system(settings(url), NO_STORE)
    assert system.wait_for_changes(0) is None
    assert system.find([ONE.key])[ONE.key].lwb4 == ONE.lwb4
    moved = replace(ONE, lwb4=IPv6Address("2001:db8:b4::7"))
    fill(new, moved)
    (tmp_path / "new.sqlite").replace(tmp_path / "system.sqlite")
    with pytest.raises(SystemUnavailable, match="not the one that was there before"):
        system.wait_for_changes(0)
    assert system.wait_for_changes(0) is None
    assert system.find([ONE.key])[ONE.key].lwb4 == moved.lwb4
    system.close()


def test_postgresql_killed_and_restarted(postgres: Postgres) -> None:
    postgres.sql("drop schema public cascade; create schema public")
    fill(postgres.url, ONE)
    system = open_system(settings(postgres.url), NO_STORE)
    assert ONE.key in system.find([ONE.key])
    postgres.kill()
    started = time.monotonic()
    with pytest.raises(SystemUnavailable) as caught:
        system.find([ONE.key])
    assert time.monotonic() - started < 5
    assert caught.value.suggestion
    postgres.start()
    wait_for("it answers again", lambda: _answers(system), 20)
    moved = replace(ONE, lwb4=IPv6Address("2001:db8:b4::7"))
    fill(postgres.url, moved)
    assert system.find([ONE.key])[ONE.key].lwb4 == moved.lwb4
    system.close()


def test_postgresql_that_starts_later(postgres: Postgres) -> None:
    fill(postgres.url, ONE)
    postgres.kill()
    system = open_system(settings(postgres.url), NO_STORE)
    with pytest.raises(SystemUnavailable):
        system.find([ONE.key])
    postgres.start()
    wait_for("it answers", lambda: _answers(system), 20)
    system.close()


def _answers(system: object) -> bool:
    try:
        return ONE.key in system.find([ONE.key])  # type: ignore[attr-defined]
    except SystemUnavailable:
        return False
