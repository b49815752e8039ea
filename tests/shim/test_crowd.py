"""A crowd of lwB4s that nobody has heard of takes nothing from those that are known."""

from __future__ import annotations

import dataclasses
import itertools
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv6Address

import pytest
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from ryu_lw4o6.softwire import maps, nic, shim
from ryu_lw4o6.softwire.kernel_map import KernelMap
from ryu_lw4o6.softwire.maps import LEAST_CROWD
from ryu_lw4o6.softwire.nic import Hook
from tests.shim.test_answer import Refusing, back, stranger
from tests.shim.test_shim import (
    AFTR,
    INSTANCE,
    LWB4,
    NIC6,
    ROUTER6,
    UDP_PACKET,
    Ends,
    counters,
    ends,
    from_ovs,
    place,
)
from tests.support.bpf import XDP_DROP, XDP_PASS, Program

__all__ = ["ends", "place"]

CROWD = 4000
"""So many first packets take some tens of milliseconds here; 167 get in every 34 ms."""


def frame(lwb4: str) -> bytes:
    return bytes(
        Ether(src=ROUTER6, dst=NIC6) / IPv6(src=lwb4, dst=str(AFTR), nh=4) / Raw(UDP_PACKET)
    )


def crowd() -> Iterator[bytes]:
    one = frame(LWB4)
    for _ in range(CROWD):
        yield one[:22] + IPv6Address(stranger()).packed + one[38:]


FRAMES = list(crowd())


@pytest.fixture
def incoming(ends: Ends) -> Iterator[Program]:
    shim.attach(dataclasses.replace(INSTANCE, unknown_rate=1))
    program = Program(nic.program(Hook("eth6", "xdp", "softwire_in")) or 0)
    yield program
    program.close()


def in_a_crowd(incoming: Program, also: bytes) -> list[int]:
    """The verdicts about a packet that comes again and again between those of a crowd."""
    found, others = [], []
    for number, other in enumerate(FRAMES):
        others.append(incoming.run(other)[0])
        if number % 10 == 9:
            found.append(incoming.run(also)[0])
    # Of the 167 of a window, one may be what the test itself has sent before.
    assert others.count(XDP_PASS) + found.count(XDP_PASS) >= 166
    assert others.count(XDP_DROP) == counters()["refused_crowd"] - found.count(XDP_DROP) > 0
    return found


def test_those_who_are_known_get_in(incoming: Program) -> None:
    assert LEAST_CROWD == 5_000
    assert incoming.run(frame(LWB4))[0] == XDP_PASS
    assert set(in_a_crowd(incoming, frame(LWB4))) == {XDP_PASS}


def test_those_who_were_refused_compete_until_something_is_for_them(incoming: Program) -> None:
    refusing = Refusing()
    try:
        assert refusing.sends(back(refusing.seen(frame(LWB4)))) is not None
        assert XDP_DROP in in_a_crowd(incoming, frame(LWB4))
        assert refusing.sends(from_ovs(AFTR, UDP_PACKET)) is not None
    finally:
        refusing.close()
    before = counters()["refused_crowd"]
    found = [incoming.run(frame(LWB4))[0] for _ in range(CROWD)]
    assert set(found) == {XDP_PASS}
    assert counters()["refused_crowd"] == before


def allow(packets: int, seconds: float) -> None:
    """Say how many of a crowd may get in within a window, and for how long that holds."""
    own = maps.of_instance(INSTANCE)
    assert own is not None
    allowance = KernelMap(own[maps.ALLOWANCE])
    until = time.monotonic_ns() + int(seconds * 1e9)
    allowance.write(0, struct.pack("=QQ", until, packets))
    allowance.close()


def in_a_window(incoming: Program) -> int:
    """How many of an endless crowd get in within a window: from the first of a new one to the first
    that is kept out. One that is sent slowly may last into the next, so the least of three."""
    gets_in = (incoming.run(one)[0] == XDP_PASS for _ in itertools.count() for one in crowd())

    def count() -> int:
        while next(gets_in):
            pass
        while not next(gets_in):
            pass
        return 1 + sum(1 for _ in itertools.takewhile(bool, gets_in))

    return min(count() for _ in range(3))


def test_as_many_get_in_as_the_controller_says_for_as_long_as_it_says(incoming: Program) -> None:
    allow(10, 60.0)
    assert in_a_window(incoming) == 10
    allow(10, -1.0)  # nobody has said so for a while
    assert in_a_window(incoming) == 167
    allow(500, 60.0)
    assert in_a_window(incoming) == 500
