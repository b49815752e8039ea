"""Coverage-guided fuzzing with atheris: ``python -m tests.fuzz TARGET [libFuzzer options]``.

.venv/bin/python -m tests.fuzz punt -max_total_time=600
"""

from __future__ import annotations

import importlib
import sys

import atheris

TARGETS = {
    "punt": ("tests.fuzz.punt", "frame_is_answered"),
}
"""By name: the module, and its function that takes bytes and raises when something is wrong."""


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz {{{','.join(TARGETS)}}} [libFuzzer options]")
    module, function = TARGETS[sys.argv.pop(1)]
    with atheris.instrument_imports(include=["ryu_lw4o6", "openflow_rules"]):
        target = getattr(importlib.import_module(module), function)
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
