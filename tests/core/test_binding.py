"""The binding table against a model that does it the slow way."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ryu_lw4o6.core.binding import (
    Binding,
    BindingConflict,
    BindingKey,
    BindingTable,
    Prefix,
    UnknownPrefix,
)
from ryu_lw4o6.core.portset import FULL_ADDRESS, PortParams

SHARED = Prefix(IPv4Network("192.0.2.0/30"), PortParams(6, 2))
WHOLE = Prefix(IPv4Network("203.0.113.4/31"), FULL_ADDRESS)
ONE = Prefix(IPv4Network("198.51.100.7/32"), PortParams(0, 4))
PREFIXES = (SHARED, WHOLE, ONE)
LWB4 = IPv6Address("2001:db8:b4::1")


def make(ipv4: str, psid: int, lwb4: str = "2001:db8:b4::1", prefix: Prefix = SHARED) -> Binding:
    return Binding(IPv6Address(lwb4), IPv4Address(ipv4), psid, prefix.params)


@given(st.ip_addresses(v=4), st.integers(0, 0xFFFF), st.ip_addresses(v=4), st.integers(0, 0xFFFF))
def test_keys(ipv4: IPv4Address, psid: int, other: IPv4Address, others: int) -> None:
    key = BindingKey(ipv4, psid)
    assert (key.ipv4, key.psid, str(key)) == (ipv4, psid, f"{ipv4}/{psid}")
    assert (key == BindingKey(other, others)) == ((ipv4, psid) == (other, others))
    assert (key < BindingKey(other, others)) == ((ipv4, psid) < (other, others))


@pytest.mark.parametrize("psid", [-1, 65536])
def test_what_is_no_psid_is_no_part_of_a_key(psid: int) -> None:
    """It would be the key of another address."""
    with pytest.raises(ValueError, match=f"{psid} is no PSID"):
        BindingKey(IPv4Address("192.0.2.1"), psid)


def test_lookups_by_hand() -> None:
    table = BindingTable(PREFIXES)
    # PSID offset 6, length 2: of each 1024 ports PSID 1 has those from 256 to 511.
    shared, whole = make("192.0.2.1", 1), make("203.0.113.5", 0, prefix=WHOLE)
    table.add(shared)
    table.add(whole)
    assert table.by_port(IPv4Address("192.0.2.1"), 1024 + 256) is shared
    assert table.by_port(IPv4Address("192.0.2.1"), 1024 + 511) is shared
    assert table.by_port(IPv4Address("192.0.2.1"), 1024 + 512) is None
    assert table.by_port(IPv4Address("192.0.2.1"), 300) is None  # excluded
    assert table.by_port(IPv4Address("192.0.2.2"), 1024 + 256) is None
    assert table.by_port(IPv4Address("203.0.113.5"), 0) is whole
    assert table.by_lwb4(LWB4) == [shared, whole]
    with pytest.raises(UnknownPrefix, match=r"203\.0\.113\.6"):
        table.by_port(IPv4Address("203.0.113.6"), 80)


def test_a_watcher_knows_what_is_bound() -> None:
    table = BindingTable(PREFIXES)
    first, second = make("192.0.2.1", 1), make("192.0.2.1", 2)
    table.add(first)
    bound: dict[BindingKey, bool] = {}
    table.watch(lambda binding, there: bound.update({binding.key: there}))
    assert bound == {first.key: True}
    table.add(second)
    table.replace(make("192.0.2.1", 1, "2001:db8:b4::2"))
    table.remove(second.key)
    assert bound == {first.key: True, second.key: False}


def test_a_port_set_is_bound_once() -> None:
    table = BindingTable(PREFIXES)
    table.add(make("192.0.2.1", 1))
    version = table.version
    with pytest.raises(BindingConflict, match=r"192\.0\.2\.1/1 is already bound to lwB4 2001:"):
        table.add(make("192.0.2.1", 1, "2001:db8:b4::2"))
    assert table.by_lwb4(IPv6Address("2001:db8:b4::2")) == []
    assert table.version == version


@pytest.mark.parametrize(
    ("binding", "error"),
    [
        (make("192.0.2.4", 0), UnknownPrefix),
        (make("192.0.2.1", 4), ValueError),  # two bits: 0 to 3
        (make("203.0.113.4", 1, prefix=WHOLE), ValueError),
        (make("203.0.113.4", 0), ValueError),  # the parameters of another prefix
    ],
)
def test_what_does_not_fit_a_prefix_is_refused(binding: Binding, error: type[Exception]) -> None:
    table = BindingTable(PREFIXES)
    with pytest.raises(error):
        table.add(binding)
    with pytest.raises(error):
        table.replace(binding)
    assert len(table) == 0


@given(st.lists(st.one_of(st.none(), st.floats(0, 100)), max_size=4), st.floats(0, 100))
def test_expired_bindings(ends: list[float | None], now: float) -> None:
    table = BindingTable(PREFIXES)
    for psid, end in enumerate(ends):
        table.add(Binding(LWB4, IPv4Address("192.0.2.1"), psid, SHARED.params, expires_at=end))
    expected = {psid for psid, end in enumerate(ends) if end is not None and end <= now}
    assert {key.psid for key in table.expired(now)} == expected


LWB4S = st.sampled_from([IPv6Address(f"2001:db8:b4::{n}") for n in range(1, 4)])
ENDS = st.one_of(st.none(), st.floats(-1, 5), st.integers(-1, 5).map(float))
KEYS = st.one_of(
    st.builds(
        BindingKey,
        st.sampled_from(list(SHARED.network)),
        st.integers(0, SHARED.params.psid_count - 1),
    ),
    st.builds(BindingKey, st.sampled_from(list(WHOLE.network)), st.just(0)),
    st.builds(BindingKey, st.just(IPv4Address("198.51.100.7")), st.integers(0, 15)),
)


class TableMachine(RuleBasedStateMachine):
    """The model is a dict of keys; whoever owns a port is found by looking at all port ranges."""

    def __init__(self) -> None:
        super().__init__()
        self.table = BindingTable(PREFIXES)
        self.model: dict[BindingKey, Binding] = {}

    def binding(self, key: BindingKey, lwb4: IPv6Address, end: float | None) -> Binding:
        prefix = next(p for p in PREFIXES if key.ipv4 in p.network)
        return Binding(lwb4, key.ipv4, key.psid, prefix.params, expires_at=end)

    @rule(key=KEYS, lwb4=LWB4S, end=ENDS)
    def add(self, key: BindingKey, lwb4: IPv6Address, end: float | None) -> None:
        binding = self.binding(key, lwb4, end)
        if key in self.model:
            with pytest.raises(BindingConflict) as raised:
                self.table.add(binding)
            assert raised.value.existing is self.model[key]
        else:
            self.table.add(binding)
            self.model[key] = binding

    @rule(key=KEYS, lwb4=LWB4S, end=ENDS)
    def replace(self, key: BindingKey, lwb4: IPv6Address, end: float | None) -> None:
        binding = self.binding(key, lwb4, end)
        assert self.table.replace(binding) is self.model.get(key)
        self.model[key] = binding

    @rule(key=KEYS)
    def remove(self, key: BindingKey) -> None:
        assert self.table.remove(key) is self.model.pop(key, None)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), port=st.integers(0, 65535))
    def look_up_a_port(self, data: st.DataObject, port: int) -> None:
        ipv4 = data.draw(st.sampled_from(sorted({key.ipv4 for key in self.model})))
        owners = [
            binding
            for binding in self.model.values()
            if binding.ipv4 == ipv4
            and any(port in ports for ports in binding.params.port_ranges(binding.psid))
        ]
        assert len(owners) <= 1
        assert self.table.by_port(ipv4, port) is (owners[0] if owners else None)

    @rule(lwb4=LWB4S)
    def look_up_an_lwb4(self, lwb4: IPv6Address) -> None:
        owned = {key for key, binding in self.model.items() if binding.lwb4 == lwb4}
        assert {binding.key for binding in self.table.by_lwb4(lwb4)} == owned

    @rule(now=st.floats(-1, 5))
    def look_up_who_is_over(self, now: float) -> None:
        over = {
            key
            for key, binding in self.model.items()
            if binding.expires_at is not None and binding.expires_at <= now
        }
        found = self.table.expired(now)
        assert (set(found), len(found)) == (over, len(over))

    @invariant()
    def holds_the_same(self) -> None:
        assert len(self.table) == len(self.model)
        assert set(self.table) == set(self.model.values())


TestTable = TableMachine.TestCase
