"""The PCP client's state machine: what it sends and when, by RFC 6887 and RFC 7753."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_lw4o6.core import pcp as wire
from topo.lwb4 import pcp
from topo.lwb4.lease import Lease
from topo.lwb4.machine import (
    Action,
    Bound,
    Event,
    Lost,
    Note,
    Received,
    Send,
    Start,
    Stop,
    Timer,
)
from topo.lwb4.pcp import Client, Config, Phase, step

NONCE = bytes(range(12))
ADDRESS = IPv4Address("192.0.2.9")
LEASE = Lease(ADDRESS, (range(2048, 3072),))
NEW = Client(NONCE, Config(ports=1024, lifetime=3600))


def middle() -> float:
    """No jitter where it is symmetrical."""
    return 0.5


def sent(actions: tuple[Action, ...]) -> wire.Request:
    (payload,) = [action.payload for action in actions if isinstance(action, Send)]
    return wire.parse_request(payload)


def answer(
    *, lifetime: int = 3600, epoch: int = 10, result: wire.Result = wire.Result.SUCCESS,
    first: int = 2048, ports: int | None = 1024, address: str = str(ADDRESS), nonce: bytes = NONCE,
    protocol: int = 0,
) -> Received:  # fmt: skip
    mapping = wire.Mapping(nonce, protocol, 0, first, IPv4Address(address))
    options = wire.Options(port_set=None if ports is None else wire.PortSet(ports, 0))
    return Received(
        wire.Response(wire.Opcode.MAP, result, lifetime, epoch, mapping, options).encode()
    )


def bound(now: float = 0.0, lifetime: int = 3600, epoch: int = 10) -> Client:
    client, _ = step(NEW, Start(), now, middle)
    client, actions = step(client, answer(lifetime=lifetime, epoch=epoch), now, middle)
    assert actions == (Bound(LEASE, lifetime),)
    return client


def test_the_request_is_right_to_the_byte() -> None:
    _, (send,) = step(NEW, Start(), 0.0, middle)
    assert isinstance(send, Send)
    assert send.payload == bytes.fromhex(
        "02 01 0000 00000e10"  # version 2, request MAP, 3600 s
        "00000000000000000000ffff c0000002"  # the client, 192.0.0.2, IPv4-mapped
        "000102030405060708090a0b"  # the nonce
        "00 000000 0000 0000"  # all protocols; internal and suggested external port
        "00000000000000000000ffff 00000000"  # any external IPv4 address
        "82 00 0005 0400 0000 00 000000"  # PORT_SET: 1024 ports, the first internal one is 0
    )


def test_requests_are_repeated_for_ever_with_longer_waits() -> None:
    client, _ = step(NEW, Start(), 0.0, middle)
    waits = []
    now = 0.0
    for _ in range(12):
        assert client.wake is not None
        waits.append(client.wake - now)
        now = client.wake
        client, actions = step(client, Timer(), now, middle)
        assert sent(actions).lifetime == 3600
    # 3 s, doubled, 1024 s at most (RFC 6887 section 8.1.1).
    assert waits == [3, 6, 12, 24, 48, 96, 192, 384, 768, 1024, 1024, 1024]


@given(st.floats(0, 1, exclude_max=True))
def test_the_first_wait_is_a_tenth_more_or_less(number: float) -> None:
    client, _ = step(NEW, Start(), 0.0, lambda: number)
    assert client.wake is not None
    assert 2.7 <= client.wake < 3.3 + 1e-9


def test_a_mapping_is_renewed_with_the_same_nonce_and_its_address() -> None:
    client = bound()
    assert client.wake == 3600 * 9 / 16  # halfway between 1/2 and 5/8
    client, actions = step(client, Timer(), client.wake, middle)
    request = sent(actions)
    assert request.mapping == wire.Mapping(NONCE, 0, 0, 2048, ADDRESS)
    assert request.options.port_set == wire.PortSet(1024, 0)
    assert client.phase is Phase.BOUND
    client, actions = step(client, answer(epoch=10 + 2025), 2025.1, middle)
    assert actions == (Bound(LEASE, 3600),)
    assert client.wake == pytest.approx(2025.1 + 2025)


@given(st.floats(0, 1, exclude_max=True), st.integers(120, 86400))
def test_renewals_are_where_the_rfc_wants_them(number: float, lifetime: int) -> None:
    client = bound(lifetime=lifetime)
    client, _ = step(client, answer(lifetime=lifetime), 0.0, lambda: number)
    parts, times = [], [0.0]
    while client.send_at is not None:
        now = client.send_at
        parts.append(now / lifetime)
        times.append(now)
        client, actions = step(client, Timer(), now, lambda: number)
        assert sent(actions).lifetime == 3600
    for index, part in enumerate(parts):
        step_left = 0.5 ** (index + 1)
        due = max(1 - step_left, (times[index] + 4) / lifetime)
        assert due - 1e-9 <= part <= max(1 - step_left * 3 / 4, due) + 1e-9
    assert all(b - a >= 4 - 1e-9 for a, b in pairwise(times[1:]))
    # Then it expires, and is asked for anew.
    assert client.wake == lifetime
    client, actions = step(client, Timer(), float(lifetime), lambda: number)
    assert actions[0] == Lost("expired")
    assert sent(actions).mapping == wire.Mapping(NONCE, 0, 0, 2048, ADDRESS)


def test_a_restart_asks_for_the_same_at_once() -> None:
    client, actions = step(bound(), Start(), 100.0, middle)
    assert sent(actions).mapping == wire.Mapping(NONCE, 0, 0, 2048, ADDRESS)
    assert client.wake == 103
    # Meanwhile the mapping is still there, and it may come out as another.
    assert client.granted is not None
    client, actions = step(
        client, answer(address="203.0.113.7", first=1024, epoch=0), 100.1, middle
    )
    assert actions == (Bound(Lease(IPv4Address("203.0.113.7"), (range(1024, 2048),)), 3600),)


@pytest.mark.parametrize(
    ("lifetime", "waits"), [(30, 30), (1800, 1800), (0, 4), (0xFFFFFFFF, 86400)]
)
def test_an_error_holds_for_its_lifetime(lifetime: int, waits: float) -> None:
    client, _ = step(NEW, Start(), 0.0, middle)
    no = answer(result=wire.Result.NO_RESOURCES, lifetime=lifetime)
    client, actions = step(client, no, 1.0, middle)
    assert client.phase is Phase.REFUSED
    assert actions == (Note("pcp_refused", {"result": "NO_RESOURCES", "seconds": waits}),)
    assert client.wake == 1 + waits
    # Not even a refusal of packets makes it ask earlier.
    client, actions = step(client, Start(), 2.0, middle)
    assert not any(isinstance(action, Send) for action in actions)
    client, actions = step(client, Timer(), 1 + waits, middle)
    assert sent(actions).lifetime == 3600


def test_a_server_of_another_version_may_be_updated() -> None:
    """It is asked again after half an hour at most (RFC 6887 section 9)."""
    client, _ = step(NEW, Start(), 0.0, middle)
    no = answer(result=wire.Result.UNSUPP_VERSION, lifetime=86400).payload
    client, actions = step(client, Received(b"\3" + no[1:]), 1.0, middle)
    assert actions == (Note("pcp_refused", {"result": "UNSUPP_VERSION", "seconds": 1800}),)
    assert client.wake == 1801


@pytest.mark.parametrize(
    "received",
    [
        answer(nonce=bytes(12)),
        answer(protocol=6),
        answer(lifetime=0),
        answer(first=65000),
        answer(address="0.0.0.0"),
        Received(b""),
        Received(wire.Request(wire.Opcode.MAP, ADDRESS, 1, wire.Mapping(NONCE, 0, 0)).encode()),
        Received(wire.announcement(5)),
    ],
)
def test_what_answers_nothing_changes_nothing(received: Received) -> None:
    client, _ = step(NEW, Start(), 0.0, middle)
    after, actions = step(client, received, 1.0, middle)
    assert replace(after, epoch=None) == client
    assert not any(isinstance(action, Send | Bound | Lost) for action in actions)


def test_a_server_that_has_lost_its_mappings_is_asked_again() -> None:
    client = bound(epoch=1000)
    client, actions = step(client, Received(wire.announcement(1100)), 100.0, middle)
    assert actions == ()
    client, actions = step(client, Received(wire.announcement(3)), 105.0, middle)
    assert actions == (Note("pcp_server_lost_state", {"epoch": 3}),)
    # Not at once, since everybody hears it: after up to five seconds (RFC 6887 section 14.1.3).
    again, actions = step(client, Received(wire.announcement(4)), 106.0, middle)
    assert (actions, again.wake) == ((), 107.5)
    client, actions = step(again, Timer(), 107.5, middle)
    assert sent(actions).mapping is not None
    assert client.wake == 110.5


def test_servers_without_port_sets_give_a_port_or_the_whole_address() -> None:
    client, _ = step(NEW, Start(), 0.0, middle)
    _, actions = step(client, answer(ports=None, first=4000), 1.0, middle)
    assert actions == (Bound(Lease(ADDRESS, (range(4000, 4001),)), 3600),)
    _, actions = step(client, answer(ports=None, first=0), 1.0, middle)
    assert actions == (Bound(Lease.of(ADDRESS), 3600),)


def test_an_absurd_lifetime_is_a_day() -> None:
    client, _ = step(NEW, Start(), 0.0, middle)
    _, actions = step(client, answer(lifetime=0xFFFFFFFF), 1.0, middle)
    assert actions == (Bound(LEASE, pcp.MAX_LIFETIME),)


def test_a_clean_stop_deletes_the_mapping() -> None:
    client, actions = step(bound(), Stop(), 5.0, middle)
    request = sent(actions)
    # Nothing is suggested (RFC 6887 section 15).
    assert (request.lifetime, request.mapping) == (0, wire.Mapping(NONCE, 0, 0))
    assert actions[1] == Lost("released")
    assert client.wake is None
    assert step(NEW, Stop(), 0.0, middle)[1] == ()


EVENTS = st.one_of(
    st.just(Start()),
    st.just(Timer()),
    st.builds(
        answer, lifetime=st.integers(0, 100_000), epoch=st.integers(0, 10_000),
        result=st.sampled_from(wire.Result), ports=st.none() | st.integers(1, 2048),
        first=st.integers(0, 65535),
    ),
    st.builds(Received, st.binary(max_size=100)),
    st.integers(0, 0xFFFFFFFF).map(lambda epoch: Received(wire.announcement(epoch))),
)  # fmt: skip


@given(st.lists(st.tuples(EVENTS, st.floats(0, 5000)), max_size=40), st.randoms())
def test_whatever_happens(events: list[tuple[Event, float]], random: Random) -> None:
    """A lease is announced before it is lost and never twice lost; somebody always wakes it."""
    client, now, leased = NEW, 0.0, False
    client, _ = step(client, Start(), now, middle)
    for event, wait in events:
        due = client.wake
        assert due is not None
        now = max(now + wait, due) if isinstance(event, Timer) else min(now + wait, max(now, due))
        client, actions = step(client, event, now, random.random)
        for action in actions:
            if isinstance(action, Bound):
                assert action.seconds > 0
                leased = True
            elif isinstance(action, Lost):
                assert leased
                leased = False
        assert leased is (client.granted is not None)
        assert client.wake is not None
