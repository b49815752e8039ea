"""``lw4o6 kea-config FILE``: configurations for Kea that fit ours."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from ryu_lw4o6.cli_support import read
from ryu_lw4o6.core.binding import Binding, BindingKey
from ryu_lw4o6.core.settings import Settings
from ryu_lw4o6.provisioning import kea_config
from ryu_lw4o6.provisioning.kea_config import KeaServer

SERVICES = ("dhcp4", "dhcp6", "ctrl-agent")


def register(subparsers: Any) -> None:
    """Add the command to ``lw4o6``."""
    parser = subparsers.add_parser(
        "kea-config",
        help="print configurations for Kea, the DHCP server",
        description="Print the configuration of a Kea server for the relays of a configuration "
        "file: a start, to be completed with what else the server is to know.",
    )
    default = KeaServer()
    parser.add_argument("file", type=Path, metavar="FILE", help="configuration file")
    parser.add_argument("service", choices=SERVICES, help="which of Kea's programs")
    parser.add_argument(
        "--interface", default=default.interface, help="that relays reach it by (%(default)s)"
    )
    parser.add_argument(
        "--lease-seconds", type=_lease_seconds, default=default.lease_seconds, metavar="N",
        help="how long leases last (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--relay", action="append", default=[], type=IPv6Address, metavar="ADDRESS",
        help="another lwAFTR's relay for the same prefixes, such as the backup's; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--softwire", action="append", default=[], metavar="DUID=IPV4/PSID",
        help="have dhcp6 tell the lwB4 with this DUID its static binding (RFC 7598); may be "
        "repeated",
    )  # fmt: skip
    parser.set_defaults(func=run)


def _lease_seconds(text: str) -> int:
    """DHCP counts in 32 bits, and the largest number means that there is no end."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**32):
        raise argparse.ArgumentTypeError(f"{text!r} is out of range; use 1 to {2**32 - 1}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    settings = read(args.file)
    server = KeaServer(args.interface, lease_seconds=args.lease_seconds, relays=tuple(args.relay))
    if not any(instance.dhcp for instance in settings.instances):
        print(f"{args.file}: no instance has dhcp. Add dhcp: {{server: ...}}", file=sys.stderr)
        return 1
    if args.softwire and args.service != "dhcp6":
        print(f"--softwire: goes with dhcp6, not with {args.service}", file=sys.stderr)
        return 1
    try:
        softwires = _softwires(args.softwire, settings)
    except ValueError as error:
        print(f"--softwire: {error}", file=sys.stderr)
        return 1
    made = {
        "dhcp4": lambda: kea_config.dhcp4(settings, server),
        "dhcp6": lambda: kea_config.dhcp6(settings, server, softwires),
        "ctrl-agent": lambda: kea_config.control_agent(server),
    }[args.service]()
    print(json.dumps(made, indent=2))
    return 0


def _softwires(given: Sequence[str], settings: Settings) -> dict[str, Binding]:
    """The static bindings that are named, by DUID. Raises ValueError."""
    by_key = {binding.key: binding for binding in settings.bindings}
    found: dict[str, Binding] = {}
    for text in given:
        duid, _, where = text.partition("=")
        ipv4, _, psid = where.partition("/")
        try:
            bytes.fromhex(duid.replace(":", ""))
            key = BindingKey(IPv4Address(ipv4), int(psid or 0))
        except ValueError:
            raise ValueError(
                f"{text!r} is not DUID=IPV4/PSID, such as 00:03:00:01:02:00:00:00:00:b4=192.0.2.1/3"
            ) from None
        if key not in by_key:
            raise ValueError(f"{key} is no static binding of the configuration")
        found[duid] = by_key[key]
    return found
