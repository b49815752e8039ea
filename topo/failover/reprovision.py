"""In an lwB4's tunnel: makes its binding anew when its lwAFTR does not know it.

    python -m topo.failover.reprovision LAB NUMBER

The lwB4's reaction to ICMPv6 type 1 code 5 (RFC 7596 section 6.2). ``provision`` stands in for a
provisioning protocol: it asks the lwAFTR that has the anycast address now, over REST.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from topo.failover.plan import FailoverLab
from topo.lwaftr import REST_PORT
from topo.nodes import Nodes
from topo.plan import ANYCAST, Subscriber

HOLD_SECONDS = 1.0
"""Errors that come sooner after the last binding are about packets from before it."""
LIFETIME = 7200
_ICMP6_FILTER = 1  # <netinet/icmp6.h>
_REFUSED = b"\x01\x05"


def provision(lab: FailoverLab, sub: Subscriber) -> tuple[Subscriber, int]:
    """Get a binding from whichever lwAFTR answers at the anycast address: the subscriber with its
    address there, and how many messages it took."""
    messages = 0
    while True:
        for site in lab.sites:
            candidate = lab.at(sub, site)
            try:
                status = _put(candidate)
                messages += 2
            except (OSError, http.client.HTTPException):
                time.sleep(0.1)
                continue
            if status in (200, 201):
                return candidate, messages


def _put(sub: Subscriber) -> int:
    connection = http.client.HTTPConnection(str(ANYCAST), REST_PORT, timeout=1)
    body = json.dumps({"lwb4": str(sub.lwb4), "lifetime": LIFETIME})
    path = f"/v1/bindings/{sub.ipv4}/{sub.psid}?wait=applied"
    try:
        connection.request("PUT", path, body, {"Content-Type": "application/json"})
        return connection.getresponse().status
    finally:
        connection.close()


def refusals(sub: Subscriber) -> Iterator[float]:
    """The time of each ICMPv6 error with which the lwAFTR says that it has no binding."""
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
        passed = bytearray(b"\xff" * 32)
        passed[0] &= ~(1 << 1) & 0xFF  # type 1 only
        raw.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, bytes(passed))
        while True:
            message, sender = raw.recvfrom(2048)
            quoted = message[8:48]
            if (
                message[:2] == _REFUSED
                and sender[0] == str(ANYCAST)
                and quoted[8:40] == sub.lwb4.packed + ANYCAST.packed
            ):
                yield time.monotonic()


def history(directory: Path, sub: Subscriber) -> list[dict[str, Any]]:
    """Every binding that an lwB4 has made: ``at`` (Unix time), ``ipv4``, ``messages``."""
    try:
        lines = (directory / f"lwb4-{sub.number}.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


class Lwb4:
    """One lwB4; ``nodes`` are the lab's."""

    def __init__(self, nodes: Nodes, lab: FailoverLab, sub: Subscriber) -> None:
        self._nodes = nodes
        self._lab = lab
        self._sub = sub
        self._bound = sub

    def renumber(self) -> None:
        """Get a binding and use its address."""
        bound, messages = provision(self._lab, self._sub)
        if bound != self._bound:
            run, nat, old = self._nodes.run, bound.nat, self._bound
            run(bound.tun, "ip", "route", "replace", f"{bound.ipv4}/32", "dev", "v4")
            run(nat, "ip", "addr", "add", f"{bound.ipv4}/32", "dev", "softwire")
            run(nat, "nft", "-f", "-", text=self._lab.napt(bound))
            # Connections of the old address are of no use.
            run(nat, "conntrack", "-F")
            run(nat, "ip", "addr", "del", f"{old.ipv4}/32", "dev", "softwire")
            self._bound = bound
        record = {"at": time.time(), "ipv4": str(bound.ipv4), "messages": messages}
        with (self._nodes.directory / f"lwb4-{bound.number}.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")

    def run(self) -> None:
        self.renumber()
        done = time.monotonic()
        for refused in refusals(self._sub):
            if refused > done + HOLD_SECONDS:
                self.renumber()
                done = time.monotonic()


def main() -> None:
    from topo.labs import standing

    builder = standing(sys.argv[1])
    assert builder is not None
    assert isinstance(builder.lab, FailoverLab)
    (sub,) = (s for s in builder.lab.subscribers if s.number == int(sys.argv[2]))
    Lwb4(builder, builder.lab, sub).run()


if __name__ == "__main__":
    main()
