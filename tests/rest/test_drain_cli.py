"""``lw4o6 drain`` against a real server, and against none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ryu_lw4o6 import cli
from tests.rest.test_server import port, server

__all__ = ["port", "server"]


def drain(port: int, *words: str) -> int:
    return cli.main([*words, "--url", f"http://127.0.0.1:{port}"])


def test_drain_and_undrain(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert drain(port, "drain", "lwaftr1") == 0
    assert capsys.readouterr().out.startswith("lwaftr1: drained")
    assert drain(port, "undrain", "lwaftr1") == 0
    assert capsys.readouterr().out.startswith("lwaftr1: not drained")


def test_an_instance_that_is_not_there(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert drain(port, "drain", "nobody") == 1
    assert "there is no instance 'nobody'; there is lwaftr1, lwaftr2" in capsys.readouterr().err


def test_a_controller_that_is_not_there() -> None:
    # In a process of its own: eventlet, which others here use, has another word for it.
    lw4o6 = Path(sys.executable).with_name("lw4o6")
    done = subprocess.run(
        [lw4o6, "drain", "lwaftr1", "--url", "http://127.0.0.1:1"], capture_output=True, text=True
    )
    assert done.returncode == 1
    said = "no answer from http://127.0.0.1:1: Connection refused. Is the controller running?\n"
    assert done.stderr == said


@pytest.mark.parametrize("url", ["https://127.0.0.1", "nonsense", "http://", "http://h:99999"])
def test_a_url_that_is_none(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["drain", "lwaftr1", "--url", url]) == 1
    said = f"{url} is no URL of a controller. Write it like http://127.0.0.1:8080\n"
    assert capsys.readouterr().err == said


def test_a_token_file_that_is_none(
    port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token"
    assert drain(port, "drain", "lwaftr1", "--token-file", str(file)) == 1
    assert capsys.readouterr().err == f"{file} cannot be read: No such file or directory\n"
    file.write_bytes(b"\xff\n")
    assert drain(port, "drain", "lwaftr1", "--token-file", str(file)) == 1
    assert capsys.readouterr().err == f"{file} has no bearer token: it is not ASCII\n"
