"""``lw4o6 pipeline [FILE]``: the tables and flows, printed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from openflow_rules import describe
from ryu_lw4o6.core.config import ConfigError, load


def register(subparsers: Any) -> None:
    """Add the command to ``lw4o6``."""
    parser = subparsers.add_parser(
        "pipeline",
        help="print the OpenFlow pipeline",
        description="Print the tables and flows of an instance, or of an example without FILE.",
    )
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="configuration file")
    parser.add_argument("--instance", metavar="NAME", help="which instance (default: the first)")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    if args.file is None:
        print(describe.page(), end="")
        return 0
    try:
        settings = load(args.file)
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 1
    names = {instance.name: instance for instance in settings.instances}
    name = args.instance or next(iter(names))
    if name not in names:
        print(
            f"lw4o6 pipeline: no instance {name!r} in {args.file}; it has {', '.join(names)}",
            file=sys.stderr,
        )
        return 1
    print(describe.page(names[name]), end="")
    return 0
