"""Each target, as it is fuzzed: a short run, from an empty corpus."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import __main__ as fuzz

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_a_short_run(target: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", target, "-runs=3000", "-max_len=400", "-seed=1",
         f"-artifact_prefix={tmp_path}/"],
        cwd=ROOT, capture_output=True, text=True, timeout=150,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done 3000 runs" in done.stderr
