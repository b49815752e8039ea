"""DHCPv4 over DHCPv6 for many lwB4s at once, by the lwAFTR's relay and without it.

An lwB4 that provisions again asks whether its lease still holds (INIT-REBOOT), which is what is
measured; one without a lease discovers and requests. The messages are those of the lab's lwB4,
which also judges the answers; ``ask.c`` carries them, because 5,000 state machines in Python are
slower than Kea.

Both ways lead to the same Kea, on the same machine, in turns. How many questions may be under way
is not what is compared: Kea drops when they are too many for it, and waits when they are too few.
So each way is tried with several windows, and its best counts.
"""

from __future__ import annotations

import contextlib
import random
import resource
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bench.fleet import address, duplicates
from bench.rig import AFTR, INSTANCE, Rig, lwaftr
from bench.traffic import program
from ryu_lw4o6.core import dhcpv6
from ryu_lw4o6.core.config import load
from ryu_lw4o6.provisioning import kea_config
from tests.support.kea import Kea, server
from tests.support.netns import inside, namespace
from tests.support.ovs import run
from topo.lwb4 import dhcp
from topo.lwb4.lease import Lease
from topo.lwb4.machine import Bound, Event, Received, Send, Start

WINDOWS = (16, 32, 64, 128, 200, 400)
"""Questions under way."""
PATIENCE = 30.0  # seconds
KEA, ECHO = "2001:db8:9::67", "2001:db8:9::7"

CONFIG = f"""\
store: sqlite:///{{directory}}/bindings.sqlite
prefixes:
  - {{{{prefix: 198.18.0.0/24, psid_offset: 6, psid_length: 6, leased_as: 10.64.0.0/18}}}}
{INSTANCE}\
    dhcp: {{{{server: "{KEA}"}}}}
"""


@dataclass(frozen=True)
class Run:
    """``seconds`` from the first question to the last lease, ``each`` from a lwB4's own to its
    lease. ``processor`` has the seconds that each program was at work."""

    window: int
    bound: int
    seconds: float
    each: Sequence[float]
    again: int
    processor: Mapping[str, float]

    @property
    def per_second(self) -> float:
        return self.bound / self.seconds

    def microseconds(self, name: str) -> float:
        """What a program has worked for one lwB4."""
        return self.processor.get(name, 0.0) / self.bound * 1e6


@dataclass(frozen=True)
class Found:
    """``through`` and ``alone`` by window; ``applied`` bindings the switch had after each run
    through the lwAFTR; ``echo`` answers per second that the lwB4s can take."""

    through: Sequence[Run]
    alone: Sequence[Run]
    applied: Sequence[int]
    duplicates: int
    echo: float

    @property
    def share_apart(self) -> float:
        """The share of Kea's own rate if each program had a processor of its own: the busiest one
        is the limit then."""
        through, alone = best(self.through), best(self.alone)
        return max(alone.processor.values()) * through.bound / (
            max(through.processor.values()) * alone.bound
        )  # fmt: skip


def best(runs: Sequence[Run]) -> Run:
    return max(runs, key=lambda found: found.per_second)


def measure(lwb4s: int) -> Found:
    """Let so many lwB4s provision again, with each window, with and without the lwAFTR."""
    with (
        lwaftr(0, CONFIG) as rig,
        namespace() as place,
        tempfile.TemporaryDirectory(prefix="lw4o6-kea-") as directory,
    ):
        _connect(rig.outside, place)
        rig.controller.start()
        rig.wait_ready()
        settings = load(rig.controller.config)
        # Kea knows by the relay's address where a lwB4 belongs; without a relay, by the lwB4's.
        machine = server(Path(directory), "kea0", lease_seconds=7200, relays=(address(0),))
        configurations = {
            "dhcp4": kea_config.dhcp4(settings, machine),
            "dhcp6": kea_config.dhcp6(settings, machine),
        }
        kea = Kea(Path(directory), configurations, place)
        try:
            kea.start()
            return _measure(lwb4s, rig, kea, place)
        finally:
            kea.stop()


def _measure(lwb4s: int, rig: Rig, kea: Kea, place: str) -> Found:
    by_relay, by_themselves = Clients(lwb4s), Clients(lwb4s)

    def ask(clients: Clients, server: str, window: int) -> Run:
        return clients.provision(rig.outside, server, window, _pids(rig, kea))

    for clients, server_ in ((by_relay, AFTR), (by_themselves, KEA)):
        ask(clients, server_, WINDOWS[0])  # everybody gets a lease
    through, alone, confirmed = [], [], []
    for window in WINDOWS:
        alone.append(ask(by_themselves, KEA, window))
        _forget(rig)
        through.append(ask(by_relay, AFTR, window))
        confirmed.append(applied(rig))
    with _echo(place):
        echo = Clients(lwb4s).answers_per_second(rig.outside, ECHO, WINDOWS[1])
    return Found(through, alone, confirmed, duplicates(by_relay.leases.values()), echo)


def _pids(rig: Rig, kea: Kea) -> dict[str, int]:
    return {
        "kea-dhcp4": kea.pid("dhcp4"), "kea-dhcp6": kea.pid("dhcp6"),
        "controller": rig.controller.pid, "ovs-vswitchd": rig.ovs.switch_pid,
    }  # fmt: skip


def _forget(rig: Rig) -> None:
    """Let the lwAFTR be one that has never heard of any binding."""
    rig.controller.kill()
    for file in rig.ovs.directory.glob("bindings.sqlite*"):
        file.unlink()
    rig.controller.start()
    rig.wait_ready()


def applied(rig: Rig) -> int:
    """How many bindings the switch has confirmed."""
    status, body = rig.controller.rest("GET", "/v1/switches/lwaftr1")
    assert status == 200
    return int(body["bindings"])


def _connect(outside: str, place: str) -> None:
    """A link from the access router to the DHCP server, and the lwB4s' addresses at the router."""
    run("ip", "link", "add", "kea0", "netns", place, "type", "veth", "peer", "name", "kea1",
        "netns", outside)  # fmt: skip
    for name, command in (
        (place, "link set kea0 up"),
        (outside, "link set kea1 up"),
        (place, f"addr add {ECHO}/64 dev kea0 nodad"),
        (place, f"addr add {KEA}/64 dev kea0 nodad"),
        (place, "addr add 198.51.100.67/32 dev kea0"),
        (outside, "addr add 2001:db8:9::fe/64 dev kea1 nodad"),
        (place, "-6 route add default via 2001:db8:9::fe"),
        (outside, "-6 route add local 2001:db8:b4::/64 dev lo"),
        (outside, f"-6 route add {AFTR}/128 via 2001:db8:1::1"),
    ):
        run("ip", "-n", name, *command.split())
    run("ip", "netns", "exec", outside, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
    # Open vSwitch would hand on frames whose checksums a NIC was to fill in.
    run("ip", "netns", "exec", outside, "ethtool", "-K", "wire6", "tx", "off")


@contextlib.contextmanager
def _echo(place: str) -> Iterator[None]:
    """Something that answers as soon as it is asked, with what it was asked."""
    with inside(place):
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((ECHO, dhcpv6.SERVER_PORT))
        sock.settimeout(0.1)
        ended = threading.Event()

        def answer() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    sock.sendto(*sock.recvfrom(2048))

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


# --- clients --------------------------------------------------------------------------------------


class _Answer(NamedTuple):
    """Both times are 0 if there was none."""

    asked: float
    at: float
    payload: bytes


class Clients:
    """So many lwB4s, known by their numbers. Whom to ask they are told."""

    def __init__(self, count: int) -> None:
        self.leases: dict[int, Lease] = {}
        self._clients = [
            dhcp.Client(dhcp.Config(address(n), b"\0\3\0\1" + n.to_bytes(6, "big"), servers=()))
            for n in range(count)
        ]

    def provision(self, namespace: str, server: str, window: int, pids: Mapping[str, int]) -> Run:
        """Let all of them provision, ``window`` at a time: a question, and another one if the
        answer asks for it."""
        self.leases.clear()
        questions = self._questions()
        seconds, again, each = 0.0, 0, [0.0 for _ in questions]
        worked: dict[str, float] = dict.fromkeys((*pids, "lwB4s"), 0.0)
        while questions:
            before = {name: _worked(pid) for name, pid in pids.items()}
            answers, repeated, own = _ask(namespace, server, window, questions)
            for name, pid in pids.items():
                worked[name] += _worked(pid) - before[name]
            worked["lwB4s"] += own
            again += repeated
            seconds += max(a.at for a in answers) - min(a.asked for a in answers if a.at)
            for number, answer in zip(questions, answers, strict=True):
                each[number] += answer.at - answer.asked
            questions = {
                number: question
                for number, answer in zip(questions, answers, strict=True)
                if answer.at and (question := self._step(number, Received(answer.payload)))
            }
        return Run(
            window, len(self.leases), seconds, [each[number] for number in self.leases], again,
            worked,
        )  # fmt: skip

    def answers_per_second(self, namespace: str, server: str, window: int) -> float:
        """How fast the first question of all of them is answered."""
        answers, _, _ = _ask(namespace, server, window, self._questions())
        return len(answers) / (max(a.at for a in answers) - min(a.asked for a in answers))

    def _questions(self) -> dict[int, bytes]:
        return {number: self._step(number, Start()) for number in range(len(self._clients))}

    def _step(self, number: int, event: Event) -> bytes:
        """What a lwB4 says to an event, nothing if it has got its lease."""
        client, actions = dhcp.step(self._clients[number], event, time.monotonic(), random.random)
        self._clients[number] = client
        question = b""
        for action in actions:
            match action:
                case Send(payload):
                    question = payload
                case Bound(lease):
                    self.leases[number] = lease
        return question


def _ask(
    namespace: str, server: str, window: int, questions: Mapping[int, bytes]
) -> tuple[list[_Answer], int, float]:
    """The answers, in order; how many questions were repeated; the seconds of processor time."""
    given = b"".join(
        address(number).packed + struct.pack("!H", len(question)) + question
        for number, question in questions.items()
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{namespace}", program("ask"), server, str(window),
         str(PATIENCE)],
        input=given, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    answers, at = [], 0
    for _ in questions:
        asked, answered, length = struct.unpack_from("=ddH", done.stdout, at)
        at += 18 + length
        answers.append(_Answer(asked, answered, done.stdout[at - length : at]))
    (again,) = struct.unpack_from("=I", done.stdout, at)
    own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return answers, again, own


def _worked(pid: int) -> float:
    """Seconds of processor time that a process has had, all its threads together."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
