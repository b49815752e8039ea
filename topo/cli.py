"""The ``lw4o6-lab`` command."""

from __future__ import annotations

import argparse
import os
import sys
import time

from ryu_lw4o6.core.settings import Datapath
from topo import demo
from topo.build import SWITCH, Builder, LabError
from topo.plan import Lab, Tunnel


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="lw4o6-lab",
        description="An lwAFTR with three subscribers and an Internet host, in namespaces.",
    )
    parser.add_argument("--name", default="lw4o6", help="name of the lab (default: %(default)s)")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, function, text in (
        ("up", _up, "build the lab; safe to run again"),
        ("status", _status, "show what runs"),
        ("down", _down, "take the lab down; safe to run again"),
        ("demo", _demo, "build a lab of its own, show that it works, take it down"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(func=function)
        if function in (_up, _demo):
            command.add_argument(
                "--datapath", type=Datapath, choices=list(Datapath), default=Datapath.USERSPACE,
                help="Open vSwitch's: netdev (userspace) or system (kernel); default: %(default)s",
            )  # fmt: skip
            command.add_argument(
                "--tunnel", type=Tunnel, choices=list(Tunnel), default=Tunnel.SRV6,
                help="what lwB4s encapsulate with (default: %(default)s)",
            )  # fmt: skip
    shell = commands.add_parser("shell", help="run a command in a node, or a shell")
    shell.add_argument("node", help="host1, nat1, tun1, access, lwaftr1, inet, ...")
    shell.add_argument("command", nargs=argparse.REMAINDER, help="the command (default: a shell)")
    shell.set_defaults(func=_shell)
    rest = commands.add_parser("rest", help="call the REST API: rest GET /v1/bindings")
    rest.add_argument("method")
    rest.add_argument("path")
    rest.add_argument("body", nargs="?", help="JSON")
    rest.set_defaults(func=_rest)
    args = parser.parse_args(argv)
    if os.geteuid() != 0:
        print("lw4o6-lab: network namespaces need root; run it as root", file=sys.stderr)
        return 1
    try:
        status: int = args.func(_builder(args), args)
        return status
    except LabError as error:
        print(f"lw4o6-lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _builder(args: argparse.Namespace) -> Builder:
    """The lab of that name; options that only building needs have their defaults elsewhere."""
    suffix = "-demo" if args.func is _demo else ""
    built = {key: getattr(args, key) for key in ("datapath", "tunnel") if hasattr(args, key)}
    return Builder(Lab(args.name + suffix, **built))


def _up(builder: Builder, args: argparse.Namespace) -> int:
    started = time.monotonic()
    builder.up(lambda text: print(f"  {text}", flush=True))
    print(f"lab {builder.lab.name} is up ({time.monotonic() - started:.0f} s). Try:")
    print("  lw4o6-lab status")
    print("  lw4o6-lab shell host2 ping 198.18.0.80")
    print("  lw4o6-lab rest GET /v1/bindings")
    print("  lw4o6-lab down")
    return 0


def _down(builder: Builder, args: argparse.Namespace) -> int:
    existed = builder.exists() or builder.directory.exists()
    builder.down()
    print(f"lab {builder.lab.name} is {'down' if existed else 'not there'}")
    return 0


def _demo(builder: Builder, args: argparse.Namespace) -> int:
    return demo.run(builder)


def _require(builder: Builder) -> None:
    if not builder.exists():
        raise LabError("the lab is not up; run lw4o6-lab up")


def _status(builder: Builder, args: argparse.Namespace) -> int:
    _require(builder)
    for process in ("ovsdb-server", "ovs-vswitchd", "ryu-manager"):
        pid = builder.pid(process)
        print(f"  {process:<14} {f'pid {pid}' if pid else 'NOT RUNNING'}")
    if builder.pid("ryu-manager") is None:
        return 1
    _, body = builder.rest("GET", "/v1/switches")
    for switch in body["switches"]:
        hop = switch["next_hop"]
        print(
            f"  {switch['name']:<14} {switch['state']}, {switch.get('bindings', 0)} bindings, "
            f"next hop {hop['address']} {hop['state']}"
        )
    _, body = builder.rest("GET", "/v1/bindings")
    bound = {(b["ipv4"], b["psid"]): b for b in body["bindings"]}
    for sub in builder.lab.subscribers:
        found = bound.get((str(sub.ipv4), sub.psid))
        state = found["state"]["lwaftr1"]["state"] if found else "no binding"
        print(f"  {sub.host:<14} {sub.ipv4} PSID {sub.psid}, lwB4 {sub.lwb4}: {state}")
    print(f"  logs           {builder.logs}")
    return 0


def _shell(builder: Builder, args: argparse.Namespace) -> int:
    _require(builder)
    if args.node not in builder.lab.nodes:
        raise LabError(f"there is no node {args.node}; there are {', '.join(builder.lab.nodes)}")
    command = args.command or [os.environ.get("SHELL", "/bin/bash")]
    if not args.command:
        print(f"{args.node}: exit leaves it. ip, ping, curl and tcpdump are at hand.", flush=True)
    os.execvpe("nsenter", builder.command(args.node, *command), builder.environment)


def _rest(builder: Builder, args: argparse.Namespace) -> int:
    import json

    _require(builder)
    body = json.loads(args.body) if args.body else None
    status, answer = builder.rest(args.method.upper(), args.path, body)
    if answer is not None:
        print(json.dumps(answer, indent=2))
    print(f"HTTP {status} from {SWITCH}", file=sys.stderr)
    return 0 if status < 400 else 1


if __name__ == "__main__":
    sys.exit(main())
