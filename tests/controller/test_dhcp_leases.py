"""What becomes of leases: bindings first, acknowledgements then, or neither."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any, cast

import eventlet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_lw4o6.core.binding import Binding, BindingKey, BindingTable, Origin
from ryu_lw4o6.core.dhcp_relay import Drop, Dropped
from ryu_lw4o6.provisioning import confirmation, dhcp_relay
from ryu_lw4o6.provisioning.confirmation import Confirmations
from ryu_lw4o6.provisioning.dhcp_relay import Choice, DhcpRelay, _Job, choose
from ryu_lw4o6.session import Session
from ryu_lw4o6.store import StoreUnavailable
from tests.fuzz.dhcp_relay import INSTANCE
from tests.rules.samples import A6K6, PREFIXES

LWB4, OTHER = IPv6Address("2001:db8:b4::1"), IPv6Address("2001:db8:b4::2")
ADDRESS = IPv4Address("192.0.2.1")


def lease(psid: int = 3, lwb4: IPv6Address = LWB4, origin: Origin = Origin.DHCP) -> Binding:
    return Binding(lwb4, ADDRESS, psid, A6K6, None, origin, 2e9)


def given_job(binding: Binding) -> _Job:
    return _Job(binding.lwb4, binding.key, binding)


def released(binding: Binding) -> _Job:
    return _Job(binding.lwb4, binding.key)


def table(*bindings: Binding) -> BindingTable:
    made = BindingTable(PREFIXES)
    for binding in bindings:
        made.add(binding)
    return made


# --- what is chosen -----------------------------------------------------------------------------


def test_a_lease_takes_the_place_of_an_older_one() -> None:
    for origin in (Origin.DHCP, Origin.VALIDATED):
        held = table(lease(3, OTHER, origin))
        assert choose([given_job(lease(3))], held) == ([lease(3)], [])


@pytest.mark.parametrize("origin", [Origin.STATIC, Origin.REST, Origin.PCP])
def test_what_somebody_decided_stays(origin: Origin) -> None:
    job = given_job(lease(3))
    assert choose([job], table(lease(3, OTHER, origin))) == ([], [])
    assert job.refused
    own = given_job(lease(3))
    assert choose([own], table(lease(3, LWB4, origin))) == ([], [])
    assert not own.refused
    assert choose([released(lease(3))], table(lease(3, LWB4, origin))) == ([], [])


def test_an_lwb4_has_one_lease() -> None:
    held = table(lease(3), lease(4, LWB4, Origin.REST))
    assert choose([given_job(lease(5))], held) == ([lease(5)], [lease(3).key])
    both = [given_job(lease(5)), given_job(lease(6))]
    assert choose(both, table()) == ([lease(6)], [lease(5).key])


def test_nobody_releases_for_another() -> None:
    assert choose([released(lease(3, OTHER))], table(lease(3))) == ([], [])
    assert choose([released(lease(3))], table(lease(3))) == ([], [lease(3).key])


def test_jobs_are_done_in_their_order() -> None:
    first, then = given_job(lease(3)), given_job(lease(3, OTHER))
    assert choose([first, released(lease(3)), then], table()) == ([lease(3, OTHER)], [])
    assert choose([first, released(lease(3))], table()) == ([], [lease(3).key])


leases = st.builds(
    lease, st.integers(0, 3), st.sampled_from([LWB4, OTHER]), st.sampled_from(list(Origin))
)
jobs = st.one_of(
    leases.map(lambda b: given_job(replace(b, origin=Origin.DHCP))), leases.map(released)
)


@given(st.lists(leases, unique_by=lambda b: b.key), st.lists(jobs, max_size=8))
def test_a_batch_ends_as_its_jobs_would_one_by_one(held: list[Binding], todo: list[_Job]) -> None:
    def apply(choice: Choice, to: BindingTable) -> None:
        put, gone = choice
        for key in gone:
            to.remove(key)
        for binding in put:
            to.replace(binding)

    at_once, in_turn = table(*held), table(*held)
    apply(choose(todo, at_once), at_once)
    for job in todo:
        apply(choose([job], in_turn), in_turn)
    assert dict(at_once.items()) == dict(in_turn.items())
    for lwb4 in (LWB4, OTHER):
        before = sum(b.lwb4 == lwb4 and b.origin is Origin.DHCP for b in held)
        after = sum(b.origin is Origin.DHCP for b in at_once.by_lwb4(lwb4))
        assert after <= max(before, 1)


# --- and what follows ---------------------------------------------------------------------------


class Switch:
    """A session whose switch has confirmed all but ``waiting``, and refused ``refused``."""

    ports = object()

    def __init__(self) -> None:
        self.waiting: set[BindingKey] = set()
        self.refused: set[BindingKey] = set()

    def pending(self, key: BindingKey) -> bool:
        return key in self.waiting

    def failure(self, key: BindingKey) -> str | None:
        return "table full" if key in self.refused else None

    def wait_progress(self, timeout: float) -> bool:
        eventlet.sleep(0.005)
        return True


class Bench:
    def __init__(self) -> None:
        self.switch: Switch | None = Switch()
        self.store_is_down = False
        self.table = table()
        self.sent: list[BindingKey] = []
        self.relay = DhcpRelay(INSTANCE, self.alter, lambda: cast(Session | None, self.switch))
        self._greenlet = eventlet.spawn(self.relay._confirmations.run)

    def alter(self, choose: Callable[[BindingTable], Choice], reason: str) -> None:
        put, _ = choose(self.table)
        if self.store_is_down:
            raise StoreUnavailable("the disk is full")
        for binding in put:
            self.table.replace(binding)

    def lease(self, binding: Binding) -> None:
        self.relay._work(
            [_Job(binding.lwb4, binding.key, binding, lambda: self.sent.append(binding.key))]
        )

    def close(self) -> None:
        self._greenlet.kill()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(confirmation, "APPLY_SECONDS", 0.2)
    made = Bench()
    yield made
    made.close()


def wait(condition: Callable[[], Any]) -> None:
    with eventlet.Timeout(5):
        while not condition():
            eventlet.sleep(0.005)


def test_an_acknowledgement_waits_for_the_switch(bench: Bench) -> None:
    assert bench.switch is not None
    bench.switch.waiting.add(lease(3).key)
    bench.lease(lease(3))
    bench.lease(lease(4, OTHER))
    assert bench.sent == [lease(4).key]
    assert bench.relay.status()["waiting"] == 1
    bench.switch.waiting.clear()
    wait(lambda: bench.sent == [lease(4).key, lease(3).key])
    assert bench.relay.counts["leases"] == 2


@pytest.mark.parametrize("fault", ["refuses", "is silent", "is gone", "store"])
def test_what_is_not_applied_is_not_acknowledged(bench: Bench, fault: str) -> None:
    assert bench.switch is not None
    if fault == "refuses":
        bench.switch.refused.add(lease(3).key)
    elif fault == "is silent":
        bench.switch.waiting.add(lease(3).key)
    elif fault == "is gone":
        bench.switch = None
    else:
        bench.store_is_down = True
    bench.lease(lease(3))
    wait(lambda: bench.relay.dropped[Drop.NOT_APPLIED] == 1)
    assert bench.sent == []
    assert len(bench.relay._confirmations) == 0


def test_a_switch_that_comes_back_in_time(bench: Bench) -> None:
    switch, bench.switch = bench.switch, None
    bench.lease(lease(3))
    bench.switch = switch
    wait(lambda: bench.sent)


def test_too_many_leases_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dhcp_relay, "MOST_JOBS", 1)
    bench.relay._put(given_job(lease(3)))
    with pytest.raises(Dropped) as caught:
        bench.relay._put(given_job(lease(4)))
    assert caught.value.drop is Drop.OVERLOAD


def test_a_confirmation_that_is_there_is_told_at_once() -> None:
    told: list[str | None] = []
    Confirmations(lambda: cast(Session, Switch())).wait(lease(3).key, told.append)
    assert told == [None]
