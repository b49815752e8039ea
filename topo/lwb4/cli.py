"""The ``lw4o6-lwb4`` command."""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import random
import selectors
import sys
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from ryu_lw4o6.core import dhcpv6
from ryu_lw4o6.core.times import rfc3339
from topo.lwb4 import dhcp, pcp, state
from topo.lwb4.agent import Agent
from topo.lwb4.kernel import Kernel, KernelError
from topo.lwb4.napt import Forward
from topo.lwb4.process import Control, Sockets, ask, run
from topo.lwb4.refusal import HOLD_DOWN, Guard
from topo.lwb4.softwire import Softwire, Tunnel

_DUID_LL = b"\x00\x03\x00\x01"
"""What an Ethernet address follows in a DUID (RFC 8415 section 11.4)."""


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns its exit status."""
    parser = argparse.ArgumentParser(prog="lw4o6-lwb4", description="The lab's lwB4.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    start = commands.add_parser(
        "run", help="provision, translate and encapsulate until SIGTERM",
        description="Runs in the tunnel's network namespace, where wan leads to the access "
        "network and v4 to the translator's.",
    )  # fmt: skip
    start.set_defaults(func=_run)
    _add_run_arguments(start)
    for word, text in (
        ("status", "show what a running lwB4 has, as JSON"),
        ("provision", "let a running lwB4 provision anew"),
    ):
        command = commands.add_parser(word, help=text, description=text)
        command.add_argument("directory", type=Path, help="that of lw4o6-lwb4 run")
        command.set_defaults(func=_ask, word=word)
    args = parser.parse_args(argv)
    result: int = args.func(args)
    return result


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "directory", type=Path, help="for the state that outlives a restart, and the control socket"
    )
    add("--provisioning", choices=("pcp", "dhcp"), required=True)
    add("--lwb4", type=IPv6Address, required=True, help="this end of the softwire")
    add("--aftr", type=IPv6Address, required=True, help="the lwAFTR's end")
    add("--translator", metavar="NAMESPACE", required=True,
        help="where softwire leads to the tunnel and lan to the hosts")  # fmt: skip
    add("--tunnel", type=Tunnel, choices=list(Tunnel), default=Tunnel.SRV6,
        help="what to encapsulate with (default: %(default)s)")  # fmt: skip
    add("--ports", type=_number(1, 0xFFFF), default=pcp.Config().ports,
        help="PCP: how many to ask for (default: %(default)s)")  # fmt: skip
    add("--lifetime", type=_number(1, 0xFFFFFFFF), default=pcp.Config().lifetime,
        help="PCP: seconds to ask for (default: %(default)s)")  # fmt: skip
    add("--dhcpv6", type=IPv6Address, default=dhcpv6.ALL_RELAYS_AND_SERVERS,
        help="DHCP: who says where the DHCP 4o6 servers are (default: %(default)s)")  # fmt: skip
    add("--hold-down", type=_number(0, 3600, float), default=HOLD_DOWN,
        help="seconds between two restarts at least (default: %(default)s)")  # fmt: skip
    add("--forward", type=_forward, metavar="HOST:PORT",
        help="a host's TCP port that is reached on the last port of the port set")  # fmt: skip


def _number(low: int, high: int, kind: type[int] | type[float] = int) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low} and {high}")
        return value

    return number


def _forward(text: str) -> Forward:
    host, _, port = text.partition(":")
    return Forward(IPv4Address(host), int(port))


def _run(args: argparse.Namespace) -> int:
    _log_to_stdout()
    args.directory.mkdir(parents=True, exist_ok=True)
    with (args.directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"lw4o6-lwb4: one runs in {args.directory} already", file=sys.stderr)
            return 1
        return _run_agent(args)


def _run_agent(args: argparse.Namespace) -> int:
    softwire = Softwire(args.lwb4, args.aftr, args.tunnel)
    kernel = Kernel(softwire, translator=args.translator, forward=args.forward)
    try:
        kernel.prepare()
        selector = selectors.DefaultSelector()
        sockets = Sockets(args.lwb4, selector)
        agent = Agent(
            _client(args, kernel), softwire, kernel, sockets.send, args.directory / "state.json",
            random.SystemRandom().random, Guard(args.hold_down),
        )  # fmt: skip
        sockets.icmpv6(lambda data, source: agent.icmpv6(data, source, time.monotonic()))
        hear = sockets.pcp if args.provisioning == "pcp" else sockets.dhcp
        hear(lambda data: agent.received(data, time.monotonic()))
        Control(args.directory / "control", selector, agent)
        run(agent, selector)
    except (KernelError, OSError) as error:
        print(f"lw4o6-lwb4: {error}", file=sys.stderr)
        return 1
    return 0


def _client(args: argparse.Namespace, kernel: Kernel) -> pcp.Client | dhcp.Client:
    kept = state.load(args.directory / "state.json")
    now = time.monotonic()
    to_unix = time.time() - now
    if args.provisioning == "pcp":
        return state.pcp_client(pcp.Config(args.ports, args.lifetime), kept, now, to_unix)
    duid = _DUID_LL + kernel.hardware_address()
    config = dhcp.Config(args.lwb4, duid, dhcpv6=args.dhcpv6)
    return state.dhcp_client(config, kept, now, to_unix)


def _log_to_stdout() -> None:
    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return f"{rfc3339(record.created)} {record.getMessage()}"

    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(Formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _ask(args: argparse.Namespace) -> int:
    path = args.directory / "control"
    try:
        print(json.dumps(ask(path, args.word), indent=2))
    except (OSError, ValueError) as error:
        print(f"lw4o6-lwb4: no answer from {path}: {error}. Does it run?", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
