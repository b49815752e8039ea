"""The ``lw4o6-lab`` command."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

from ryu_lw4o6.core.settings import Datapath, Failover
from topo import status
from topo.build import Builder
from topo.demo.run import run_demo
from topo.failover import faults
from topo.failover.build import FailoverBuilder
from topo.failover.plan import FailoverLab, Mode, Shared, fitting
from topo.labs import builder_of, standing
from topo.lwb4.softwire import Tunnel
from topo.nodes import LabError, wait_for
from topo.plan import ANYCAST, MOST_SUBSCRIBERS, SUBSCRIBERS, Lab, subscribers
from topo.provisioning import Provisioning

DEFAULT_NAME = "lw4o6"
_E = TypeVar("_E", bound=StrEnum)


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns its exit status."""
    args = _parser().parse_args(argv)
    if os.geteuid() != 0:
        print("lw4o6-lab: network namespaces need root; run it as root", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # by way of "finally"
    try:
        code: int = args.func(args)
        sys.stdout.flush()
        return code
    except LabError as error:
        print(f"lw4o6-lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lw4o6-lab",
        description="lwAFTRs, subscribers and an Internet host, in network namespaces.",
    )
    parser.add_argument(
        "--name", type=_name, default=DEFAULT_NAME,
        help="name of the lab: letters, digits and dashes (default: %(default)s)",
    )  # fmt: skip
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, function, text in (
        ("up", _up, "build the lab; safe to run again"),
        ("status", _status, "show what runs"),
        ("down", _down, "take the lab down; safe to run again"),
        ("demo", _demo, "build labs of its own, show that it works, take them down"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(func=function)
        if function in (_up, _demo):
            command.add_argument(
                "--datapath", type=_one_of(Datapath), choices=list(Datapath),
                default=Datapath.USERSPACE,
                help="Open vSwitch's: netdev (userspace) or system (kernel); default: %(default)s",
            )  # fmt: skip
            command.add_argument(
                "--tunnel", type=_one_of(Tunnel), choices=list(Tunnel), default=Tunnel.SRV6,
                help="what lwB4s encapsulate with (default: %(default)s)",
            )  # fmt: skip
        if function is _up:
            command.add_argument(
                "--provisioning", type=Provisioning, choices=list(Provisioning),
                help="who tells lwB4s their addresses: nobody, the lwAFTR by PCP, or Kea by DHCPv4 "
                "over DHCPv6 (default: static; pcp, where lwAFTRs have no store to ask)",
            )  # fmt: skip
            _add_failover(command)
        if function is _demo:
            command.add_argument(
                "--without-failover", dest="failover", action="store_false",
                help="show one lwAFTR only",
            )  # fmt: skip
    for name, function, text in (
        ("fail", _fail, "let an lwAFTR of the failover lab fail"),
        ("recover", _recover, "mend it; safe to run again"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("role", type=_one_of(faults.Role), choices=list(faults.Role))
        command.set_defaults(func=function)
        if function is _fail:
            command.add_argument(
                "--how", type=_one_of(faults.How), choices=list(faults.How),
                default=faults.How.KILL,
                help="kill: all that runs on it dies; link: its cables are cut; switch, "
                "controller: one process dies; drain: it is taken out of service "
                "(default: %(default)s)",
            )  # fmt: skip
    shell = commands.add_parser("shell", help="run a command in a node, or a shell")
    shell.add_argument("node", help="host1, nat1, tun1, access, lwaftr1, inet, ...")
    shell.add_argument("command", nargs=argparse.REMAINDER, help="the command (default: a shell)")
    shell.set_defaults(func=_shell)
    rest = commands.add_parser("rest", help="call the REST API: rest GET /v1/bindings")
    rest.add_argument("method")
    rest.add_argument("path")
    rest.add_argument("body", nargs="?", help="JSON")
    rest.add_argument("--lwaftr", default="lwaftr1", help="whose (default: %(default)s)")
    rest.set_defaults(func=_rest)
    return parser


def _name(text: str) -> str:
    """It becomes a part of paths and of names of namespaces."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,39}", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no name of a lab; use up to 40 letters, digits and dashes"
        )
    return text


def _command(args: argparse.Namespace) -> str:
    """How to call this program for the same lab."""
    return "lw4o6-lab" if args.name == DEFAULT_NAME else f"lw4o6-lab --name {args.name}"


def _one_of(kind: type[_E]) -> Callable[[str], _E]:
    """The enumeration itself as ``type`` would not say what there is to choose from."""

    def read(text: str) -> _E:
        try:
            return kind(text)
        except ValueError:
            known = ", ".join(kind)
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {known}") from None

    return read


_PAIR = {
    "mode": Mode.ACTIVE_BACKUP, "mechanism": Failover.DATA_PACKET, "store": Shared.NONE,
    "own_pools": False,
}  # fmt: skip
"""Options of two lwAFTRs, and what is meant without them."""


def _add_failover(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--subscribers", type=int, choices=range(1, MOST_SUBSCRIBERS + 1), metavar="N",
        default=len(SUBSCRIBERS), help=f"1 to {MOST_SUBSCRIBERS} (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--failover", action="store_true",
        help="two lwAFTRs behind one anycast address, and routers that speak BGP",
    )  # fmt: skip
    group = command.add_argument_group("with --failover")
    group.add_argument(
        "--mode", type=_one_of(Mode), choices=list(Mode),
        help="who has the traffic while both live (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--mechanism", type=_one_of(Failover), choices=list(Failover),
        help="what they do about packets without a binding (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--store", type=_one_of(Shared), choices=list(Shared),
        help="what they share: a PostgreSQL store, so that each knows the other's bindings, or "
        "none (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--own-pools", action="store_true", help="each lwAFTR has IPv4 prefixes of its own"
    )
    command.set_defaults(**_PAIR)


def _up(args: argparse.Namespace) -> int:
    started = time.monotonic()
    common = args.name, subscribers(args.subscribers), args.datapath, args.tunnel
    if args.failover:
        provisioning = args.provisioning or fitting(args.mechanism, args.store)
        lab = _checked(*common, provisioning, args.mode, args.mechanism, args.store, args.own_pools)
    else:
        for name, default in _PAIR.items():
            if getattr(args, name) != default:
                raise LabError(f"--{name.replace('_', '-')} goes with --failover")
        lab = Lab(*common, args.provisioning or Provisioning.STATIC)
    older = standing(lab.name)
    if older is not None and older.lab != lab and older.exists():
        if older.healthy():
            raise LabError(f"{lab.name} is up as another lab; first run: {_command(args)} down")
        older.down()
    builder = builder_of(lab)
    builder.up(lambda text: print(f"  {text}", flush=True))
    print(f"lab {lab.name} is up ({time.monotonic() - started:.0f} s). Try:")
    tries = ["status", "shell host2 ping 198.18.0.80", "rest GET /v1/bindings", "down"]
    if args.failover:
        tries[-1:-1] = ["fail primary --how kill", "recover primary"]
    for what in tries:
        print(f"  {_command(args)} {what}")
    return 0


def _checked(*options: Any) -> Lab:
    try:
        return FailoverLab(*options)
    except ValueError as error:
        raise LabError(f"these options do not go together: {error}") from None


def _down(args: argparse.Namespace) -> int:
    builder = standing(args.name)
    if builder is not None:
        builder.down()
    print(f"lab {args.name} is {'not there' if builder is None else 'down'}")
    return 0


def _demo(args: argparse.Namespace) -> int:
    lab = Lab(f"{args.name}-demo", datapath=args.datapath, tunnel=args.tunnel)
    return run_demo(Builder(lab), failover=args.failover)


def _standing(args: argparse.Namespace) -> Builder:
    builder = standing(args.name)
    if builder is None or not builder.exists():
        raise LabError(f"the lab is not up; run {_command(args)} up")
    return builder


def _failover_lab(args: argparse.Namespace) -> FailoverBuilder:
    builder = _standing(args)
    if not isinstance(builder, FailoverBuilder):
        raise LabError(
            f"this lab has one lwAFTR only; run {_command(args)} down, then up --failover"
        )
    return builder


def _fail(args: argparse.Namespace) -> int:
    lab = _failover_lab(args)
    faults.fail(lab, args.role, args.how)
    site = args.role.site(lab)
    wait_for(f"routers no longer use {site.name}", lambda: not lab.uses(site))
    print(f"{args.role} ({args.how}): packets for {ANYCAST} go to {_shown(lab.anycast_ways)}")
    return 0


def _recover(args: argparse.Namespace) -> int:
    lab = _failover_lab(args)
    faults.recover(lab, args.role)
    print(f"{args.role} is back: packets for {ANYCAST} go to {_shown(lab.anycast_ways)}")
    return 0


def _shown(names: list[str]) -> str:
    return " and ".join(names) or "nobody"


def _status(args: argparse.Namespace) -> int:
    builder = _standing(args)
    for line in status.lines(builder):
        print(line, flush=True)
    return 0 if status.whole(builder) else 1


def _shell(args: argparse.Namespace) -> int:
    builder = _standing(args)
    if args.node not in builder.lab.nodes:
        raise LabError(f"there is no node {args.node}; there are {', '.join(builder.lab.nodes)}")
    command = args.command or [os.environ.get("SHELL", "/bin/bash")]
    if not args.command:
        print(f"{args.node}: exit leaves it. ip, ping, curl and tcpdump are at hand.", flush=True)
    os.execvpe("nsenter", builder.command(args.node, *command), builder.environment(args.node))


def _rest(args: argparse.Namespace) -> int:
    builder = _standing(args)
    lwaftr = builder.lwaftrs.get(args.lwaftr)
    if lwaftr is None:
        raise LabError(f"there is no {args.lwaftr}; there are {', '.join(builder.lwaftrs)}")
    try:
        body = json.loads(args.body) if args.body else None
    except ValueError as error:
        raise LabError(f"the body is not JSON: {error}") from error
    code, answer = lwaftr.rest(args.method.upper(), args.path, body)
    if answer is not None:
        print(json.dumps(answer, indent=2))
    print(f"HTTP {code} from {lwaftr.name}", file=sys.stderr)
    return 0 if code < 400 else 1


if __name__ == "__main__":
    sys.exit(main())
