"""PCP mappings in the store: who comes second is told so, and nothing of it is kept."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from ryu_lw4o6.core.binding import Binding, Origin
from ryu_lw4o6.core.pcp_server import Mapping, Subscriber
from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.provisioning.pcp_records import Change, PcpRecords
from ryu_lw4o6.store import Store

PARAMS = PortParams(0, 6)
ADDRESS = IPv4Address("192.0.2.1")
NOW = 1_700_000_000.0
NONCE = bytes(range(12))


def subscriber(host: int, psid: int, *mappings: Mapping) -> Subscriber:
    lwb4 = IPv6Address(f"2001:db8:b4::{host}")
    end = max((m.expires_at for m in mappings), default=NOW + 1)
    return Subscriber(lwb4, Binding(lwb4, ADDRESS, psid, PARAMS, None, Origin.PCP, end), mappings)


def mapping(psid: int, internal: int = 4096, expires_at: float = NOW + 3600.25) -> Mapping:
    return Mapping(17, internal, NONCE, ADDRESS, psid << 10, 1024, expires_at)


def new(after: Subscriber) -> Change:
    return Change(Subscriber(after.lwb4), after)


@pytest.fixture
def store(url: str) -> Store:
    return Store(url)


@pytest.fixture
def records(store: Store) -> PcpRecords:
    return PcpRecords(store)


def bound(store: Store) -> dict[int, IPv6Address]:
    loaded = store.load()
    assert loaded.problems == []
    return {binding.psid: binding.lwb4 for binding in loaded.bindings}


def test_changes_come_back_as_they_were(store: Store, records: PcpRecords) -> None:
    one, two = subscriber(1, 5, mapping(5), mapping(5, 80)), subscriber(2, 6, mapping(6))
    assert records.commit([new(one), new(two)], NOW) == set()
    lwb4s = [one.lwb4, two.lwb4, IPv6Address("::9")]
    found = records.mappings(lwb4s, NOW)
    assert {lwb4: set(each) for lwb4, each in found.items()} == {
        one.lwb4: set(one.mappings), two.lwb4: set(two.mappings)
    }  # fmt: skip
    assert {b.key: b for b in store.load().bindings} == {
        s.binding.key: s.binding for s in (one, two) if s.binding is not None
    }
    assert records.mappings(lwb4s, NOW + 3601) == {}


def test_who_comes_second_is_told_and_the_others_are_kept(
    store: Store, records: PcpRecords, url: str
) -> None:
    first = subscriber(1, 5, mapping(5))
    records.commit([new(first)], NOW)
    late, fine = subscriber(2, 5, mapping(5)), subscriber(3, 6, mapping(6))
    other = PcpRecords(Store(url))
    assert late.binding is not None
    assert other.commit([new(late), new(fine)], NOW) == {late.binding.key}
    assert bound(store) == {5: first.lwb4, 6: fine.lwb4}
    assert set(records.mappings([s.lwb4 for s in (first, late, fine)], NOW)) == {
        first.lwb4, fine.lwb4
    }  # fmt: skip


def test_renewal_is_the_owners(store: Store, records: PcpRecords) -> None:
    first = subscriber(1, 5, mapping(5))
    records.commit([new(first)], NOW)
    longer = subscriber(1, 5, mapping(5, expires_at=NOW + 7200))
    assert records.commit([Change(first, longer)], NOW) == set()
    (binding,) = store.load().bindings
    assert binding == longer.binding
    # What is over, and still there, may be had by another one; then its renewal comes too late.
    taken = subscriber(2, 5, mapping(5, expires_at=NOW + 9000))
    assert records.commit([new(taken)], NOW + 7199) != set()
    assert records.commit([new(taken)], NOW + 7200) == set()
    again = subscriber(1, 5, mapping(5, expires_at=NOW + 9999))
    assert records.commit([Change(longer, again)], NOW + 7200) != set()
    assert bound(store) == {5: taken.lwb4}


def test_deletion(store: Store, records: PcpRecords) -> None:
    one = subscriber(1, 5, mapping(5), mapping(5, 80))
    records.commit([new(one)], NOW)
    half = replace(one, mappings=one.mappings[:1])
    records.commit([Change(one, half)], NOW)
    assert records.mappings([one.lwb4], NOW) == {one.lwb4: list(half.mappings)}
    records.commit([Change(half, Subscriber(one.lwb4))], NOW)
    assert records.mappings([one.lwb4], NOW) == {}
    assert bound(store) == {}
    # Of what another one has by now, nothing is deleted.
    other = subscriber(2, 5, mapping(5))
    records.commit([new(other)], NOW)
    records.commit([Change(half, Subscriber(one.lwb4))], NOW)
    assert bound(store) == {5: other.lwb4}


def test_a_binding_that_others_made_is_left_alone(store: Store, records: PcpRecords) -> None:
    one = subscriber(1, 5)
    assert one.binding is not None
    static = replace(one, binding=replace(one.binding, origin=Origin.STATIC))
    mapped = replace(static, mappings=(mapping(5),))
    assert records.commit([Change(static, mapped)], NOW) == set()
    assert bound(store) == {}
    assert records.mappings([one.lwb4], NOW) == {one.lwb4: [mapping(5)]}
    records.expire(NOW + 4000)
    assert records.mappings([one.lwb4], NOW) == {}


def test_many_at_once(store: Store, records: PcpRecords) -> None:
    changes = [
        new(
            Subscriber(
                lwb4 := IPv6Address((0x20010DB8 << 96) + number),
                Binding(lwb4, ADDRESS + number, 7, PARAMS, None, Origin.PCP, NOW + 60),
                (replace(mapping(7), external_address=ADDRESS + number),),
            )
        )
        for number in range(3000)
    ]
    assert records.commit(changes[:1500], NOW) == set()
    assert len(records.commit(changes, NOW + 1)) == 0
    assert len(store.load().bindings) == 3000
    assert len(records.mappings([c.after.lwb4 for c in changes], NOW)) == 3000


def test_the_epoch_begins_with_the_store(records: PcpRecords, url: str) -> None:
    other = PcpRecords(Store(url))
    moment = 4_000_000_000.5
    assert other.epoch(moment) == records.epoch(moment) > 0
    assert records.epoch(moment + 100) == records.epoch(moment) + 100
    assert records.epoch(0) == 0
