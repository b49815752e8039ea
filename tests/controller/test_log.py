"""The controller's log, as an operator reads it: in a file, and in systemd's journal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SAID = """
import logging
from ryu import cfg, log
cfg.CONF([])
log.early_init_log(logging.DEBUG)
log.init_log()
import ryu_lw4o6.log
ryu_lw4o6.log.install()
said = logging.getLogger("any")
said.debug("not shown")
said.info("one event\\nanother event")
said.warning("100 %")
said.error("wrong: %s", "a\\nb")
"""


def say(said: Path, environment: dict[str, str]) -> list[str]:
    with said.open("w") as output:
        subprocess.run([sys.executable, "-c", SAID], env=environment, stderr=output, check=True)
    return said.read_text().splitlines()


def test_each_line_has_time_and_level(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "JOURNAL_STREAM"}
    lines = say(tmp_path / "log", environment)
    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "
    assert all(re.match(moment, line) for line in lines), lines
    assert [re.sub(moment, "", line) for line in lines] == [
        "INFO one event", "INFO another event", "WARNING 100 %", "ERROR wrong: a", "ERROR b",
    ]  # fmt: skip


@pytest.mark.parametrize("is_journal", [True, False])
def test_the_journal_is_told_the_level(tmp_path: Path, is_journal: bool) -> None:
    said = tmp_path / "log"
    said.touch()
    stat = said.stat()
    # By this systemd says which file is the journal: a redirected standard error is not.
    inode = stat.st_ino if is_journal else stat.st_ino + 1
    lines = say(said, {**os.environ, "JOURNAL_STREAM": f"{stat.st_dev}:{inode}"})
    assert len(lines) == 5
    if is_journal:  # sd-daemon(3): 6 is informational, 4 a warning, 3 an error
        assert lines == ["<6>one event", "<6>another event", "<4>100 %", "<3>wrong: a", "<3>b"]
    else:
        assert "INFO one event" in lines[0]
