"""When all of a prefix is read, and what becomes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address

import eventlet
import pytest

from ryu_lw4o6 import ahead
from ryu_lw4o6.ahead import ONCE_READ, WHILE_READING, ReadAhead
from ryu_lw4o6.core.binding import Binding, BindingKey, BindingTable
from ryu_lw4o6.core.settings import Failover
from ryu_lw4o6.supporting import SupportingSystem, SystemUnavailable
from tests.rules.samples import A0K2, A6K6, PREFIXES, instance

MANY = 10
SHARED = [
    Binding(IPv6Address(n + 1), IPv4Address("192.0.2.0") + n // 64, n % 64, A6K6)
    for n in range(100)
]
OTHERS = [
    Binding(IPv6Address(n + 1000), IPv4Address("198.18.0.0") + n // 4, n % 4, A0K2)
    for n in range(20)
]
KEYS = [binding.key for binding in SHARED]


class System:
    """Has ``parts`` to read, each when it ``may_answer``."""

    def __init__(self) -> None:
        self.parts: list[list[Binding]] = [SHARED[:50], [*SHARED[50:], *OTHERS]]
        self.read = 0
        self.networks: list[IPv4Network | None] = []
        self.asked = 0
        self.may_answer = threading.Semaphore(1000)
        self.down = False

    def pages(self, network: IPv4Network | None = None) -> Iterator[list[Binding]]:
        self.read += 1
        self.networks.append(network)
        for part in self.parts:
            self.asked += 1
            if not self.may_answer.acquire(timeout=10) or self.down:
                raise SystemUnavailable("it is down", "Start it")
            yield part


class Bench:
    def __init__(self, many: int = MANY) -> None:
        self.system = System()
        self.table = BindingTable(PREFIXES)
        self.batches: list[list[BindingKey]] = []
        self.backlog = 0
        system: SupportingSystem = self.system  # type: ignore[assignment]
        served = instance(failover=Failover.DATA_PACKET)
        self.ahead = ReadAhead(
            system, many, self.table, [served], self.follow, lambda: self.backlog
        )
        self.running = eventlet.spawn(self.ahead.run)

    def follow(self, bindings: Sequence[Binding], now: float) -> None:
        assert abs(now - time.time()) < 10
        self.batches.append([binding.key for binding in bindings])
        for binding in bindings:
            self.table.add(binding)

    def wait(self, condition: Callable[[], object]) -> None:
        with eventlet.Timeout(5):
            while not condition():
                eventlet.sleep(0.005)

    def wait_read(self) -> None:
        self.wait(lambda: self.ahead.crowd() == ONCE_READ)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.running.kill()


def nothing_is_read(bench: Bench) -> bool:
    eventlet.sleep(0.1)
    return bench.system.read == 0


def test_what_is_known_of_a_prefix_is_made_once_many_were_asked_about(bench: Bench) -> None:
    bench.ahead.accepted(KEYS[:4])
    bench.ahead.accepted(KEYS[4:9])
    assert nothing_is_read(bench)
    bench.ahead.accepted(KEYS[9:10])
    bench.wait_read()
    assert {binding.key for binding in bench.table} == set(KEYS)
    assert [len(batch) for batch in bench.batches] == [50, 50]  # none of another prefix
    assert bench.system.networks == [IPv4Network("192.0.2.0/24")]


def test_so_many_have_to_come_within_a_second(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "SECONDS", 0.05)
    for at in range(0, 30, 6):
        bench.ahead.accepted(KEYS[at : at + 6])
        eventlet.sleep(0.06)
    assert bench.system.read == 0


def test_they_are_counted_by_prefix(bench: Bench) -> None:
    bench.ahead.accepted([*KEYS[:9], *(binding.key for binding in OTHERS[:9])])
    assert nothing_is_read(bench)
    bench.ahead.accepted([OTHERS[9].key])
    bench.wait_read()
    assert {binding.key for binding in bench.table} == {binding.key for binding in OTHERS}


def test_0_is_never(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(0)
    bench.ahead.accepted(KEYS)
    assert nothing_is_read(bench)
    assert bench.ahead.crowd() == 1.0
    bench.running.kill()


def test_it_is_not_read_again_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.system.may_answer = threading.Semaphore(0)
    bench.ahead.accepted(KEYS[:10])
    bench.wait(lambda: bench.system.asked)
    bench.ahead.accepted(KEYS[10:30])  # while it is read
    bench.system.may_answer.release(2)
    bench.wait_read()
    bench.ahead.accepted(KEYS[30:50])
    eventlet.sleep(0.1)
    assert bench.system.read == 1
    monkeypatch.setattr(ahead, "AGAIN_SECONDS", 0.0)
    bench.ahead.accepted(KEYS[50:70])
    bench.system.may_answer.release(2)
    bench.wait(lambda: bench.system.read == 2)


def test_few_new_lwb4s_get_in_while_it_is_read_and_many_afterwards(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.ahead.crowd() == 1.0
    bench.system.may_answer = threading.Semaphore(0)
    bench.ahead.accepted(KEYS[:10])
    bench.wait(lambda: bench.system.asked)
    assert bench.ahead.crowd() == WHILE_READING
    assert bench.ahead.reading == ["192.0.2.0/24"]
    monkeypatch.setattr(ahead, "STALLED_SECONDS", 0.0)  # it hangs
    assert bench.ahead.crowd() == 1.0
    bench.system.may_answer.release(2)
    bench.wait_read()
    assert bench.ahead.reading == []
    monkeypatch.setattr(ahead, "AGAIN_SECONDS", 0.0)
    assert bench.ahead.crowd() == 1.0


def test_what_is_known_already_or_over_is_left_alone(bench: Bench) -> None:
    better = replace(SHARED[3], lwb4=IPv6Address("2001:db8:b4::99"))
    bench.table.add(better)
    bench.system.parts = [[replace(SHARED[2], expires_at=time.time() - 1), *SHARED[3:6]]]
    bench.ahead.accepted(KEYS[:10])
    bench.wait_read()
    assert {b.key: b.lwb4 for b in bench.table} == {
        b.key: b.lwb4 for b in (better, SHARED[4], SHARED[5])
    }


@pytest.mark.parametrize("told", [[KEYS[60], KEYS[70]], None])
def test_what_changes_while_it_is_read_is_not_made(
    bench: Bench, told: list[BindingKey] | None
) -> None:
    """The part may have been read before the change, and nobody tells of that a second time."""
    bench.system.may_answer = threading.Semaphore(1)
    bench.ahead.accepted(KEYS[:10])
    bench.wait(lambda: bench.system.asked == 2)
    bench.ahead.changed(told)
    bench.system.may_answer.release()
    bench.wait_read()
    gone = set(KEYS[50:]) if told is None else set(told)
    assert {binding.key for binding in bench.table} == set(KEYS) - gone


def test_the_switches_are_waited_for(bench: Bench) -> None:
    bench.backlog = ahead.MOST_BEHIND + 1
    bench.ahead.accepted(KEYS[:10])
    bench.wait(lambda: bench.batches)
    eventlet.sleep(0.1)
    assert bench.system.asked == 1
    bench.backlog = 0
    bench.wait_read()
    assert len(bench.table) == len(SHARED)


def test_one_that_dies_is_read_again_when_it_is_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ahead, "AGAIN_SECONDS", 0.0)
    bench.system.down = True
    bench.ahead.accepted(KEYS[:10])
    bench.wait(lambda: caplog.messages)
    assert caplog.messages == [
        "supporting system: it cannot be read to its end: it is down. Start it"
    ]
    bench.system.down = False
    eventlet.sleep(0.05)
    bench.ahead.accepted(KEYS[:10])
    bench.wait(lambda: len(bench.table) == len(SHARED))
