"""Service.provision: what lwB4s were given, when others have been at it meanwhile."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from ryu_lw4o6.core.binding import Binding, BindingKey, Origin
from ryu_lw4o6.store import StoreError, StoreUnavailable
from tests.rest.memory import SHARED, STATIC, MemoryService, settings

ADDRESS = IPv4Address("192.0.2.2")


def binding(host: int, psid: int, origin: Origin = Origin.PCP) -> Binding:
    lwb4 = IPv6Address((0x20010DB8 << 96) + host)
    return Binding(lwb4, ADDRESS, psid, SHARED.params, None, origin, 4e9)


@pytest.fixture
def service() -> MemoryService:
    return MemoryService(settings())


def kept(refused: Collection[BindingKey]) -> set[BindingKey]:
    """A store that keeps everything."""
    return set()


def kinds(service: MemoryService) -> list[str]:
    return [event["type"] for event in service.events.since(0, 100)]


def test_made_prolonged_and_given_back(service: MemoryService) -> None:
    made = binding(1, 5)
    assert service.changes.provision([made], [], kept) == set()
    longer = replace(made, expires_at=5e9)
    assert service.changes.provision([longer], [], kept) == set()
    assert service.table.get(made.key) == longer
    assert service.changes.provision([], [longer], kept) == set()
    assert made.key not in service.table
    assert kinds(service) == ["binding-created", "binding-deleted"]
    assert service.events.since(1, 1)[0]["lwb4"] == str(made.lwb4)


@pytest.mark.parametrize("theirs", [binding(2, 5), binding(1, 5, Origin.REST), STATIC])
def test_what_somebody_else_has_is_left_to_him(service: MemoryService, theirs: Binding) -> None:
    if theirs is not STATIC:
        service.table.add(theirs)
    ours = replace(binding(1, 5), ipv4=theirs.ipv4, psid=theirs.psid)
    told: list[Collection[BindingKey]] = []

    def commit(refused: Collection[BindingKey]) -> set[BindingKey]:
        told.append(set(refused))
        return set()

    assert service.changes.provision([ours, binding(3, 6)], [], commit) == {theirs.key}
    assert told == [{theirs.key}]
    service.changes.provision([], [ours], kept)
    assert service.table.get(theirs.key) == theirs
    assert binding(3, 6).key in service.table


def test_what_the_store_refuses_is_not_made(service: MemoryService) -> None:
    ours = [binding(1, 5), binding(2, 6)]
    refused = service.changes.provision(ours, [], lambda refused: {ours[0].key})
    assert refused == {ours[0].key}
    assert ours[0].key not in service.table
    assert ours[1].key in service.table


def test_a_store_that_is_gone(service: MemoryService) -> None:
    def gone(refused: Collection[BindingKey]) -> set[BindingKey]:
        raise StoreError("it is gone", "Find it")

    with pytest.raises(StoreUnavailable):
        service.changes.provision([binding(1, 5)], [], gone)
    assert len(service.table) == 1  # the static one


def test_a_store_that_goes_while_it_is_asked(service: MemoryService) -> None:
    """What it has kept is kept; what it has of others is learnt later."""
    ours = [binding(1, 5), binding(2, 6)]

    def commit(refused: Collection[BindingKey]) -> set[BindingKey]:
        service.store.down = True
        return {ours[0].key}

    assert service.changes.provision(ours, [], commit) == {ours[0].key}
    assert ours[1].key in service.table
    assert kinds(service) == ["binding-created"]
