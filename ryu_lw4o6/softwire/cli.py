"""``lw4o6 softwire attach|detach|status FILE``: the shim on the NICs of an instance."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from ryu_lw4o6.cli_support import add_instance_arguments, instances
from ryu_lw4o6.core.settings import Instance
from ryu_lw4o6.softwire import shim
from ryu_lw4o6.softwire.commands import ShimError


def register(subparsers: Any) -> None:
    """Add the command to ``lw4o6``."""
    parser = subparsers.add_parser(
        "softwire",
        help="attach, detach or show the softwire shim",
        description="The softwire shim turns IPv4-in-IPv6 on the wire into what Open vSwitch "
        "reads. lw4o6 switch up attaches it as well.",
    )
    actions = parser.add_subparsers(dest="action", required=True)
    for name, text in (
        ("attach", "attach the shim, or bring an attached one up to date"),
        ("detach", "take the shim off the NICs"),
        ("status", "show what is attached, the addresses it serves and its counters"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        add_instance_arguments(action)
        if name == "status":
            action.add_argument("--json", action="store_true", help="print JSON")
        action.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    result = 0
    reports = []
    for instance in instances(args):
        try:
            if args.action == "attach":
                shim.attach(instance)
                print(f"{instance.name}: attached to {instance.ipv6.port} and {instance.ipv4.port}")
            elif args.action == "detach":
                shim.detach(instance)
                print(f"{instance.name}: detached")
            else:
                found = shim.status(instance)
                if args.json:
                    reports.append(_report(instance, found))
                else:
                    _show(instance, found)
                result |= not found.attached
        except ShimError as error:
            print(f"lw4o6 softwire: {instance.name}: {error}", file=sys.stderr)
            result = 1
    if args.action == "status" and args.json:
        print(json.dumps(reports, indent=2))
    return result


def _report(instance: Instance, status: shim.ShimStatus) -> dict[str, Any]:
    report = dataclasses.asdict(status)
    report["addresses"] = [str(address) for address in status.addresses]
    return {"instance": instance.name, "attached": status.attached} | report


def _show(instance: Instance, status: shim.ShimStatus) -> None:
    print(f"{instance.name}:")
    for hook in status.hooks:
        state = "attached" if hook.attached else "MISSING"
        mode = f" ({hook.mode})" if hook.mode else ""
        place = f"{hook.hook.device:<15} {hook.hook.kind:<8} {hook.hook.program:<14}"
        print(f"  {place} {state}{mode}")
    if status.attached and not status.current:
        print("  another version is attached; lw4o6 softwire attach replaces it")
    print(f"  addresses: {', '.join(map(str, status.addresses)) or 'none'}")
    for name, value in status.counters.items():
        print(f"  {name:<24} {value:>16,}")
