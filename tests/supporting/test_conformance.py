"""What every supporting system does alike."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from ryu_lw4o6.core.binding import Binding, BindingKey
from ryu_lw4o6.supporting.kea import KeaSystem
from ryu_lw4o6.supporting.paging import PAGE
from tests.rules.samples import A6K6, FULL, SECOND_BR
from tests.supporting.conftest import Backend

ONE = Binding(IPv6Address("2001:db8:b4::1"), IPv4Address("192.0.2.1"), 3, A6K6)
TWO = Binding(
    IPv6Address("2001:db8:b4::2"), IPv4Address("192.0.2.1"), 63, A6K6, SECOND_BR,
    expires_at=1800000000.25,
)  # fmt: skip
WHOLE = Binding(IPv6Address("2001:db8:b4::3"), IPv4Address("203.0.113.5"), 0, FULL)


def lwb4s(count: int) -> list[Binding]:
    """So many of them, 64 to an address."""
    return [
        Binding(
            IPv6Address(f"2001:db8:b4::{n:x}"), IPv4Address("192.0.2.0") + n // 64, n % 64, A6K6
        )
        for n in range(count)
    ]


def found(backend: Backend, *keys: BindingKey) -> dict[BindingKey, tuple[object, ...]]:
    """What is known of these keys, but for where it came from."""
    return {
        key: (b.lwb4, b.ipv4, b.psid, b.params, b.br_address, b.expires_at)
        for key, b in backend.system.find(keys).items()
    }


def told(backend: Backend, *bindings: Binding) -> dict[BindingKey, tuple[object, ...]]:
    return {
        b.key: (
            b.lwb4, b.ipv4, b.psid, b.params, b.br_address,
            None if b.expires_at is None else backend.ends(b.expires_at),
        )
        for b in bindings
    }  # fmt: skip


def test_it_says_who_holds_an_address_and_port_set(backend: Backend) -> None:
    backend.fill([ONE, TWO, WHOLE])
    assert found(backend, ONE.key) == told(backend, ONE)
    assert found(backend, ONE.key, TWO.key, WHOLE.key) == told(backend, ONE, TWO, WHOLE)


def test_what_is_free_is_left_out(backend: Backend) -> None:
    backend.fill([ONE])
    free = BindingKey(IPv4Address("192.0.2.1"), 4)
    other = BindingKey(IPv4Address("192.0.2.3"), 3)
    assert found(backend, free, ONE.key, other) == told(backend, ONE)
    assert found(backend, free) == {}
    assert found(backend) == {}


def test_an_empty_one_knows_nobody(backend: Backend) -> None:
    backend.fill([])
    assert found(backend, ONE.key) == {}


def test_it_answers_as_of_now(backend: Backend) -> None:
    backend.fill([ONE, WHOLE])
    assert found(backend, ONE.key, WHOLE.key) == told(backend, ONE, WHOLE)
    moved = replace(ONE, lwb4=IPv6Address("2001:db8:b4::99"))
    backend.fill([moved])
    assert found(backend, ONE.key, WHOLE.key) == told(backend, moved)


def test_many_at_once(backend: Backend) -> None:
    many = lwb4s(500)
    backend.fill(many)
    assert found(backend, *(b.key for b in many)) == told(backend, *many)


def test_all_are_read_in_parts(backend: Backend) -> None:
    many = lwb4s(PAGE + 50)
    backend.fill([*many, WHOLE])
    backend.system.wait_for_changes(0)  # nobody else reads what cannot be asked for all of it
    pages = list(backend.system.pages())
    assert max(map(len, pages)) <= PAGE
    assert {b.key: b.lwb4 for page in pages for b in page} == {
        b.key: b.lwb4 for b in (*many, WHOLE)
    }
    assert sum(map(len, pages)) == len(many) + 1


def test_a_part_is_as_it_is_when_it_is_read(backend: Backend) -> None:
    many = lwb4s(PAGE + 50)
    backend.fill(many)
    backend.system.wait_for_changes(0)
    pages = backend.system.pages()
    first = {binding.key for binding in next(pages)}
    left = [binding for binding in many if binding.key in first]
    backend.fill(left)
    if not isinstance(backend.system, KeaSystem):  # which is read every now and then
        backend.system.wait_for_changes(0)
        assert [binding for page in pages for binding in page] == []


def test_a_network_is_read_whole(backend: Backend) -> None:
    backend.fill([ONE, TWO, WHOLE])
    backend.system.wait_for_changes(0)
    pages = backend.system.pages(IPv4Network("192.0.2.0/24"))
    found = {binding.key for page in pages for binding in page}
    assert {ONE.key, TWO.key} <= found <= {ONE.key, TWO.key, WHOLE.key}


def test_there_is_nothing_to_read_in_an_empty_one(backend: Backend) -> None:
    backend.fill([])
    backend.system.wait_for_changes(0)
    assert [binding for page in backend.system.pages() for binding in page] == []
