"""Coverage-guided fuzzing with atheris: ``python -m tests.fuzz [TARGET [libFuzzer options]]``.

.venv/bin/python -m tests.fuzz punt -max_total_time=600

Without a target each gets ``RUNS`` inputs, one target after the other.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile

import atheris

TARGETS = {
    "dhcpv4": ("tests.fuzz.dhcp", "dhcpv4_is_read"),
    "dhcpv6": ("tests.fuzz.dhcp", "dhcpv6_is_read"),
    "dhcp-relay": ("tests.fuzz.dhcp_relay", "datagrams_are_relayed"),
    "lwb4-errors": ("tests.fuzz.lwb4", "error_is_judged"),
    "lwb4-answers": ("tests.fuzz.lwb4", "answer_is_heard"),
    "pcp": ("tests.fuzz.pcp", "message_is_read"),
    "pcp-server": ("tests.fuzz.pcp", "requests_are_served"),
    "punt": ("tests.fuzz.punt", "frame_is_answered"),
    "slow-path": ("tests.fuzz.slow_path", "any_sequence"),
    "tunnel-icmp": ("tests.fuzz.tunnel_icmp", "error_is_read"),
}
"""By name: the module, and its function that takes bytes and raises when something is wrong."""
RUNS = 1_000_000


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(run_all())
    if sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz [{{{','.join(TARGETS)}}} [libFuzzer options]]")
    module, function = TARGETS[sys.argv.pop(1)]
    with atheris.instrument_imports(include=["ryu_lw4o6", "openflow_rules", "topo.lwb4"]):
        target = getattr(importlib.import_module(module), function)
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


def run_all(runs: int = RUNS) -> int:
    """Give every target ``runs`` inputs; the number of those that failed. What made one fail is
    left in the current directory."""
    failed = 0
    for target in TARGETS:
        with tempfile.TemporaryDirectory() as corpus:
            command = [sys.executable, "-m", "tests.fuzz", target, f"-runs={runs}", corpus]
            done = subprocess.run([*command, "-max_len=1200", "-verbosity=0"])
        good = done.returncode == 0
        failed += not good
        print(f"{'ok    ' if good else 'FAILED'}  {target}: {runs} inputs", flush=True)
    return failed


if __name__ == "__main__":
    main()
