"""PCP while something dies, and with two lwAFTRs that share a store: nobody gets what another has.

Pool: 198.18.0.0/30 in sets of 4096 ports, of which each address has 15 to give.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from ryu_lw4o6.core.pcp import Response, Result, parse_response
from ryu_lw4o6.provisioning.pcp_server import DEADLINE
from tests.support.ovs import wait_for
from tests.support.postgres import Postgres
from tests.support.rig import CONFIG, Rig, frames
from tests.wire.pcp import Answers, map_request

SQLITE = "sqlite:///{directory}/bindings.sqlite"
PCP = CONFIG + "    pcp: {{pool: [198.18.0.0/30]}}\n"
SET = map_request(size=4096)


def lwb4(number: int) -> str:
    return f"2001:db8:b4::{number:x}"


def assigned(response: Response) -> tuple[str, int]:
    assert response.result is Result.SUCCESS
    assert response.mapping is not None
    return str(response.mapping.external_address), response.mapping.external_port


def made_by_pcp(rig: Rig) -> dict[tuple[str, int], str]:
    found = rig.controller.rest("GET", "/v1/bindings?origin=pcp&limit=1000")[1]["bindings"]
    return {(b["ipv4"], b["psid"]): b["lwb4"] for b in found}


def patiently(pcp: Answers, number: int) -> Response:
    """Ask as a client does: again and again, the same."""
    found: list[Response] = []

    def answered() -> bool:
        pcp.send(SET, lwb4=lwb4(number))
        answer = pcp.receive(lwb4=lwb4(number), timeout=0.5)
        found.extend([parse_response(answer)] if answer is not None else [])
        return bool(found) and found[-1].result is Result.SUCCESS

    wait_for("an answer", answered, 30)
    frames(pcp.rig.wire6, 10, 0.2)  # to what was asked again meanwhile
    return found[-1]


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    rig = Rig(PCP)
    yield rig
    rig.stop()


@pytest.mark.parametrize("milliseconds", [0, 3, 10, 30])
def test_killed_between_request_and_answer(rig: Rig, milliseconds: int) -> None:
    pcp, number = Answers(rig), 0x100 + milliseconds
    pcp.send(SET, lwb4=lwb4(number))
    time.sleep(milliseconds / 1000)  # not to wait for anything: to be killed at another moment
    rig.controller.kill()
    frames(rig.wire6, 1, 0.2)
    rig.controller.start()
    address, first = assigned(patiently(pcp, number))
    own = [key for key, owner in made_by_pcp(rig).items() if owner == lwb4(number)]
    assert own == [(address, first >> 12)]
    flows = [flow for flow in rig.ovs.flows("br0") if lwb4(number) in flow]
    assert len(flows) == 2


def test_a_lost_store_is_announced_to_who_lost_by_it(rig: Rig) -> None:
    pcp = Answers(rig)
    before = assigned(pcp.granted(SET, lwb4=lwb4(0x200)))
    bound = set(made_by_pcp(rig).values())
    rig.controller.kill()
    for file in rig.ovs.directory.glob("bindings.sqlite*"):
        file.unlink()
    started = time.time()
    rig.controller.start()
    told: dict[str, int] = {}
    for frame in frames(rig.wire6, 3 * len(bound), 5.0):
        packet = Ether(frame)
        assert (packet[UDP].sport, packet[UDP].dport) == (5351, 5350)
        payload = bytes(packet[UDP].payload)
        assert payload[:8] == bytes.fromhex("02 80 0000 00000000")
        assert payload[12:] == bytes(12)
        (epoch,) = struct.unpack_from("!I", payload, 8)
        assert epoch <= time.time() - started
        told[packet.payload.dst] = told.get(packet.payload.dst, 0) + 1
    assert told == dict.fromkeys(bound, 3)
    wait_for("both next hops are known", rig.neighbours_known)
    # It asks anew, and is lucky: the search begins where it began the first time.
    assert assigned(pcp.granted(SET, lwb4=lwb4(0x200))) == before


@pytest.fixture(scope="module")
def pair(postgres: Postgres) -> Iterator[list[Rig]]:
    postgres.sql("drop schema public cascade; create schema public")
    with contextlib.ExitStack() as stack:
        rigs = []
        for _ in range(2):
            rigs.append(Rig(PCP.replace(SQLITE, postgres.url)))
            stack.callback(rigs[-1].stop)
        yield rigs


def test_two_controllers_never_give_out_the_same_set(pair: list[Rig]) -> None:
    """60 sets and as many lwB4s, half of them at each: all get one, and no two the same."""

    def ask(rig: Rig, numbers: range) -> dict[int, Response]:
        pcp = Answers(rig)
        for number in numbers:
            pcp.send(SET, lwb4=lwb4(number), sport=number)
        found = {}
        for frame in frames(rig.wire6, len(numbers), 10.0):
            number = Ether(frame)[UDP].dport
            payload = pcp.check(frame, lwb4(number), "192.0.0.2", number)
            found[number] = parse_response(payload)
        return found

    taken = 1  # by the static binding
    with ThreadPoolExecutor() as pool:
        one, two = pool.map(ask, pair, (range(0x300, 0x31E), range(0x400, 0x41D)))
    answers = {**one, **two}
    assert len(answers) == 60 - taken
    sets = [assigned(response) for response in answers.values()]
    assert len(set(sets)) == len(sets)
    wait_for("both know all", lambda: made_by_pcp(pair[0]) == made_by_pcp(pair[1]))
    owners = made_by_pcp(pair[0])
    assert len(owners) == len(answers)
    for number, response in answers.items():
        address, first = assigned(response)
        assert owners[address, first >> 12] == lwb4(number)


def test_renewal_and_deletion_at_the_other_controller(pair: list[Rig]) -> None:
    one, two = (Answers(rig) for rig in pair)
    owner = 0x300
    first = one.granted(SET, lwb4=lwb4(owner))
    longer = map_request(7200, size=4096)
    again = two.granted(longer, lwb4=lwb4(owner))
    assert assigned(again) == assigned(first)
    assert again.lifetime == 7200
    thief = two.granted(map_request(size=4096, nonce="ff" * 12), lwb4=lwb4(owner))
    assert thief.result is Result.NOT_AUTHORIZED
    assert epoch(pair[0]) <= epoch(pair[1]) <= epoch(pair[0]) + 2
    gone = map_request(0, size=4096)
    assert two.granted(gone, lwb4=lwb4(owner)).result is Result.SUCCESS
    wait_for("it is gone", lambda: not any(
        f"{lwb4(owner)}," in flow for rig in pair for flow in rig.ovs.flows("br0")))  # fmt: skip


def epoch(rig: Rig) -> int:
    found: int = rig.controller.rest("GET", "/v1/provisioning/lwaftr1")[1]["pcp"]["epoch"]
    return found


def test_a_database_that_hangs_is_no_reason_to_wait_for_ever(
    pair: list[Rig], postgres: Postgres
) -> None:
    rig = pair[0]
    pcp, client = Answers(rig), lwb4(0x500)
    with postgres.frozen():
        pcp.send(SET, lwb4=client)
        answer = pcp.receive(lwb4=client, timeout=DEADLINE + 2)
        assert answer is not None
        response = parse_response(answer)
        assert (response.result, response.lifetime) == (Result.NO_RESOURCES, 30)
        announce = bytes.fromhex("02 00 0000 00000000 00000000000000000000ffffc0000002")
        assert pcp.granted(announce, lwb4=client).result is Result.SUCCESS
    assigned(patiently(pcp, 0x500))


def test_a_database_that_is_gone_and_comes_back(pair: list[Rig], postgres: Postgres) -> None:
    pcp = Answers(pair[1])
    postgres.kill()
    response = pcp.granted(map_request(size=4096), lwb4=lwb4(0x501))
    assert (response.result, response.lifetime) == (Result.NO_RESOURCES, 30)
    postgres.start()
    wait_for("it answers", lambda: pcp.granted(
        map_request(size=4096), lwb4=lwb4(0x301)).result is Result.SUCCESS, 20)  # fmt: skip
