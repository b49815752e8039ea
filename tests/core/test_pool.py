"""Pools against a model: a set of what is taken."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_lw4o6.core.binding import BindingKey, Prefix
from ryu_lw4o6.core.pool import AddressPool, AddressRange
from ryu_lw4o6.core.portset import FULL_ADDRESS, PortParams

SHARED = Prefix(IPv4Network("192.0.2.0/24"), PortParams(0, 6))  # 64 sets of 1024 ports
HALVES = Prefix(IPv4Network("198.51.100.0/24"), PortParams(0, 1))
WHOLE = Prefix(IPv4Network("203.0.113.0/24"), FULL_ADDRESS)


def span(prefix: Prefix, first: int, last: int) -> AddressRange:
    return AddressRange(prefix.network[first], prefix.network[last], prefix)


def everything(ranges: list[AddressRange], *, system_ports: bool) -> set[BindingKey]:
    """Every set that the ranges have to give, counted port by port."""
    keys = set()
    for each in ranges:
        params = each.prefix.params
        for number in range(int(each.first), int(each.last) + 1):
            for psid in range(params.psid_count):
                lowest = next(params.port_ranges(psid)).start
                if system_ports or not params.shared or lowest >= 1024:
                    keys.add(BindingKey(IPv4Address(number), psid))
    return keys


@pytest.mark.parametrize("system_ports", [True, False])
def test_every_set_is_given_out_once(system_ports: bool) -> None:
    ranges = [span(SHARED, 1, 3), span(HALVES, 7, 9), span(WHOLE, 0, 4)]
    pool = AddressPool(ranges, system_ports=system_ports)
    left = everything(ranges, system_ports=system_ports)
    assert pool.size == len(left)
    for seed in range(len(left)):
        found = pool.find(seed * 7919)
        assert found is not None
        key, params = found
        (prefix,) = (each for each in (SHARED, HALVES, WHOLE) if key.ipv4 in each.network)
        assert params == prefix.params
        left.remove(key)
        pool.mark(key, True)
    assert not left
    assert pool.used == pool.size
    assert pool.find(0) is None


def test_a_suggestion_is_followed_where_it_can_be() -> None:
    pool = AddressPool([span(SHARED, 1, 3)])
    address = IPv4Address("192.0.2.2")
    wanted = BindingKey(address, 5)  # ports 5120 to 6143
    for strict in (True, False):
        assert pool.find(1, address, 5500, strict=strict) == (wanted, SHARED.params)
    pool.mark(wanted, True)
    assert pool.find(1, address, 5500, strict=True) is None
    other = pool.find(1, address, 5500)
    assert other is not None
    assert other[0] != wanted
    found = pool.find(1, address)
    assert found is not None
    assert found[0].ipv4 == address
    assert pool.find(1, IPv4Address("192.0.2.4"), strict=True) is None  # not of the pool
    assert pool.find(1, address, 80, strict=True) is None  # a system port
    for psid in range(1, 64):
        pool.mark(BindingKey(address, psid), True)
    assert pool.find(1, address, strict=True) is None
    found = pool.find(1, address)
    assert found is not None
    assert found[0].ipv4 != address


def test_a_port_is_found_on_any_address() -> None:
    pool = AddressPool([span(SHARED, 1, 2), span(SHARED, 9, 9)])
    found = set()
    for _ in range(3):
        key, _ = pool.find(7, port=5500, strict=True) or pytest.fail("not found")
        found.add(key)
        pool.mark(key, True)
    assert found == {BindingKey(SHARED.network[host], 5) for host in (1, 2, 9)}
    assert pool.find(7, port=5500, strict=True) is None
    assert pool.find(7, port=5500) is not None


def test_the_same_seed_finds_the_same_set() -> None:
    pool = AddressPool([span(SHARED, 0, 255)])
    found = [pool.find(seed * 0x9E3779B1 % (1 << 32)) for seed in range(200)]
    assert found == [pool.find(seed * 0x9E3779B1 % (1 << 32)) for seed in range(200)]
    assert len(set(found)) > 190


def test_an_empty_pool_has_nothing() -> None:
    assert AddressPool([]).find(5) is None
    assert AddressPool([span(HALVES, 0, 0)]).size == 1  # the other half has system ports


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 20), st.integers(0, 63), st.integers(0, 1 << 40)),
        max_size=200,
    )
)
def test_against_a_model(steps: list[tuple[bool, int, int, int]]) -> None:
    ranges = [span(SHARED, 3, 5), span(WHOLE, 10, 12)]
    pool = AddressPool(ranges)
    free = everything(ranges, system_ports=False)
    all_of_it = set(free)
    for take, host, psid, seed in steps:
        if take and (found := pool.find(seed)) is not None:
            key = found[0]
            assert key in free
        else:
            prefix = (SHARED, WHOLE)[host > 9]
            key = BindingKey(prefix.network[host], psid % prefix.params.psid_count)
        pool.mark(key, take)
        if take:
            free.discard(key)
        elif key in all_of_it:
            free.add(key)
        assert pool.used == len(all_of_it) - len(free)
        assert (pool.find(seed) is None) == (not free)
