"""Counters add up where the controller takes part, and where meters keep packets from it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig
from scapy.packet import Packet, Raw

from openflow_rules.tables import Punt
from ryu_lw4o6.counters import FROM_LWB4, TO_LWB4
from tests.support.ovs import wait_for
from tests.support.rig import CONFIG, Rig, frames
from tests.wire.scenario import (
    LWB4,
    downstream,
    forwarded,
    frame_of,
    softwire,
    tunnelled,
    upstream,
)
from tests.wire.test_fragments import cut, cut6
from tests.wire.test_tunnel_icmp import about, error

TALK = UDP(sport=53, dport=1072) / Raw(bytes(100))
WHOLE = downstream(flags="DF") / UDP(sport=53, dport=1072) / bytes(1400)
PACKETS = 6


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    rig = Rig(CONFIG)
    yield rig
    rig.stop()


@pytest.fixture
def narrow(rig: Rig) -> Rig:
    """The way to subscriber 1 takes 1300 bytes, 1260 of IPv4."""
    rig.wire6.send(frame_of(error(ICMPv6PacketTooBig(mtu=1300), about(WHOLE)), 6))
    wait_for("the path MTU is known", lambda: paths(rig)["paths"] == 1)
    drain(rig)
    return rig


def paths(rig: Rig) -> dict[str, Any]:
    return dict(rig.controller.switch()["paths"])


def sent_on(rig: Rig) -> int:
    return int(rig.controller.switch()["slow_path"]["packets"].get("sent_on", 0))


def leaves(rig: Rig) -> Counter[str]:
    body = rig.controller.rest("GET", "/v1/counters/lwaftr1")[1]["traffic-stat"]
    return Counter({leaf: n for leaf, n in body.items() if leaf != "discontinuity-time"})


def drain(rig: Rig) -> None:
    for wire in (rig.wire4, rig.wire6):
        while frames(wire, 1, 0.1):
            pass


def limit(rig: Rig, punt: Punt) -> None:
    """Let the controller be shown one a second."""
    band = "band=type=drop,rate=1,burst_size=1"
    rig.ovs(
        "ovs-ofctl", "-OOpenFlow13", "mod-meter", "br0", f"meter={punt},pktps,burst,stats,{band}"
    )


def early(packet: Packet) -> list[Packet]:
    """In two fragments, the second first."""
    first, later = cut(packet, 88)
    return [later, first]


def send4(rig: Rig, *packets: Packet) -> None:
    for packet in packets:
        rig.wire4.send(frame_of(packet, 4))


def test_a_first_fragment_passes_a_full_meter(rig: Rig) -> None:
    """Only its copy for the controller does not, and then the others of its packet are lost."""
    limit(rig, Punt.AWAITED)
    before, sent_before = rig.counters(), sent_on(rig)
    packets = [early(downstream() / TALK) for _ in range(PACKETS)]
    send4(rig, *itertools.chain.from_iterable(packets))
    firsts = {frame_of(tunnelled(forwarded(first), LWB4[1]), 6, out=True) for _, first in packets}

    def all_out() -> bool:
        firsts.difference_update(frames(rig.wire6, 1, 0.2))
        return not firsts

    wait_for("all first fragments have come out", all_out)
    changes = rig.counters() - before
    withheld = changes["withheld_awaited"]
    assert withheld >= PACKETS // 2
    assert changes == Counter(
        from_internet=2 * PACKETS, held_from_internet=PACKETS, withheld_awaited=withheld,
        to_softwire=PACKETS + sent_on(rig) - sent_before,
    )  # fmt: skip
    assert sent_on(rig) - sent_before == PACKETS - withheld
    drain(rig)


def test_fragments_that_a_meter_withholds(rig: Rig) -> None:
    limit(rig, Punt.FRAGMENT)
    before, leaves_before = rig.counters(), leaves(rig)
    later = [early(downstream() / TALK)[0] for _ in range(PACKETS)]
    send4(rig, *later)
    wait_for("they have come in",
             lambda: (rig.counters() - before)["held_from_internet"] == PACKETS)  # fmt: skip
    withheld = (rig.counters() - before)["withheld_fragment"]
    assert withheld >= PACKETS // 2
    grown = leaves(rig) - leaves_before
    assert grown["dropped-ipv4-fragments"] == withheld
    assert grown["dropped-ipv4-fragment-bytes"] == withheld * len(bytes(later[0]))


def test_packets_over_a_path_mtu_that_a_meter_withholds(narrow: Rig) -> None:
    limit(narrow, Punt.PATH_MTU)
    before, leaves_before = narrow.counters(), leaves(narrow)
    send4(narrow, *[WHOLE] * PACKETS)
    wait_for("they have come in",
             lambda: (narrow.counters() - before)["from_internet"] == PACKETS)  # fmt: skip
    changes = narrow.counters() - before
    assert changes["withheld_path_mtu"] >= PACKETS // 2
    assert changes["withheld_path_mtu"] + changes["over_path_mtu"] == PACKETS
    assert changes["to_softwire"] == 0
    grown = leaves(narrow) - leaves_before
    assert grown["dropped-ipv4-packets"] == grown["rcvd-ipv4-packets"] == PACKETS
    assert grown["dropped-ipv4-bytes"] == PACKETS * len(bytes(WHOLE))
    drain(narrow)


def test_meters_are_put_right_by_a_new_controller(rig: Rig) -> None:
    limit(rig, Punt.PATH_MTU)
    rig.controller.kill()
    rig.controller.start()
    text = rig.ovs("ovs-ofctl", "-OOpenFlow13", "dump-meters", "br0")
    assert f"meter={Punt.PATH_MTU} pktps burst stats bands=\ntype=drop rate=1000 burst" in text
    wait_for("both next hops are known", rig.neighbours_known)


def test_received_is_forwarded_dropped_and_the_controllers(narrow: Rig) -> None:
    """Whatever the controller has a hand in, at once."""
    before, leaves_before = narrow.counters(), leaves(narrow)
    sent_before, counts = sent_on(narrow), Counter(paths(narrow)["counts"])
    from_lwb4 = upstream() / UDP(sport=1072, dport=53)
    up = [
        *(softwire(piece) for piece in early(from_lwb4 / bytes(100))),
        softwire(early(from_lwb4 / bytes(90))[0]),  # its first fragment never comes
        softwire(upstream() / UDP(sport=1088, dport=53)),  # another's port
        *cut6(softwire(from_lwb4 / bytes(500)), 256),
    ]
    no_df = downstream() / UDP(sport=53, dport=1072) / bytes(1400)
    down = [
        *early(downstream() / TALK), early(downstream() / TALK)[0], WHOLE, no_df, no_df,
        downstream() / TALK, downstream() / UDP(sport=53, dport=9999),
    ]  # fmt: skip
    for packet in up:
        narrow.wire6.send(frame_of(packet, 6))
    send4(narrow, *down)

    def fragmented() -> int:
        return int((Counter(paths(narrow)["counts"]) - counts)["fragmented"])

    def quiet() -> bool:
        changes = narrow.counters() - before
        return (
            changes["from_internet"] == len(down)
            and changes["from_softwire"] == 4 + 1  # of the IPv6 fragments one packet
            and sent_on(narrow) - sent_before == 2
            and fragmented() == 2
            and changes["to_internet"] == 2 + 1
            and changes["to_softwire"] == 2 + 1
        )

    wait_for("all has been done", quiet)
    changes = narrow.counters() - before
    dropped = sum(changes[f"drop_{drop.name.lower()}"] for drop in FROM_LWB4 | TO_LWB4)
    held = changes["held_from_softwire"] + changes["held_from_internet"]
    assert (dropped, held, changes["over_path_mtu"]) == (2, 4, 3)
    received = changes["from_softwire"] + changes["from_internet"]
    consumed = held - 2 + changes["over_path_mtu"] - 2
    assert received == changes["to_internet"] + changes["to_softwire"] + 2 + dropped + consumed
    # By family; two fragments still wait.
    grown = leaves(narrow) - leaves_before
    assert grown["sent-ipv6-packets"] == changes["to_softwire"] + 2
    came = grown["rcvd-ipv4-packets"] + grown["rcvd-ipv6-packets"]
    went = sum(grown[f"{way}-ipv{v}-packets"] for way in ("sent", "dropped") for v in (4, 6))
    assert came == went + 2
    drain(narrow)
