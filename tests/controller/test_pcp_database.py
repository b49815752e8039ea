"""PCP with PostgreSQL as the store, which is killed while lwB4s ask: everybody is answered in time,
and what was granted stays granted.

Pool: 198.18.0.0/28 in sets of 4096 ports, of which each address has 15 to give.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from ryu_lw4o6.core.pcp import Response, Result, parse_response
from ryu_lw4o6.provisioning.pcp_server import DEADLINE
from tests.controller.test_pcp import SET, SQLITE, assigned, lwb4, patiently
from tests.support.postgres import Postgres
from tests.support.rig import CONFIG, Rig, frames
from tests.wire.pcp import B4, Answers

PCP = CONFIG.replace("198.18.0.0/30", "198.18.0.0/28") + "    pcp: {{pool: [198.18.0.0/28]}}\n"


@pytest.fixture(scope="module")
def rig(postgres: Postgres) -> Iterator[Rig]:
    postgres.sql("drop schema public cascade; create schema public")
    rig = Rig(PCP.replace(SQLITE, postgres.url))
    yield rig
    rig.stop()


def stored(postgres: Postgres) -> dict[tuple[str, int], str]:
    """Who has which set, as the database says."""
    found = postgres.sql("select ipv4, psid, lwb4 from bindings where origin = 'pcp'")
    rows = (line.split("|") for line in found.splitlines())
    return {(ipv4, int(psid) << 12): owner for ipv4, psid, owner in rows}


def answers(pcp: Answers, count: int) -> dict[int, Response]:
    """To so many lwB4s, each of which has asked from the port with its own number."""
    found = {}
    for frame in frames(pcp.rig.wire6, count, DEADLINE + 2):
        number = Ether(frame)[UDP].dport
        found[number] = parse_response(pcp.check(frame, lwb4(number), B4, number))
    return found


@pytest.mark.parametrize("milliseconds", [0, 5, 20, 60])
def test_what_was_granted_outlives_the_database(
    rig: Rig, postgres: Postgres, milliseconds: int
) -> None:
    pcp = Answers(rig)
    numbers = range(0x1000 + milliseconds * 16, 0x1000 + milliseconds * 16 + 16)
    for number in numbers[:10]:
        pcp.send(SET, lwb4=lwb4(number), sport=number)
    time.sleep(milliseconds / 1000)  # not to wait for anything: to be killed at another moment
    postgres.kill()
    for number in numbers[10:]:
        pcp.send(SET, lwb4=lwb4(number), sport=number)
    answered = answers(pcp, len(numbers))
    assert set(answered) == set(numbers)
    granted = {n: assigned(r) for n, r in answered.items() if r.result is Result.SUCCESS}
    others = set(numbers) - set(granted)
    for number in others:
        response = answered[number]
        assert response.result in (Result.NO_RESOURCES, Result.NETWORK_FAILURE)
        assert response.lifetime == 30
    assert set(numbers[10:]) <= others
    assert has_flows(rig, granted)

    postgres.start()
    kept = stored(postgres)
    assert {number: kept[key] for number, key in granted.items()} == {
        number: lwb4(number) for number in granted
    }
    everybody = granted | {number: assigned(patiently(pcp, number)) for number in others}
    assert len(set(everybody.values())) == len(numbers)
    kept = stored(postgres)
    assert all(kept[key] == lwb4(number) for number, key in everybody.items())
    assert has_flows(rig, numbers)


def has_flows(rig: Rig, numbers: Iterable[int]) -> bool:
    """Whether the switch takes packets from all of these lwB4s."""
    flows = "\n".join(rig.ovs.flows("br0"))
    return all(f"tun_ipv6_src={lwb4(number)}," in flows for number in numbers)
