"""Data-packet trigger: a packet without a binding asks the supporting system, and goes on.

The lwAFTR starts without bindings for these subscribers, as a backup does. PSIDs of 192.0.2.0/24
(a = 6, k = 6, m = 4): ports 0x0450-0x045f = 1104-1119 are PSID 5, 1120-1135 PSID 6, and so on.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.packet import Packet

from openflow_rules.tables import Register, Table
from ryu_lw4o6.core.binding import Binding, BindingKey
from ryu_lw4o6.core.portset import FULL_ADDRESS, PortParams
from ryu_lw4o6.store import Store
from tests.support.ovs import wait_for
from tests.support.rig import CONFIG, Rig, frames
from tests.wire.scenario import (
    AFTR,
    Scenario,
    downstream,
    forwarded,
    frame_of,
    run,
    softwire,
    tunnelled,
    upstream,
)
from tests.wire.test_icmp_errors import refused

SHARED = PortParams(6, 6)
DATA_PACKET = (
    "supporting_system: {{store: 'sqlite:///{directory}/system.sqlite', remember_no: 2, "
    "deadline: 10}}\n" + CONFIG + "    failover: data-packet+icmpv6\n"
)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    rig = Rig(DATA_PACKET)
    yield rig
    rig.stop()


@pytest.fixture
def system(rig: Rig) -> Iterator[Store]:
    """The supporting system, as the operator fills it."""
    store = Store(f"sqlite:///{rig.ovs.directory}/system.sqlite")
    yield store
    store.close()


def subscriber(number: int) -> str:
    return f"2001:db8:b4::{number:x}"


def binding(number: int, psid: int, ipv4: str = "192.0.2.1", **more: Any) -> Binding:
    params = SHARED if ipv4.startswith("192") else FULL_ADDRESS
    return Binding(IPv6Address(subscriber(number)), IPv4Address(ipv4), psid, params, **more)


def ports(psid: int) -> int:
    """The first port of a PSID: A = 1, then the PSID, then 0."""
    return 1 << 10 | psid << 4


def from_lwb4(number: int, psid: int, payload: bytes = b"hello", **more: Any) -> Packet:
    inner = upstream(**more) / UDP(sport=ports(psid), dport=53) / payload
    return softwire(inner, subscriber(number))


def out_of(packet: Packet) -> Packet:
    """What the Internet gets of a softwire packet."""
    return forwarded(packet.payload)


def status(rig: Rig) -> dict[str, Any]:
    found: dict[str, Any] = rig.controller.rest("GET", "/v1/bindings?limit=1000")[1]
    return {f"{b['ipv4']}/{b['psid']}": b for b in found["bindings"]}


ONE_ASKED = {"from_softwire": 1, "unknown_lwb4": 1, "to_internet": 1}


def test_the_first_packet_makes_the_binding_and_goes_on(rig: Rig, system: Store) -> None:
    system.save([binding(5, 5)], [])
    packet = from_lwb4(5, 5)
    run(rig, Scenario("first", send6=[packet], out4=[out_of(packet)], counters=ONE_ASKED))
    made = status(rig)["192.0.2.1/5"]
    assert (made["lwb4"], made["origin"]) == (subscriber(5), "validated")
    assert made["state"] == {"lwaftr1": {"state": "applied"}}
    assert made["expires_at"] is not None  # to be asked about again
    # From now on it is the switch's business alone, in both directions.
    known = {"from_softwire": 1, "to_internet": 1}
    run(rig, Scenario("second", send6=[packet], out4=[out_of(packet)], counters=known))
    back = downstream() / UDP(sport=53, dport=ports(5))
    expected = tunnelled(downstream(ttl=59) / UDP(sport=53, dport=ports(5)), subscriber(5))
    run(rig, Scenario("back", send4=[back], out6=[expected],
                      counters={"from_internet": 1, "to_softwire": 1}))  # fmt: skip


def test_no_packet_of_a_burst_is_lost(rig: Rig, system: Store) -> None:
    system.save([binding(6, 6)], [])
    burst = [from_lwb4(6, 6, b"%02d" % n, id=n) for n in range(30)]
    for packet in burst:
        rig.wire6.send(frame_of(packet, 6))
    got = frames(rig.wire4, len(burst))
    assert sorted(got) == sorted(frame_of(out_of(p), 4, out=True) for p in burst)
    assert frames(rig.wire6, 1, 0.2) == []


def test_packets_that_missed_their_flows_by_a_moment_go_on(rig: Rig, system: Store) -> None:
    system.save([binding(24, 24)], [])
    first = from_lwb4(24, 24)
    run(rig, Scenario("first", send6=[first], out4=[out_of(first)], counters=ONE_ASKED))
    # The switch looked these up before it had the flows, and shows them one by one.
    for number in range(3):
        late = from_lwb4(24, 24, b"late", id=number)
        show_again(rig, late)
        assert frames(rig.wire4, 1) == [frame_of(out_of(late), 4, out=True)]
    rig.wire6.send(frame_of(first, 6))
    assert frames(rig.wire4, 1) == [frame_of(out_of(first), 4, out=True)]
    assert frames(rig.wire6, 1, 0.2) == []


def show_again(rig: Rig, packet: Packet) -> None:
    """Have the switch find no binding for a softwire packet."""
    port = rig.ovs("ovs-vsctl", "get", "Interface", "softwire0", "ofport").strip()
    frame = bytes(12) + b"\x08\x00" + bytes(packet.payload)
    actions = (
        f"set_field:{packet.src}->tun_ipv6_src,set_field:{packet.dst}->tun_ipv6_dst,"
        f"set_field:{packet[UDP].sport >> 4 & 63}->{Register.PSID},resubmit(,{Table.UNKNOWN_LWB4})"
    )
    rig.ovs("ovs-ofctl", "-OOpenFlow13", "packet-out", "br0",
            f"in_port={port},packet={frame.hex()},actions={actions}")  # fmt: skip


def test_an_icmp_echo_and_an_established_tcp_connection_go_on(rig: Rig, system: Store) -> None:
    system.save([binding(7, 7)], [])
    echo = softwire(upstream() / ICMP(type=8, id=ports(7), seq=3) / b"ping", subscriber(7))
    run(rig, Scenario("echo", send6=[echo], out4=[out_of(echo)], counters=ONE_ASKED))
    system.save([binding(8, 8)], [])
    segment = TCP(sport=ports(8), dport=80, flags="PA", seq=7, ack=9) / b"GET"
    packet = softwire(upstream() / segment, subscriber(8))
    run(rig, Scenario("tcp", send6=[packet], out4=[out_of(packet)], counters=ONE_ASKED))


def test_a_full_address(rig: Rig, system: Store) -> None:
    system.save([binding(9, 0, "203.0.113.5")], [])
    packet = softwire(upstream(src="203.0.113.5") / UDP(sport=9, dport=9), subscriber(9))
    run(rig, Scenario("full", send6=[packet], out4=[out_of(packet)], counters=ONE_ASKED))


def test_a_packet_from_the_internet_asks_as_well(rig: Rig, system: Store) -> None:
    system.save([binding(10, 10)], [])
    syn = downstream() / TCP(sport=40000, dport=ports(10), flags="S", seq=1)
    through = tunnelled(
        downstream(ttl=59) / TCP(sport=40000, dport=ports(10), flags="S", seq=1), subscriber(10)
    )
    counters = {"from_internet": 1, "unknown_ipv4": 1, "to_softwire": 1}
    run(rig, Scenario("inbound", send4=[syn], out6=[through], counters=counters))
    assert status(rig)["192.0.2.1/10"]["lwb4"] == subscriber(10)


def test_one_that_is_refused_gets_an_icmpv6_error_and_then_silence(rig: Rig, system: Store) -> None:
    packet = from_lwb4(11, 11)
    counters = {"from_softwire": 1, "unknown_lwb4": 1}
    run(rig, Scenario("refused", send6=[packet], out6=[refused(packet)], counters=counters))
    # The switch remembers, and drops by itself.
    silent = {"from_softwire": 20, "unknown_lwb4": 20, "drop_upstream_no_binding": 20}
    run(rig, Scenario("again", send6=[packet] * 20, counters=silent))
    assert "192.0.2.1/11" not in status(rig)
    # It is asked again after a while.
    system.save([binding(11, 11)], [])

    def through() -> bool:
        rig.wire6.send(frame_of(packet, 6))
        return frame_of(out_of(packet), 4, out=True) in frames(rig.wire4, 1, 0.2)

    wait_for("a refusal is forgotten", through, 10)
    drain(rig)


def test_an_address_of_another_lwaftr_gets_an_icmpv6_error(rig: Rig, system: Store) -> None:
    inner = upstream(src="192.0.9.1") / UDP(sport=1104, dport=53)
    packet = softwire(inner, subscriber(12))
    counters = {"from_softwire": 1, "unknown_lwb4": 1}
    run(rig, Scenario("alien", send6=[packet], out6=[refused(packet)], counters=counters))


def test_somebody_elses_port_set_is_refused(rig: Rig, system: Store) -> None:
    system.save([binding(13, 13)], [])
    packet = from_lwb4(14, 13)
    counters = {"from_softwire": 1, "unknown_lwb4": 1}
    run(rig, Scenario("spoofed", send6=[packet], out6=[refused(packet)], counters=counters))
    # Which is not held against its owner.
    packet = from_lwb4(13, 13)
    run(rig, Scenario("owner", send6=[packet], out4=[out_of(packet)], counters=ONE_ASKED))


def test_a_softwire_to_the_wrong_br_address_is_refused(rig: Rig, system: Store) -> None:
    second = IPv6Address("2001:db8:ffff::2")
    system.save([binding(15, 15, br_address=second)], [])
    packet = from_lwb4(15, 15)
    assert packet.dst == AFTR
    counters = {"from_softwire": 1, "unknown_lwb4": 1}
    run(rig, Scenario("wrong", send6=[packet], out6=[refused(packet)], counters=counters))
    packet = softwire(packet.payload, subscriber(15), str(second))
    wait_for("refusals are forgotten", lambda: passes(rig, packet), 10)


def test_who_holds_an_address_is_for_the_supporting_system_to_say(rig: Rig, system: Store) -> None:
    """The address and port set has moved to another lwB4; the lwAFTR still has the old one."""
    system.save([binding(16, 16)], [])
    old = from_lwb4(16, 16)
    run(rig, Scenario("old", send6=[old], out4=[out_of(old)], counters=ONE_ASKED))
    system.save([binding(17, 16)], [])
    new = from_lwb4(17, 16)
    run(rig, Scenario("new", send6=[new], out4=[out_of(new)], counters=ONE_ASKED))
    counters = {"from_softwire": 1, "unknown_lwb4": 1}
    run(rig, Scenario("old again", send6=[old], out6=[refused(old)], counters=counters))
    assert status(rig)["192.0.2.1/16"]["lwb4"] == subscriber(17)


def test_a_static_binding_is_not_asked_about(rig: Rig, system: Store) -> None:
    """192.0.2.1 PSID 3 stands in the configuration."""
    system.save([binding(18, 3)], [])
    packet = from_lwb4(18, 3)
    counters = {"from_softwire": 1, "unknown_lwb4": 1}
    run(rig, Scenario("static", send6=[packet], out6=[refused(packet)], counters=counters))
    assert status(rig)["192.0.2.1/3"]["lwb4"] == subscriber(1)


def test_a_lease_ends_when_the_supporting_system_says(rig: Rig, system: Store) -> None:
    end = time.time() + 3
    system.save([binding(19, 19, expires_at=end)], [])
    packet = from_lwb4(19, 19)
    run(rig, Scenario("leased", send6=[packet], out4=[out_of(packet)], counters=ONE_ASKED))
    wait_for("it expires", lambda: "192.0.2.1/19" not in status(rig), 10)
    assert time.time() >= end
    drain(rig)
    counters = {"from_softwire": 1, "unknown_lwb4": 1}
    run(rig, Scenario("over", send6=[packet], out6=[refused(packet)], counters=counters))


def test_a_lease_that_was_renewed_goes_on(rig: Rig, system: Store) -> None:
    system.save([binding(20, 20, expires_at=time.time() + 4)], [])
    packet = from_lwb4(20, 20)
    run(rig, Scenario("leased", send6=[packet], out4=[out_of(packet)], counters=ONE_ASKED))
    first = status(rig)["192.0.2.1/20"]["expires_at"]
    system.save([binding(20, 20, expires_at=time.time() + 3600)], [])
    wait_for("it is renewed", lambda: status(rig)["192.0.2.1/20"]["expires_at"] > first, 10)


def test_flows_that_somebody_deleted_come_back_with_the_first_packet(
    rig: Rig, system: Store
) -> None:
    system.save([binding(21, 21)], [])
    packet = from_lwb4(21, 21)
    run(rig, Scenario("first", send6=[packet], out4=[out_of(packet)], counters=ONE_ASKED))
    rig.ovs("ovs-ofctl", "-OOpenFlow13", "del-flows", "br0", "tun_ipv6_src=" + subscriber(21))
    # It finds no binding again when it is sent on, and only that says that flows are missing.
    twice = ONE_ASKED | {"unknown_lwb4": 2}
    run(rig, Scenario("restored", send6=[packet], out4=[out_of(packet)], counters=twice))


def test_what_was_validated_outlives_controller_and_supporting_system(
    rig: Rig, system: Store
) -> None:
    system.save([binding(22, 22)], [])
    packet = from_lwb4(22, 22)
    run(rig, Scenario("first", send6=[packet], out4=[out_of(packet)], counters=ONE_ASKED))
    rig.controller.kill()
    system.close()
    database = rig.ovs.directory / "system.sqlite"
    database.rename(database.with_suffix(".away"))  # nobody to ask any more
    rig.controller.start()
    wait_for("both next hops are known", rig.neighbours_known)
    wait_for("the supporting system is missed", lambda: state_of_system(rig) == "unavailable")
    assert status(rig)["192.0.2.1/22"]["lwb4"] == subscriber(22)
    known = {"from_softwire": 1, "to_internet": 1}
    run(rig, Scenario("known", send6=[packet], out4=[out_of(packet)], counters=known))


def test_what_was_taken_back_while_the_controller_was_away_is_gone(rig: Rig) -> None:
    database = rig.ovs.directory / "system.sqlite"
    database.with_suffix(".away").rename(database)
    with contextlib.closing(Store(f"sqlite:///{database}")) as system:
        system.save([binding(23, 23)], [])
        packet = from_lwb4(23, 23)
        wait_for("the supporting system is back", lambda: passes(rig, packet))
        rig.controller.kill()
        system.save([], [BindingKey(IPv4Address("192.0.2.1"), 23)])
        rig.controller.start()
        wait_for("both next hops are known", rig.neighbours_known)
        wait_for("it is withdrawn", lambda: "192.0.2.1/23" not in status(rig))


def state_of_system(rig: Rig) -> str:
    _, found = rig.controller.rest("GET", "/v1/failover")
    state: str = found["supporting_system"]["state"]
    return state


def passes(rig: Rig, packet: Packet) -> bool:
    rig.wire6.send(frame_of(packet, 6))
    return frame_of(out_of(packet), 4, out=True) in frames(rig.wire4, 1, 0.3)


def drain(rig: Rig) -> None:
    """Forget what is still under way on both wires."""
    for wire in (rig.wire4, rig.wire6):
        while frames(wire, 1, 0.3):
            pass
