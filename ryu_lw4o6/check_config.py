"""``lw4o6 check-config FILE``: what the controller would say of a configuration, without it."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from pathlib import Path
from typing import Any

from ryu_lw4o6.cli_support import read
from ryu_lw4o6.core.pool import AddressPool


def register(subparsers: Any) -> None:
    """Add the command to ``lw4o6``."""
    parser = subparsers.add_parser(
        "check-config",
        help="check a configuration file",
        description="Print every problem of a configuration file, or a summary of what it says.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="configuration file")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    settings = read(args.file)
    by_prefix = Counter(
        str(prefix.network)
        for binding in settings.bindings
        for prefix in settings.prefixes
        if binding.ipv4 in prefix.network
    )
    print(f"{args.file}: correct")
    for prefix in settings.prefixes:
        params = prefix.params
        kind = (
            f"PSID offset {params.psid_offset}, length {params.psid_length}: "
            f"{params.psid_count} port sets of {params.port_count()} ports"
            if params.shared
            else "full addresses"
        )
        count = by_prefix[str(prefix.network)]
        static = f"{count} static binding{'s' if count != 1 else ''}"
        leased = f"; leased as {prefix.leased_as}" if prefix.leased_as is not None else ""
        print(f"  prefix {prefix.network}: {kind}; {static}{leased}")
    for instance in settings.instances:
        print(
            f"  instance {instance.name}: datapath id {instance.datapath_id:016x}, "
            f"{instance.ipv6.port} {', '.join(map(str, instance.aftr_addresses))} <-> "
            f"{instance.ipv4.port} {instance.ipv4.address} by {instance.ipv4.next_hop}"
        )
        print(f"    packets without a binding: {instance.failover}")
        if instance.announce is not None:
            peers = ", ".join(str(peer.address) for peer in instance.announce.peers)
            print(f"    announces its routes as AS {instance.announce.local_as} to {peers}")
        if instance.pcp is not None:
            pool = AddressPool(instance.pcp.pool, system_ports=instance.pcp.system_ports)
            print(f"    gives out {pool.size} port sets by PCP at {instance.pcp.server}")
        if instance.dhcp is not None:
            print(f"    relays DHCP to {instance.dhcp.server} from {instance.dhcp.address}")
    print(f"  store {_shown(settings.store_url)}")
    if settings.supporting_system.source is not None:
        print(f"  supporting system {_shown(settings.supporting_system.source)}")
    return 0


def _shown(url: str) -> str:
    """Without its password."""
    return re.sub("(//[^:/@]*):.*@", r"\1:***@", url)
