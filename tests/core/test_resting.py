"""When a port set that was given back may be somebody else's."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest

from ryu_lw4o6.core import resting
from ryu_lw4o6.core.binding import Binding, BindingKey, BindingTable, Origin, Prefix
from ryu_lw4o6.core.pool import AddressPool, AddressRange
from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.core.resting import Resting

PREFIX = Prefix(IPv4Network("192.0.2.0/24"), PortParams(0, 2))  # 4 sets of 16384 ports
ADDRESS = IPv4Address("192.0.2.1")
LWB4, OTHER = IPv6Address("2001:db8:b4::1"), IPv6Address("2001:db8:b4::2")


class Rig:
    """Sets 1 to 3 of one address are given out."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pool = AddressPool([AddressRange(ADDRESS, ADDRESS, PREFIX)])
        self.resting = Resting(self.pool, lambda: self.now)
        self.table = BindingTable([PREFIX])
        self.table.watch(self.resting.changed)

    def give(self, psid: int, lwb4: IPv6Address, origin: Origin = Origin.PCP) -> None:
        self.table.replace(Binding(lwb4, ADDRESS, psid, PREFIX.params, origin=origin))

    def take_back(self, *psids: int) -> None:
        for psid in psids:
            self.table.remove(BindingKey(ADDRESS, psid))

    def free(self, lwb4: IPv6Address) -> set[int]:
        """The sets that an lwB4 may be given."""
        self.resting.make_room(lwb4)
        ports = ((psid, psid << 14) for psid in range(1, 4))
        return {psid for psid, port in ports if self.pool.find(0, ADDRESS, port, strict=True)}


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_set_rests_for_two_minutes_but_for_who_had_it(rig: Rig) -> None:
    """RFC 6887 section 15: the same client should have it again."""
    rig.give(1, LWB4)
    assert rig.free(OTHER) == {2, 3}
    rig.take_back(1)
    rig.now += 119.9
    assert (rig.free(OTHER), len(rig.resting)) == ({2, 3}, 1)
    assert (rig.free(LWB4), len(rig.resting)) == ({1, 2, 3}, 0)
    rig.give(1, LWB4)
    rig.take_back(1)
    rig.now += 120
    assert (rig.free(OTHER), len(rig.resting)) == ({1, 2, 3}, 0)


def test_when_nothing_else_is_left_the_oldest_is_given_out(rig: Rig) -> None:
    for psid in (1, 2, 3):
        rig.give(psid, LWB4 + psid)
    rig.take_back(3, 1)
    assert rig.free(OTHER + 7) == {3}
    rig.give(3, OTHER + 7)
    assert rig.free(OTHER + 8) == {1}


def test_what_is_renewed_or_bound_again_rests_no_more(rig: Rig) -> None:
    rig.give(1, LWB4)
    rig.give(1, LWB4)
    assert len(rig.resting) == 0
    rig.take_back(1)
    rig.give(1, OTHER, Origin.REST)
    assert len(rig.resting) == 0
    rig.take_back(1)  # what an operator has bound is his to give away
    assert rig.free(OTHER) == {1, 2, 3}


def test_so_many_rest_and_no_more(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resting, "MOST", 1)
    for psid in (1, 2):
        rig.give(psid, LWB4 + psid)
    rig.take_back(1, 2)
    assert (rig.free(OTHER + 7), len(rig.resting)) == ({1, 3}, 1)
