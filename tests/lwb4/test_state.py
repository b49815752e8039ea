"""What outlives a restart of the agent."""

from __future__ import annotations

import json
import math
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.core.s46 import PortSet
from topo.lwb4 import dhcp, pcp, state
from topo.lwb4.lease import Lease
from topo.lwb4.machine import Start

NOW, UNIX = 100.0, 1_700_000_000.0
LEASE = Lease(IPv4Address("192.0.2.9"), (range(2048, 3072),))
MAPPED = pcp.Client(
    bytes(range(12)), phase=pcp.Phase.BOUND, granted=pcp.Granted(LEASE, NOW, NOW + 60),
    suggested=LEASE,
)  # fmt: skip
CONFIG = dhcp.Config(IPv6Address("2001:db8:b4:1::1"), b"\0\3\0\1abcdef")
LEASED = dhcp.Client(
    CONFIG, dhcp.Phase.BOUND, (IPv6Address("2001:db8:ffff::1"),),
    dhcp.Leased(IPv4Address("192.0.2.1"), PortSet(PortParams(6, 6), 3),
                IPv4Address("198.51.100.67"), NOW + 20, NOW + 40, NOW + 60),
    valid=True,
)  # fmt: skip


def test_a_mapping_is_the_same_at_another_clock(tmp_path: Path) -> None:
    state.save(tmp_path / "state", MAPPED, UNIX)
    # 10 s later, by a clock that has begun anew.
    client = state.pcp_client(pcp.Config(), state.load(tmp_path / "state"), 5.0, UNIX + 105)
    assert client.nonce == MAPPED.nonce
    assert client.suggested == LEASE
    assert client.granted == pcp.Granted(LEASE, 5.0, 55.0)
    # 70 s later the mapping is over, and is asked for all the same.
    client = state.pcp_client(pcp.Config(), state.load(tmp_path / "state"), 5.0, UNIX + 165)
    assert (client.granted, client.suggested) == (None, LEASE)


def test_so_is_a_lease(tmp_path: Path) -> None:
    state.save(tmp_path / "state", LEASED, UNIX)
    client = state.dhcp_client(CONFIG, state.load(tmp_path / "state"), 5.0, UNIX + 105)
    assert client.valid
    assert client.leased is not None
    assert client.leased.lease == LEASED.leased.lease  # type: ignore[union-attr]
    assert client.leased.until == 55
    assert client.servers == LEASED.servers
    assert not state.dhcp_client(CONFIG, state.load(tmp_path / "state"), 5.0, UNIX + 165).valid


def test_a_lease_for_ever(tmp_path: Path) -> None:
    for_ever = dhcp.Leased(IPv4Address("203.0.113.1"), None, IPv4Address("198.51.100.67"))
    client = dhcp.Client(CONFIG, leased=for_ever, valid=True)
    state.save(tmp_path / "state", client, UNIX)
    client = state.dhcp_client(CONFIG, state.load(tmp_path / "state"), 5.0, UNIX)
    assert client.leased == for_ever
    assert (client.valid, for_ever.until) == (True, math.inf)


KEYS = ("nonce", "ipv4", "first", "count", "until", "server", "servers", "port_set")
VALUES = st.none() | st.integers() | st.floats() | st.text(max_size=24) | st.lists(st.text())


@given(st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_whatever_the_file_holds_there_is_a_client(kept: dict[str, object]) -> None:
    mapped = {"nonce": "00" * 12, "ipv4": "192.0.2.9", "first": 1024, "count": 1024, "until": UNIX}
    client = state.pcp_client(pcp.Config(), mapped | kept, NOW, UNIX - NOW)
    pcp.step(client, Start(), NOW, lambda: 0.5)
    leased = {"ipv4": "192.0.2.9", "server": "198.51.100.67", "until": UNIX, "servers": []}
    dhcp.step(state.dhcp_client(CONFIG, leased | kept, NOW, UNIX - NOW), Start(), NOW, lambda: 0.5)


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"nonce": 1}), "\0"])
def test_a_broken_file_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state"
    path.write_text(text)
    client = state.pcp_client(pcp.Config(), state.load(path), NOW, UNIX)
    assert len(client.nonce) == 12
