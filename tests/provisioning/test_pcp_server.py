"""The PCP server between a switch and a store that do as they like: every request is answered."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface
from typing import Any, cast

import eventlet
import pytest
from ryu.lib import hub

from openflow_rules.compiler.parts import Ports
from ryu_lw4o6.core import ethernet, pcp, udp
from ryu_lw4o6.core.binding import Binding, BindingKey, BindingTable, Origin, Prefix
from ryu_lw4o6.core.pcp import Mapping, Opcode, Options, PortSet, Request, Response, Result
from ryu_lw4o6.core.pool import AddressRange
from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.core.settings import Instance, Ipv4Side, Ipv6Side, Pcp
from ryu_lw4o6.core.udp import Datagram
from ryu_lw4o6.provisioning import pcp_server
from ryu_lw4o6.provisioning.pcp_records import Change, PcpRecords
from ryu_lw4o6.provisioning.pcp_server import PcpServer
from ryu_lw4o6.session import Session
from ryu_lw4o6.store import StoreUnavailable

B4, SERVER = IPv4Address("192.0.0.2"), IPv4Address("192.0.0.1")
AFTR = IPv6Address("2001:db8:ffff::1")
PREFIX = Prefix(IPv4Network("192.0.2.0/30"), PortParams(0, 6))
INSTANCE = Instance(
    name="lwaftr1",
    datapath_id=1,
    ipv6=Ipv6Side("eth6", IPv6Interface("2001:db8:1::1/64")),
    ipv4=Ipv4Side("eth4", IPv4Interface("198.51.100.1/24"), IPv4Address("198.51.100.254")),
    aftr_addresses=(AFTR,),
    prefixes=(PREFIX,),
    pcp=Pcp((AddressRange(PREFIX.network[0], PREFIX.network[-1], PREFIX),)),
)


class FakeSession:
    """A switch that has whatever it is asked to have, but for ``late`` and ``refused``."""

    ports = Ports(6, 4, 10, "02:00:00:00:04:01", "02:00:00:00:06:01")

    def __init__(self) -> None:
        self.sent: list[Response] = []
        self.sent_at: list[float] = []
        self.late = False
        self.refused: str | None = None

    def send(self, message: bytes) -> None:
        packet = message[message.index(b"\x08\x00\x45") + 2 :]
        datagram = udp.parse(packet)
        assert datagram is not None
        self.sent.append(pcp.parse_response(datagram.payload))
        self.sent_at.append(time.monotonic())

    def pending(self, key: BindingKey) -> bool:
        return self.late

    def failure(self, key: BindingKey) -> str | None:
        return self.refused

    def wait_progress(self, timeout: float) -> bool:
        hub.sleep(timeout)
        return False


class FakeRecords:
    def mappings(self, lwb4s: Iterable[IPv6Address], now: float) -> dict[IPv6Address, list[Any]]:
        return {}

    def epoch(self, now: float) -> int:
        return 5


class Network:
    """``commit`` is what the store does with changes."""

    def __init__(self) -> None:
        self.table = BindingTable([PREFIX])
        self.commit: Callable[[Sequence[Change]], set[BindingKey]] = self.keep
        self.session = FakeSession()
        self.server = PcpServer(
            INSTANCE, self.table, cast(PcpRecords, FakeRecords()), lambda c, now: self.commit(c)
        )
        self.server.connect(cast(Session, self.session))
        self.greenlets = [hub.spawn(run) for run in self.server.greenlets()]

    def keep(self, changes: Sequence[Change]) -> set[BindingKey]:
        for change in changes:
            if change.put is not None:
                self.table.replace(change.put)
        return set()

    def ask(self, host: int = 1, lifetime: int = 600, sport: int = 40000) -> None:
        request = Request(
            Opcode.MAP, B4, lifetime, Mapping(bytes(12), 17, 4096),
            Options(port_set=PortSet(1024, 4096)),
        )  # fmt: skip
        packet = Datagram(B4, SERVER, sport, pcp.SERVER_PORT, request.encode()).encode()
        lwb4 = IPv6Address((0x20010DB8 << 96) + host)
        fields = (
            struct.pack("!I", 1 << 16 | 109 << 9 | 16) + lwb4.packed
            + struct.pack("!I", 1 << 16 | 110 << 9 | 16) + AFTR.packed
        )  # fmt: skip
        self.server.packet_in(fields, ethernet.frame(bytes(6), bytes(6), 0x0800, packet))

    def answers(self, count: int, seconds: float = 5.0) -> list[tuple[Result, int]]:
        with eventlet.timeout.Timeout(seconds, False):
            while len(self.session.sent) < count:
                hub.sleep(0.01)
        return [(response.result, response.lifetime) for response in self.session.sent]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    monkeypatch.setattr(pcp_server, "DEADLINE", 0.3)
    network = Network()
    yield network
    for greenlet in network.greenlets:
        hub.kill(greenlet)


def test_an_answer(network: Network) -> None:
    network.ask()
    assert network.answers(1) == [(Result.SUCCESS, 600)]
    assert len(network.table) == 1
    assert network.server.status()["pool"] == {"size": 252, "used": 1}


def test_a_binding_may_name_the_first_lwaftr_address(network: Network) -> None:
    lwb4 = IPv6Address((0x20010DB8 << 96) + 1)
    static = Binding(lwb4, IPv4Address("192.0.2.1"), 9, PREFIX.params, AFTR, Origin.STATIC)
    network.table.add(static)
    network.ask()
    assert network.answers(1) == [(Result.SUCCESS, 0xFFFFFFFF)]
    assert list(network.table) == [static]


def test_a_switch_that_does_not_confirm(network: Network) -> None:
    network.session.late = True
    network.ask()
    assert network.answers(1) == [(Result.NETWORK_FAILURE, 30)]
    network.session.late = False
    network.ask(sport=40001)
    assert network.answers(2)[1] == (Result.SUCCESS, 600)


def test_a_switch_that_confirms_late(network: Network) -> None:
    network.session.late = True
    network.ask()
    hub.sleep(0.1)  # of the 0.3 s there are
    assert network.session.sent == []
    network.session.late = False
    assert network.answers(1) == [(Result.SUCCESS, 600)]


def test_a_switch_that_refuses(network: Network) -> None:
    network.session.refused = "OFPET_FLOW_MOD_FAILED: OFPFMFC_TABLE_FULL"
    network.ask()
    assert network.answers(1) == [(Result.NETWORK_FAILURE, 30)]


def test_a_store_that_refuses(network: Network) -> None:
    def refuse(changes: Sequence[Change]) -> set[BindingKey]:
        raise StoreUnavailable("the disk is full")

    network.commit = refuse
    network.ask()
    assert network.answers(1) == [(Result.NO_RESOURCES, 30)]
    assert network.server.status()["pool"]["used"] == 0
    network.commit = network.keep
    network.ask()
    assert network.answers(2)[1] == (Result.SUCCESS, 600)


def test_a_store_that_hangs_and_comes_back(network: Network) -> None:
    back = hub.Event()

    def hang(changes: Sequence[Change]) -> set[BindingKey]:
        back.wait()
        return network.keep(changes)

    network.commit = hang
    network.ask(1)
    hub.sleep(0.05)
    network.ask(2)  # comes while the first is in the store
    assert network.answers(2) == [(Result.NO_RESOURCES, 30)] * 2
    network.commit = network.keep
    back.set()
    network.ask(1, sport=40001)
    assert network.answers(3)[2] == (Result.SUCCESS, 600)
    assert network.server.status()["waiting"] == 0
    assert len(network.table) == 1  # of who was told no, nothing was made but what was under way


def test_a_request_that_comes_again_after_it_was_too_late(network: Network) -> None:
    """The store is done with the first when the second, which is the same, waits."""
    for times in range(1, pcp_server.MOST_OF_ONE_LWB4 + 2):
        back = hub.Event()

        def hang(changes: Sequence[Change], back: hub.Event = back) -> set[BindingKey]:
            back.wait()
            return network.keep(changes)

        network.commit = hang
        network.ask()
        assert network.answers(2 * times - 1)[-1] == (Result.NO_RESOURCES, 30)
        network.ask()
        network.commit = network.keep
        back.set()
        assert network.answers(2 * times)[-1] == (Result.SUCCESS, 600)
    assert network.server.status()["waiting"] == 0
    assert network.server.status()["dropped"]["overload"] == 0


def test_other_controllers_are_always_first(network: Network) -> None:
    tried: list[BindingKey] = []

    def taken(changes: Sequence[Change]) -> set[BindingKey]:
        keys = {change.put.key for change in changes if change.put is not None}
        tried.extend(keys)
        return keys

    network.commit = taken
    network.ask()
    assert network.answers(1) == [(Result.NO_RESOURCES, 30)]
    assert len(tried) == pcp_server.ATTEMPTS
    assert network.server.status()["pool"]["used"] == 0


def test_overload_and_repetition_are_counted(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pcp_server, "MOST_WAITING", 20)
    network.session.late = True
    for _ in range(3):
        network.ask(1)
    for sport in range(50000, 50000 + 10):
        network.ask(1, sport=sport)
    for host in range(2, 30):
        network.ask(host)
    dropped = network.server.status()["dropped"]
    most = pcp_server.MOST_OF_ONE_LWB4
    assert dropped["repeated"] == 2
    assert dropped["overload"] == (1 + 10 - most) + (28 - (20 - most))
    assert len(network.answers(20)) == 20
    assert network.server.status()["waiting"] == 0
    network.session.late = False
    network.ask(99)
    assert network.answers(21)[20] == (Result.SUCCESS, 600)


def test_without_a_switch_nothing_is_sent_and_nothing_lost(network: Network) -> None:
    network.server.connect(None)
    network.ask()
    hub.sleep(0.5)
    assert network.server.status()["waiting"] == 0
    network.server.connect(cast(Session, network.session))
    network.ask()
    assert network.answers(1) == [(Result.SUCCESS, 600)]


def test_announcements_are_further_and_further_apart(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 6887 section 14.1.3; a sleep is never shorter than it should be."""
    monkeypatch.setattr(pcp_server, "ANNOUNCE_SECONDS", 0.1)
    network.server.lost(IPv6Address("2001:db8::1"), AFTR)
    assert network.answers(3) == [(Result.SUCCESS, 0)] * 3
    first, second, third = network.session.sent_at
    assert second - first >= 0.1
    assert third - second >= 0.2
