"""``lw4o6 switch up|down|status FILE``: the Open vSwitch bridge of an instance."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any

from ryu_lw4o6 import switch
from ryu_lw4o6.cli_support import add_instance_arguments, instances
from ryu_lw4o6.softwire.commands import ShimError


def register(subparsers: Any) -> None:
    """Add the command to ``lw4o6``."""
    parser = subparsers.add_parser(
        "switch",
        help="build, take apart or show the Open vSwitch bridge",
        description="The bridge of an instance: its ports, addresses, route and softwire shim.",
    )
    actions = parser.add_subparsers(dest="action", required=True)
    for name, text in (
        ("up", "build the bridge, or bring it in line"),
        ("down", "take the bridge apart"),
        ("status", "show what there is"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        add_instance_arguments(action)
        if name == "up":
            action.add_argument(
                "--controller", type=_target, default=switch.DEFAULT_CONTROLLER, metavar="TARGET",
                help="the controller's OpenFlow address (default: %(default)s)",
            )  # fmt: skip
        action.set_defaults(func=run)


def _target(text: str) -> str:
    """What ovs-vsctl would take for a controller; it takes anything, and nobody connects."""
    if not re.fullmatch(r"(tcp|ssl):(\[[0-9A-Fa-f:.%]+\]|[^\[\]:]+):\d{1,5}|unix:.+", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no address of a controller; write it like {switch.DEFAULT_CONTROLLER}"
        )
    return text


def run(args: argparse.Namespace) -> int:
    result = 0
    for instance in instances(args):
        try:
            if args.action == "up":
                switch.up(instance, args.controller)
                print(f"{instance.name}: bridge {instance.bridge} is up")
            elif args.action == "down":
                switch.down(instance)
                print(f"{instance.name}: bridge {instance.bridge} is gone")
            else:
                print(f"{instance.name}:")
                for row in switch.status(instance):
                    print(f"  {row.what:<16} {row.state}")
                    result |= not row.good
        except (switch.SwitchSetupError, ShimError) as error:
            print(f"lw4o6 switch: {instance.name}: {error}", file=sys.stderr)
            result = 1
    return result
