"""The wheel, as a stranger gets it: built, installed into an empty environment, and started."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ryu_lw4o6
from tests.support.netns import inside, namespace
from tests.support.ovs import wait_for

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
REST, OPENFLOW = "127.0.0.1:8080", "127.0.0.1:6653"

pytestmark = pytest.mark.timeout(600)  # the first time, packages are downloaded


def run(*command: object, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **kwargs)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment that has the wheel and what it needs, no more."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", folder)
    variables = ("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT")  # relative: pip splits them at spaces
    environment = {**os.environ, **dict.fromkeys(variables, "constraints.txt")}
    pip = folder / "bin" / "pip"
    run(pip, "install", "-q", "--use-pep517", wheel, cwd=ROOT, env=environment)
    return folder / "bin"


def elsewhere(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run outside the checkout, so that nothing is imported from there. Not a word of complaint
    may be printed."""
    done = run(*command, cwd=cwd, timeout=60)
    assert done.stderr == ""
    return done


def test_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {
        "ryu_lw4o6",
        "openflow_rules",
        "rest",
        "topo",
        "_lw4o6_startup.pth",
        "_lw4o6_startup.py",
        f"ryu_lw4o6-{ryu_lw4o6.__version__}.dist-info",
    }
    assert "ryu_lw4o6/softwire/softwire.bpf.c" in names
    assert any(name.endswith("/LICENSE") for name in names)
    assert any(name.endswith("/GPL-2.0-only.txt") for name in names)


def test_commands(venv: Path, tmp_path: Path) -> None:
    done = elsewhere(venv / "lw4o6", "--version", cwd=tmp_path)
    assert done.stdout == f"lw4o6 {ryu_lw4o6.__version__}\n"
    for command in ("lw4o6-lab", "lw4o6-lwb4"):
        assert f"usage: {command}" in elsewhere(venv / command, "--help", cwd=tmp_path).stdout


def test_ryu_manager_has_our_option(venv: Path, tmp_path: Path) -> None:
    done = elsewhere(venv / "ryu-manager", "--help", cwd=tmp_path)
    assert "--lw4o6-config FILE" in done.stdout


def test_everything_can_be_imported(venv: Path, tmp_path: Path) -> None:
    code = """
import importlib, pkgutil, sysconfig
for package in ("ryu_lw4o6", "openflow_rules", "rest", "topo"):
    top = importlib.import_module(package)
    assert top.__file__.startswith(sysconfig.get_path("purelib")), top.__file__
    for module in pkgutil.walk_packages(top.__path__, package + "."):
        importlib.import_module(module.name)
"""
    elsewhere(venv / "python", "-c", code, cwd=tmp_path)


def test_start_up_hook_leaves_other_programs_alone(venv: Path, tmp_path: Path) -> None:
    code = "import sys; print([m for m in sys.modules if m.split('.')[0] in ('eventlet', 'ryu')])"
    assert elsewhere(venv / "python", "-c", code, cwd=tmp_path).stdout == "[]\n"
    # What Python itself imports at start-up, and our one module.
    code = "import sys; print(*sys.modules)"
    with_hook = elsewhere(venv / "python", "-c", code, cwd=tmp_path).stdout.split()
    hook = venv.parent / "lib" / "python3.11" / "site-packages" / "_lw4o6_startup.pth"
    hidden = hook.rename(hook.with_suffix(".hidden"))
    try:
        without_hook = elsewhere(venv / "python", "-c", code, cwd=tmp_path).stdout.split()
    finally:
        hidden.rename(hook)
    assert set(with_hook) - set(without_hook) == {"_lw4o6_startup"}


def test_a_fault_in_the_start_up_hook_is_printed_not_raised(venv: Path, tmp_path: Path) -> None:
    fake = tmp_path / "ryu"
    fake.mkdir()
    for name in ("__init__.py", "cfg.py"):
        (fake / name).touch()
    done = run(venv / "python", "-c", "import ryu.cfg; print('alive')", cwd=tmp_path)
    assert done.stdout == "alive\n"
    assert done.stderr.startswith("ryu-lw4o6 start-up hook: ryu.cfg: AttributeError")


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The example configuration, with its store in a place of its own."""
    text = (EXAMPLES / "lw4o6.yaml").read_text()
    store = "sqlite:////var/lib/lw4o6/bindings.sqlite"
    assert store in text
    copy = tmp_path / "lw4o6.yaml"
    copy.write_text(text.replace(store, f"sqlite:///{tmp_path}/bindings.sqlite"))
    (tmp_path / "bindings.csv").write_bytes((EXAMPLES / "bindings.csv").read_bytes())
    return copy


@contextlib.contextmanager
def ryu_manager(venv: Path, config: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    log = config.with_name("ryu-manager.log")
    apps = ("ryu_lw4o6.app", "rest.app")
    with log.open("w") as output:
        process = subprocess.Popen(
            [venv / "ryu-manager", *apps, "--lw4o6-config", config],
            stdout=output, stderr=subprocess.STDOUT, text=True, cwd=config.parent,
        )  # fmt: skip
    try:
        yield process, log
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError("ryu-manager did not end within 10 s of SIGINT") from None


def listeners() -> set[str]:
    """ADDRESS:PORT of everything that listens in this network namespace."""
    return {line.split()[4] for line in run("ss", "-Hltnu").stdout.splitlines()}


def test_controller_runs_and_listens_on_loopback_only(venv: Path, example: Path) -> None:
    # In a network namespace of its own the default ports are free, and nobody else listens.
    with namespace() as name, inside(name), ryu_manager(venv, example) as (process, log):

        def up() -> bool:
            assert process.poll() is None, log.read_text()
            return {REST, OPENFLOW} <= listeners()

        wait_for("REST and OpenFlow listen", up, 60)
        assert listeners() == {REST, OPENFLOW}

        connection = http.client.HTTPConnection(REST, timeout=10)
        connection.request("GET", "/v1")
        response = connection.getresponse()
        assert response.status == 200, log.read_text()
        assert json.load(response)["version"] == ryu_lw4o6.__version__
        connection.close()
        said = log.read_text()
        assert "Traceback" not in said
        assert "monkey_patch" not in said  # eventlet complains of nothing
