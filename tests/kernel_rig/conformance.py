"""What real hosts and a real kernel's tunnels see of the lwAFTR: the lab, and programs that know
nothing of it. Run by guest.sh on Open vSwitch's kernel datapath; also runs where the lab does:

    .venv/bin/python -m tests.kernel_rig.conformance --datapath netdev --tunnel srv6
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable

from ryu_lw4o6.core.settings import Datapath
from topo.build import Builder
from topo.lwb4.softwire import Tunnel
from topo.plan import ACCESS_MTU, ANYCAST, SERVER, Lab, Subscriber
from topo.provisioning import Provisioning

ENCAPSULATION = {Tunnel.SRV6: 40, Tunnel.IPIP6: 48}
"""Bytes that a softwire adds on the lwB4's side: Linux's tunnel has an encapsulation limit, too."""


class Conformance:
    def __init__(self, lab: Builder) -> None:
        self.lab = lab
        self.lwaftr = lab.lwaftr
        self.shared, self.full = lab.lab.subscribers[1], lab.lab.subscribers[2]
        self.failed = 0

    def check(self, what: str, seen: object, ok: bool) -> None:
        self.failed += not ok
        print(f"   {'ok' if ok else 'FAILED':<7} {what}: {seen}", flush=True)

    def ping(self, node: str, target: object, *options: str, count: int = 3) -> str:
        """What ping says; some of it is also in its error output."""
        done = self.lab.run(
            node, "ping", "-n", "-c", str(count), "-i", "0.2", "-W", "3", *options, str(target),
            check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    # --- what a subscriber's host sees ---

    def echo(self, sub: Subscriber) -> None:
        text = self.ping(sub.host, SERVER)
        self.check(f"echo, by its identifier ({sub.ipv4})", received(text), received(text) == 3)

    def the_largest_packet(self, sub: Subscriber) -> None:
        largest = min(1500, ACCESS_MTU - ENCAPSULATION[self.lab.lab.tunnel])
        text = self.ping(sub.host, SERVER, "-M", "do", "-s", str(largest - 28))
        self.check(f"{largest} bytes with DF", f"{received(text)} of 3", received(text) == 3)
        if largest < 1500:
            text = self.ping(sub.host, SERVER, "-M", "do", "-s", str(largest - 27))
            told = found(r"mtu ?= ?(\d+)", text)
            self.check(f"{largest + 1} bytes with DF: fragmentation needed, from the lwB4",
                       told, told == str(largest))  # fmt: skip

    def traceroute(self, sub: Subscriber) -> None:
        """Hop by hop, up to the server: the last but one is the lwAFTR."""
        hops: list[str] = []
        while len(hops) < 6 and str(SERVER) not in hops:
            text = self.ping(sub.host, SERVER, "-t", str(len(hops) + 1), count=1)
            hop = found(r"From (\S+) icmp_seq=1 Time to live exceeded", text)
            hops.append(hop or (str(SERVER) if received(text) == 1 else "*"))
        lwaftr = str(self.lab.lab.sites[0].ipv4.ip)
        self.check("traceroute", " ".join(hops), hops[-2:] == [lwaftr, str(SERVER)])

    def tcp(self, sub: Subscriber) -> None:
        done = self.lab.run(
            sub.host, "curl", "-sSf", "-o", "/dev/null", "-m", "60", "-w",
            "%{http_code} %{size_download}", f"http://{SERVER}/large", check=False,
        )  # fmt: skip
        self.check("a page of 4 MiB by TCP", done.stdout, done.stdout == "200 4194304")

    def an_icmp_error_comes_back(self, sub: Subscriber) -> None:
        """Port unreachable, by the port in the packet it quotes; the socket is told."""
        program = (
            "import socket\n"
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            f"s.settimeout(5); s.connect(('{SERVER}', 9)); s.send(b'x')\n"
            "try: print(s.recv(1))\n"
            "except OSError as error: print(type(error).__name__)\n"
        )
        seen = self.lab.run(sub.host, sys.executable, "-c", program).stdout.strip()
        self.check("port unreachable reaches the socket", seen, seen == "ConnectionRefusedError")

    def fragments(self, sub: Subscriber) -> None:
        text = self.ping(sub.host, SERVER, "-s", "3000")
        self.check("3028 bytes, in fragments both ways", f"{received(text)} of 3",
                   received(text) == 3)  # fmt: skip

    def a_refusal(self, sub: Subscriber) -> None:
        """From a port of somebody else's. What comes out of the socket has a right checksum, says
        the kernel."""
        victim = self.lab.lab.subscribers[0]
        program = (
            "import socket, subprocess, sys\n"
            "s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)\n"
            "s.settimeout(20)\n"
            f"subprocess.run([sys.executable, '-m', 'topo.spoof', '{sub.lwb4}', '{victim.ipv4}',\n"
            f"                '{victim.ports[0][0]}', '1'], check=True)\n"
            "while (got := s.recvfrom(2048)) and got[0][:2] != bytes((1, 5)): pass\n"
            "print(got[1][0], socket.inet_ntop(socket.AF_INET6, got[0][16:32]))\n"
        )
        done = self.lab.run(sub.tun, sys.executable, "-c", program, check=False)
        seen = done.stdout.strip() or done.stderr.strip().rpartition("\n")[2]
        self.check("an lwB4 that is refused: ICMPv6 1/5, about its own packet", seen,
                   seen == f"{ANYCAST} {sub.lwb4}")  # fmt: skip

    # --- what the Internet sees ---

    def the_largest_inbound(self, sub: Subscriber) -> None:
        text = self.ping("inet", sub.ipv4, "-M", "do", "-s", "1472")
        self.check("1500 bytes with DF from the Internet", f"{received(text)} of 3",
                   received(text) == 3)  # fmt: skip

    def a_narrower_path(self, sub: Subscriber) -> None:
        """The access router takes 1400 bytes to the lwB4, 1360 of IPv4; any size comes back."""
        route = (f"{sub.lwb4}/128", "dev", f"sub{sub.number}")
        self.lab.run("access", "ip", "-6", "route", "add", *route, "mtu", "lock", "1400")
        try:
            text = self.ping("inet", sub.ipv4, "-M", "do", "-s", "1400")
            told = found(r"mtu ?= ?(\d+)", text)
            self.check("packet too big, by a router on the way: fragmentation needed", told,
                       told == "1360")  # fmt: skip
            text = self.ping("inet", sub.ipv4, "-M", "do", "-s", str(1360 - 28))
            self.check("1360 bytes with DF", f"{received(text)} of 3", received(text) == 3)
            if self.lab.lab.tunnel is Tunnel.IPIP6:  # SRv6 takes nothing out of IPv6 fragments
                text = self.ping("inet", sub.ipv4, "-M", "dont", "-s", "1400")
                self.check("1428 bytes without DF", f"{received(text)} of 3", received(text) == 3)
        finally:
            self.lab.run("access", "ip", "-6", "route", "del", *route)

    def nobody_answers_for_nobody(self) -> None:
        before = self.lwaftr.counters()["drop_downstream_no_binding"]
        text = self.ping("inet", "203.0.113.7", count=2)
        dropped = self.lwaftr.counters()["drop_downstream_no_binding"] - before
        self.check("an address without a binding", f"{received(text)} answers, {dropped} dropped",
                   received(text) == 0 and dropped == 2)  # fmt: skip

    # --- provisioning ---

    def provisioned(self) -> None:
        """MAP requests came through the softwire before there was a binding, and made them."""
        bindings = self.lwaftr.rest("GET", "/v1/bindings")[1]["bindings"]
        origins = [binding["origin"] for binding in bindings]
        self.check("bindings made by PCP", len(origins),
                   origins == ["pcp"] * len(self.lab.lab.subscribers))  # fmt: skip
        sub = self.shared
        text = self.ping(sub.host, SERVER)
        self.check(f"echo by {self.lab.lwb4s.address(sub)}", received(text), received(text) == 3)
        self.tcp(sub)

    # --- what the lwAFTR counted ---

    def encapsulation_limits(self) -> None:
        shim = self.lwaftr.ask("/v1/counters/lwaftr1")["shim"]
        stripped, translated = shim["options_stripped"], shim["translated_in"]
        expected = self.lab.lab.tunnel is Tunnel.IPIP6
        self.check("softwire packets with an encapsulation limit",
                   f"{stripped} of {translated}", (stripped > 0) == expected)  # fmt: skip

    def nothing_is_lost_unseen(self) -> None:
        answer = self.lwaftr.ask("/v1/counters/lwaftr1")
        leaves = answer["traffic-stat"]
        came = sum(leaves[f"rcvd-ipv{v}-packets"] for v in (4, 6))
        went = sum(leaves[f"{w}-ipv{v}-packets"] for w in ("sent", "dropped") for v in (4, 6))
        went -= answer["counters"]["from_lwaftr"]["packets"]  # its own errors to lwB4s
        self.check("received is forwarded and dropped", f"{came} and {went}", came == went)

    def run(self) -> None:
        if self.lab.lab.provisioned:
            self.provisioned()
            return
        for sub in (self.shared, self.full):
            self.echo(sub)
            self.tcp(sub)
            self.traceroute(sub)
            self.an_icmp_error_comes_back(sub)
            self.the_largest_packet(sub)
            self.fragments(sub)
        self.a_refusal(self.shared)
        self.the_largest_inbound(self.full)
        self.a_narrower_path(self.full)
        self.nobody_answers_for_nobody()
        self.encapsulation_limits()
        settled(self.nothing_is_lost_unseen)


def settled(then: Callable[[], None]) -> None:
    """Open vSwitch brings its counters up to date every half second."""
    time.sleep(2)
    then()


def found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match[1] if match else None


def received(text: str) -> int:
    return int(found(r"(\d+) received", text) or -1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datapath", type=Datapath, default=Datapath.KERNEL)
    parser.add_argument("--tunnel", type=Tunnel, default=Tunnel.IPIP6)
    args = parser.parse_args()
    print("== Conformance, with programs that know nothing of softwires", flush=True)
    failed = 0
    for provisioning in (Provisioning.STATIC, Provisioning.PCP):
        lab = Lab(
            "lw4o6-conf", datapath=args.datapath, tunnel=args.tunnel, provisioning=provisioning
        )
        failed += failures(Builder(lab))
    print("It conforms." if not failed else f"{failed} checks FAILED.")
    return bool(failed)


def failures(builder: Builder) -> int:
    """How many checks fail in a lab that is built for them."""
    builder.down()
    try:
        builder.up(lambda text: print(f"   {text}", flush=True))
        conformance = Conformance(builder)
        conformance.run()
    finally:
        builder.down()
    return conformance.failed


if __name__ == "__main__":
    sys.exit(main())
