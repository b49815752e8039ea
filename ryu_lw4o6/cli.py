"""The ``lw4o6`` command."""

from __future__ import annotations

import argparse
import os
import sys

from ryu_lw4o6 import __version__, check_config, drain_cli, pipeline_cli, switch_cli
from ryu_lw4o6.provisioning import kea_cli
from ryu_lw4o6.softwire import cli as softwire_cli

COMMANDS = (check_config, drain_cli, kea_cli, pipeline_cli, softwire_cli, switch_cli)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="lw4o6", description="A lightweight 4over6 border relay (lwAFTR) on Open vSwitch."
    )
    top.add_argument("--version", action="version", version=f"lw4o6 {__version__}")
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND")
    for command in COMMANDS:
        command.register(subparsers)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns its exit status: 0 done, 1 a problem was printed, 2 usage."""
    top = parser()
    args = top.parse_args(argv)
    if not hasattr(args, "func"):
        top.print_help()
        return 2
    try:
        status: int = args.func(args)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has had enough; keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
