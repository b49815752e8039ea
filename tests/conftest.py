from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support import evidence, parallel
from tests.support.postgres import Postgres

pytest.register_assert_rewrite("tests.wire.scenario")

SYSTEM_FIXTURES = {
    "postgres",
    "ovs",
    "place",
    "lab",
    "network",
    "controller",
    "switch",
    "rig",
    "venv",
}
"""Fixtures that build a part of a network, or a machine: whoever uses one needs root."""

SYSTEM_FOLDERS = {
    "announce",
    "kernel_rig",
    "lab",
    "packaging",
    "provisioning",
    "store",
    "supporting",
    "wire",
}

_SOME = pytest.StashKey[bool]()  # whether some tests were left out
_MISSING = pytest.StashKey[list[str]]()
_TOLD = "lw4o6"  # what one of several processes tells the first one

settings.register_profile("dev", deadline=None)
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,  # a submission fails for what it changed, never by chance
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("fuzz", deadline=None, max_examples=20_000)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fail-on-skip", action="store_true", help="fail if a test was skipped")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    if os.geteuid() != 0:
        config.option.numprocesses = 0  # so that pytest_collection_finish is heard


def pytest_itemcollected(item: pytest.Item) -> None:
    folder = item.path.relative_to(Path(__file__).parent).parts[0]
    fixtures: set[str] = set(getattr(item, "fixturenames", ()))
    if folder in SYSTEM_FOLDERS or fixtures & SYSTEM_FIXTURES:
        item.add_marker(pytest.mark.system)


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.option.collectonly or os.geteuid() == 0:
        return
    wanting = sum(item.get_closest_marker("system") is not None for item in session.items)
    if wanting:
        pytest.exit(
            f"{wanting} of the {len(session.items)} tests build networks and need root. Run them "
            'as root (sudo make test), or the others alone: make test-fast, pytest -m "not system"',
            returncode=pytest.ExitCode.USAGE_ERROR,
        )


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        evidence.passed(report.nodeid)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    if items:
        items[0].config.stash[_SOME] = True


def _all_ran(session: pytest.Session) -> bool:
    """Whether this was a run of everything, and all of it passed."""
    asked = session.config.args
    return (
        asked in ([], session.config.getini("testpaths"))
        and not session.config.stash.get(_SOME, False)
        and not session.config.option.collectonly
        and session.exitstatus == pytest.ExitCode.OK
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for what in terminalreporter.config.stash.get(_MISSING, []):
        terminalreporter.write_line(f"MISSING: {what}", red=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> parallel.Lanes:
    return parallel.Lanes(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """One of several processes has ended: take over what it has seen."""
    told = getattr(node, "workeroutput", {_TOLD: ([], True)})
    moved, some = told[_TOLD]
    evidence.moved(moved)
    if some:
        node.config.stash[_SOME] = True


def pytest_sessionfinish(session: pytest.Session) -> None:
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:  # the first process judges, who started the others
        output[_TOLD] = evidence.seen_to_move(), session.config.stash.get(_SOME, False)
        return
    if _all_ran(session) and (missing := evidence.missing()):
        session.config.stash[_MISSING] = missing
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.option.fail_on_skip and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    directory = Path(tempfile.mkdtemp(prefix="lw4o6-postgres-"))
    directory.chmod(0o755)
    server = Postgres(directory)
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory)
