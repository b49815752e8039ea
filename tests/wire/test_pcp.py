"""PCP through a whole lwAFTR, byte by byte: requests out of softwires, answers into them.

Pools: 198.18.0.0/30 (k = 4, a = 0: PSID n has ports 4096 n to 4096 n + 4095; PSID 0 is not given
out), and 203.0.113.4 to .5, whole.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from tests.support.ovs import wait_for
from tests.support.rig import CONFIG, Rig, frames
from tests.wire.pcp import NONCE, SERVER, Answers, map_request, mapped
from tests.wire.scenario import (
    INTERNET,
    LWB4,
    SECOND_AFTR,
    Scenario,
    downstream,
    forwarded,
    frame_of,
    run,
    softwire,
    tunnelled,
)

PCP = CONFIG + (
    "    pcp: {{pool: [198.18.0.0/30, 203.0.113.4-203.0.113.5], min_lifetime: 1, mappings: 3}}\n"
)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    rig = Rig(PCP)
    yield rig
    rig.stop()


@pytest.fixture
def pcp(rig: Rig) -> Answers:
    return Answers(rig)


def lwb4(number: int) -> str:
    return f"2001:db8:b4::{number:x}"


def binding(rig: Rig, ipv4: str, psid: int) -> dict[str, Any] | None:
    status, found = rig.controller.rest("GET", f"/v1/bindings/{ipv4}/{psid}")
    return found if status == 200 else None


def counts(rig: Rig) -> dict[str, Any]:
    status, found = rig.controller.rest("GET", "/v1/provisioning/lwaftr1")
    assert status == 200
    pcp: dict[str, Any] = found["pcp"]
    return pcp


def success(
    ipv4: str, first: int, size: int = 0, lifetime: int = 3600, internal: int = 4096,
    protocol: int = 17, options: str = "",
) -> bytes:  # fmt: skip
    """The response to ``map_request``, with an epoch of 0."""
    text = (
        f"02 81 00 00 {lifetime:08x} 00000000 000000000000000000000000"
        f"{NONCE} {protocol:02x} 000000 {internal:04x} {first:04x} {mapped(ipv4)}"
    )
    if size:
        text += f"82 00 0005 {size:04x} {first:04x} 00 000000"
    return bytes.fromhex(text + options)


def test_a_port_set_is_given_out_and_traffic_flows(rig: Rig, pcp: Answers) -> None:
    used = counts(rig)["pool"]["used"]
    request = map_request(external=8192, address="198.18.0.2", size=4096)
    assert pcp.ask(request) == success("198.18.0.2", 8192, 4096)
    # The answer says that the binding is there: the next packet finds it.
    packet = IP(src="198.18.0.2", dst=INTERNET, ttl=64) / UDP(sport=8200, dport=53) / b"query"
    run(rig, Scenario("up", send6=[softwire(packet, LWB4[9])], out4=[forwarded(packet)],
                      counters={"from_softwire": 1, "to_internet": 1}))  # fmt: skip
    back = downstream(dst="198.18.0.2") / UDP(sport=53, dport=12287)
    expected = tunnelled(downstream(dst="198.18.0.2", ttl=59) / UDP(sport=53, dport=12287), LWB4[9])
    run(rig, Scenario("down", send4=[back], out6=[expected],
                      counters={"from_internet": 1, "to_softwire": 1}))  # fmt: skip
    made = binding(rig, "198.18.0.2", 2)
    assert made is not None
    assert (made["lwb4"], made["origin"], made["br_address"]) == (LWB4[9], "pcp", None)
    assert made["state"] == {"lwaftr1": {"state": "applied"}}
    assert counts(rig)["pool"] == {"size": 62, "used": used + 1}
    # Asked again, by its own address too, the answer is the same.
    assert pcp.ask(request) == success("198.18.0.2", 8192, 4096)
    again = map_request(7200, client="198.18.0.2", size=4096)
    answer = pcp.ask(again, source="198.18.0.2", sport=8192)
    assert answer == success("198.18.0.2", 8192, 4096, lifetime=7200)
    # Given back, it is gone.
    gone = map_request(0, size=4096)
    assert pcp.ask(gone) == gone[:1] + b"\x81" + bytes(22) + gone[24:]
    assert binding(rig, "198.18.0.2", 2) is None
    assert counts(rig)["pool"]["used"] == used
    before = rig.counters()
    rig.wire6.send(frame_of(softwire(packet, LWB4[9]), 6))
    wait_for("the packet is dropped", lambda: (
        rig.counters() - before)["drop_upstream_no_binding"] == 1)  # fmt: skip
    frames(rig.wire6, 1)  # the ICMPv6 error about it


def test_a_full_address(rig: Rig, pcp: Answers) -> None:
    request = map_request(address="203.0.113.5", size=0xFFFF)
    assert pcp.ask(request, lwb4=lwb4(0x20)) == success("203.0.113.5", 1, 0xFFFF)
    packet = IP(src="203.0.113.5", dst=INTERNET, ttl=9, proto=47) / b"GRE, say"
    run(rig, Scenario("up", send6=[softwire(packet, lwb4(0x20))], out4=[forwarded(packet)],
                      counters={"from_softwire": 1, "to_internet": 1}))  # fmt: skip


def test_by_another_lwaftr_address(rig: Rig, pcp: Answers) -> None:
    client = {"lwb4": lwb4(0x21), "aftr": SECOND_AFTR}
    request = map_request(external=12288, address="198.18.0.2", size=100)
    assert pcp.ask(request, **client) == success("198.18.0.2", 12288, 100)
    made = binding(rig, "198.18.0.2", 3)
    assert made is not None
    assert made["br_address"] == SECOND_AFTR
    back = downstream(dst="198.18.0.2") / UDP(sport=53, dport=12290)
    answer = downstream(dst="198.18.0.2", ttl=59) / UDP(sport=53, dport=12290)
    run(rig, Scenario("down", send4=[back], out6=[tunnelled(answer, lwb4(0x21), SECOND_AFTR)],
                      counters={"from_internet": 1, "to_softwire": 1}))  # fmt: skip


def test_single_ports_of_a_static_binding(rig: Rig, pcp: Answers) -> None:
    """An ordinary PCP client at lwB4 1, whose ports are 1072-1087, 2096-2111 and so on."""
    request = map_request(protocol=6, internal=6881, external=6881)
    assert pcp.ask(request, lwb4=LWB4[1]) == success("192.0.2.1", 1072, internal=6881, protocol=6)
    for port in (1073, 2100):
        request = map_request(internal=port, client="192.0.2.1")
        answer = pcp.ask(request, lwb4=LWB4[1], source="192.0.2.1", sport=1074)
        assert answer == success("192.0.2.1", port, internal=port)
    over = map_request(internal=9, client="192.0.2.1")
    answer = pcp.ask(over, lwb4=LWB4[1], source="192.0.2.1", sport=1074)
    assert answer[:8].hex(" ", 4) == "0281000a 0000001e"  # USER_EX_QUOTA, for 30 s
    made = binding(rig, "192.0.2.1", 3)
    assert made is not None
    assert (made["origin"], made["expires_at"]) == ("static", None)


def test_a_mapping_ends_by_itself(rig: Rig, pcp: Answers) -> None:
    request = map_request(1, external=16384, address="198.18.0.3", size=4096)
    assert pcp.ask(request, lwb4=lwb4(0x22)) == success("198.18.0.3", 16384, 4096, lifetime=1)
    wait_for("it is over", lambda: binding(rig, "198.18.0.3", 4) is None)
    flows = rig.ovs.flows("br0")
    assert not [flow for flow in flows if lwb4(0x22) in flow]


def test_announce(rig: Rig, pcp: Answers) -> None:
    request = bytes.fromhex(f"02 00 0000 00000000 {mapped('192.0.0.2')}")
    assert pcp.ask(request) == bytes.fromhex("02 80 0000" + "00" * 20)


SET = map_request(size=4096)
THIRD_PARTY = f"01 00 0010 {mapped('192.168.1.7')}"
FILTER = f"03 00 0014 00 80 0035 {mapped('198.18.9.9')}"
LONG, SHORT = 1800, 30


@pytest.mark.parametrize(
    ("request_", "result", "lifetime"),
    [
        (b"\x01" + SET[1:], 1, LONG),  # a draft's version
        (b"\x00\x00", 1, LONG),  # NAT-PMP
        (SET[:30], 3, LONG),
        (SET + b"\0", 3, LONG),
        (map_request(protocol=0, internal=1), 3, LONG),
        (SET[:1] + b"\x02" + SET[2:], 4, LONG),  # PEER
        (map_request(options=THIRD_PARTY), 5, LONG),
        (map_request(options="7f 00 0000"), 5, LONG),
        (map_request(options="02 00 0004 00000000"), 6, LONG),
        (map_request(size=4096, options="82 00 0005 1000 1000 00 000000"), 6, LONG),
        (map_request(protocol=132), 9, LONG),
        (map_request(internal=0), 9, LONG),
        (map_request(external=80, address="198.18.0.1", options="02 00 0000"), 11, SHORT),
        (map_request(client="192.168.1.7", size=4096), 12, LONG),
        (map_request(options=FILTER), 13, LONG),
    ],
)
def test_refusals(rig: Rig, pcp: Answers, request_: bytes, result: int, lifetime: int) -> None:
    used = counts(rig)["pool"]["used"]
    answer = pcp.ask(request_, lwb4=lwb4(0x30))
    padded = request_.ljust(24, b"\0") + bytes(-max(24, len(request_)) % 4)
    reserved = padded[12:24] if result in (1, 3) else bytes(12)
    opcode = request_[1] | 0x80
    head = bytes([2, opcode, 0, result]) + lifetime.to_bytes(4, "big") + bytes(4)
    assert answer.hex(" ", 4) == (head + reserved + padded[24:]).hex(" ", 4)
    assert counts(rig)["pool"]["used"] == used


def test_the_nonce_is_checked(rig: Rig, pcp: Answers) -> None:
    client = {"lwb4": lwb4(0x31)}
    pcp.ask(SET, **client)
    for lifetime in (3600, 0):
        thief = map_request(lifetime, size=4096, nonce="ff" * 12)
        answer = pcp.ask(thief, **client)
        assert answer[:4] == bytes([2, 0x81, 0, 2])
        assert 3590 < int.from_bytes(answer[4:8], "big") <= 3600  # when the mapping ends
        assert answer[24:] == thief[24:]


def test_what_was_given_back_is_not_for_the_next(rig: Rig, pcp: Answers) -> None:
    """But for who had it (RFC 6887 section 15)."""
    wanted = map_request(external=20480, address="198.18.0.3", size=4096)
    expected = success("198.18.0.3", 20480, 4096)
    assert pcp.ask(wanted, lwb4=lwb4(0x60)) == expected
    pcp.ask(map_request(0, size=4096), lwb4=lwb4(0x60))
    assert pcp.ask(wanted, lwb4=lwb4(0x61)) != expected
    assert pcp.ask(wanted, lwb4=lwb4(0x60)) == expected
    for number in (0x60, 0x61):
        pcp.ask(map_request(0, size=4096), lwb4=lwb4(number))


def test_a_pool_that_is_empty(rig: Rig, pcp: Answers) -> None:
    """62 sets, some of which are taken: whoever comes too late is told so, and to come again."""
    results = []
    for number in range(0x100, 0x100 + 64):
        answer = pcp.granted(map_request(size=4096), lwb4=lwb4(number))
        results.append(answer.result.name)
    assert set(results) == {"SUCCESS", "NO_RESOURCES"}
    pool = counts(rig)["pool"]
    assert pool["used"] == pool["size"]
    for number in range(0x100, 0x100 + 64):
        pcp.ask(map_request(0, size=4096), lwb4=lwb4(number))


def test_what_gets_no_answer_is_counted(rig: Rig, pcp: Answers) -> None:
    before = counts(rig)["dropped"]
    pcp.send(b"\x02")
    pcp.send(SET[:23])  # no whole header (RFC 6887 section 8.2)
    pcp.send(b"\x02\x81" + SET[2:])  # a response
    pcp.send(SET, chksum=0x1234)
    pcp.send(SET, len=200)
    fragment = IP(src="192.0.0.2", dst=SERVER, flags="MF") / UDP(dport=5351) / SET
    rig.wire6.send(frame_of(softwire(fragment, LWB4[9]), 6))
    pcp.send(SET, source="10.1.1.1")  # the source of no lwB4
    pcp.send(SET, source="192.0.2.1", sport=1072)  # lwB4 1's
    pcp.send(SET, source=SERVER)
    for nobody in ("ff0e::1", "::1", "fe80::b4", SECOND_AFTR, "2001:db8:1::1"):
        pcp.send(SET, lwb4=nobody)  # no softwire ends there
    assert pcp.receive(timeout=1.0) is None
    after = counts(rig)["dropped"]
    assert {kind: after[kind] - before[kind] for kind in after} == {
        "no_request": 3, "malformed": 3, "source": 8, "repeated": 0, "overload": 0,
    }  # fmt: skip


def test_only_pcp_is_shown_to_the_controller(rig: Rig) -> None:
    """And only out of softwires. Whatever else comes to the server's address has no binding."""
    other = IP(src="192.0.0.2", dst=SERVER) / UDP(sport=1, dport=5350) / b"?"
    before = rig.counters()
    rig.wire6.send(frame_of(softwire(other, LWB4[9]), 6))
    wait_for("it is dropped", lambda: (
        rig.counters() - before)["drop_upstream_not_served"] == 1)  # fmt: skip
    frames(rig.wire6, 1)  # the ICMPv6 error about it
    outside = IP(src="198.18.9.9", dst=SERVER) / UDP(sport=40000, dport=5351) / SET
    rig.wire4.send(frame_of(outside, 4))
    wait_for("it is dropped", lambda: (
        rig.counters() - before)["drop_downstream_not_served"] == 1)  # fmt: skip


def test_repeated_requests_get_one_answer_and_many_lwb4s_one_each(rig: Rig, pcp: Answers) -> None:
    asked = range(0x200, 0x200 + 20)
    for number in asked:
        request = map_request(60, protocol=6, size=256)
        for _ in range(3):
            pcp.send(request, lwb4=lwb4(number), sport=number)
    got: dict[int, list[bytes]] = {}
    for frame in frames(rig.wire6, 60, 3.0):
        sport = Ether(frame)[UDP].dport
        got.setdefault(sport, []).append(pcp.check(frame, lwb4(sport), "192.0.0.2", sport))
    assert set(got) == set(asked)
    sets = {answers[0][40:60] for answers in got.values()}
    assert len(sets) == 20  # external port and address of each
    for answers in got.values():
        assert len(set(answers)) == 1
    merged = counts(rig)["dropped"]["repeated"]
    assert merged > 0
    assert sum(map(len, got.values())) + merged == 60
    for number in asked:
        pcp.ask(map_request(0, protocol=6, size=256), lwb4=lwb4(number))


def test_counters_by_kind_and_result(rig: Rig, pcp: Answers) -> None:
    before = counts(rig)
    pcp.ask(map_request(60, internal=1), lwb4=lwb4(0x40))
    pcp.ask(map_request(60, size=10), lwb4=lwb4(0x40))
    pcp.ask(map_request(0, protocol=0, internal=0), lwb4=lwb4(0x40))
    pcp.ask(b"\x00\x00", lwb4=lwb4(0x40))
    after = counts(rig)
    assert {k: n - before["received"][k] for k, n in after["received"].items()} == {
        "map": 1, "map_port_set": 1, "delete": 1, "announce": 0, "unreadable": 1
    }  # fmt: skip
    answered = {k: n - before["answered"][k] for k, n in after["answered"].items()}
    assert {k: n for k, n in answered.items() if n} == {"SUCCESS": 3, "UNSUPP_VERSION": 1}


def test_a_restart_keeps_mappings_and_epoch(rig: Rig, pcp: Answers) -> None:
    client = {"lwb4": lwb4(0x50)}
    first = pcp.ask(map_request(600, size=4096), **client)
    started = time.monotonic()
    rig.controller.kill()
    rig.controller.start()
    wait_for("both next hops are known", rig.neighbours_known)
    assert pcp.ask(map_request(600, size=4096), **client) == first
    epoch = counts(rig)["epoch"]
    assert epoch >= int(time.monotonic() - started)
    thief = pcp.granted(map_request(600, size=4096, nonce="ff" * 12), **client)
    assert thief.result.name == "NOT_AUTHORIZED"
