"""What several ``lw4o6`` commands share: reading the configuration and choosing instances."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ryu_lw4o6.core.config import ConfigError, Problem, load
from ryu_lw4o6.core.settings import Instance, Settings

SHOWN_PROBLEMS = 100


def add_instance_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="configuration file")
    parser.add_argument("--instance", metavar="NAME", help="only this instance (default: all)")


def read(path: Path) -> Settings:
    """The configuration, or the end of the program with every problem printed."""
    try:
        return load(path)
    except ConfigError as error:
        print(described(path, error.problems), file=sys.stderr)
        raise SystemExit(1) from None


def described(path: Path, problems: list[Problem]) -> str:
    """What is wrong with a configuration file, a line for each problem."""
    lines = [str(problem) for problem in problems[:SHOWN_PROBLEMS]]
    if len(problems) > SHOWN_PROBLEMS:
        lines.append(f"... and {len(problems) - SHOWN_PROBLEMS} more")
    count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
    return "\n".join([*lines, f"{path}: {count}; nothing was applied"])


def instances(args: argparse.Namespace) -> list[Instance]:
    """The instances that ``--instance`` names, all without it."""
    settings = read(args.file)
    if args.instance is None:
        return list(settings.instances)
    chosen = [i for i in settings.instances if i.name == args.instance]
    if not chosen:
        names = ", ".join(i.name for i in settings.instances)
        print(f"{args.file} has no instance {args.instance!r}; it has {names}", file=sys.stderr)
        raise SystemExit(1)
    return chosen
