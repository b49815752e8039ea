"""What a softwire does not carry whole: fragments on the way to the lwB4, unless DF forbids it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.support.rig import CONFIG, NIC6, ROUTER6, Rig, frames
from tests.wire.scenario import (
    AFTR,
    DOWN,
    HAIRPINNED,
    LWB4,
    SECOND_AFTR,
    UP,
    Scenario,
    downstream,
    forwarded,
    frame_of,
    run,
    softwire,
    tunnelled,
    upstream,
)
from tests.wire.test_fragments import fragments
from tests.wire.test_icmp_errors import quoted_by

FROM_53 = UDP(sport=53, dport=1072)
# Of 1500 bytes 40 are the IPv6 header and 8 the fragment header: 1452, of which 1448 are a multiple
# of 8 (RFC 8200 section 4.5). An IPv4 packet of 1460 bytes needs no fragment header.
FIRST = 1448


def in_fragments(packet: Packet, lwb4: str, aftr: str) -> list[bytes]:
    """RFC 2473 section 7.2 (b): the softwire packet is fragmented, not the packet in it. The
    identification is the tunnel's own, here 0."""
    inner = bytes(packet)
    made = []
    for at in range(0, len(inner), FIRST):
        piece = inner[at : at + FIRST]
        field = at | (at + FIRST < len(inner))
        header = b"\x04\0" + field.to_bytes(2, "big") + bytes(4)
        outer = IPv6(src=aftr, dst=lwb4, nh=44, hlim=255, tc=packet.tos, plen=8 + len(piece))
        made.append(bytes(Ether(src=NIC6, dst=ROUTER6) / outer / Raw(header + piece)))
    return made


@pytest.mark.parametrize(
    ("packet", "lwb4", "aftr"),
    [
        (downstream() / FROM_53 / bytes(1433), 1, AFTR),  # 1461 bytes: one too many
        (downstream(tos=0xB9) / FROM_53 / Raw(bytes(range(256)) * 5 + bytes(192)), 1, AFTR),
        (downstream() / TCP(sport=80, dport=1087, flags="A") / bytes(1460), 1, AFTR),
        (downstream() / ICMP(type=8, id=1075) / bytes(1472), 1, AFTR),
        (downstream(dst="203.0.113.1", proto=47) / Raw(bytes(1480)), 3, AFTR),
        (downstream(dst="198.18.0.1") / UDP(sport=53, dport=65535) / bytes(1472), 4, SECOND_AFTR),
        (downstream(flags="MF") / FROM_53 / bytes(1472), 1, AFTR),  # a fragment of a fragment
        (downstream(dst="203.0.113.1", proto=17, frag=185) / Raw(bytes(1480)), 3, AFTR),
    ],
    ids=["1461", "tos", "tcp", "echo", "gre", "second-br", "first-fragment", "later-fragment"],
)
def test_what_does_not_fit_leaves_in_fragments(
    rig: Rig, packet: Packet, lwb4: int, aftr: str
) -> None:
    before, shim_before = rig.counters(), rig.shim_counters()
    identifications = set()
    for _ in range(2):
        rig.wire4.send(frame_of(packet, 4))
        found = frames(rig.wire6, 2)
        assert len({frame[58:62] for frame in found}) == 1
        identifications.add(found[0][58:62])
        assert [frame[:58] + bytes(4) + frame[62:] for frame in found] == in_fragments(
            forwarded(packet), LWB4[lwb4], aftr
        )
    assert len(identifications) == 2
    assert rig.counters() - before == dict.fromkeys(DOWN, 2)
    assert rig.shim_counters() - shim_before == {"fragmented_out": 2}


def test_a_hairpinned_packet_is_fragmented_as_well(rig: Rig) -> None:
    """It came in whole, over a network with a larger MTU than the lwAFTR's own."""
    packet = upstream(dst="203.0.113.1") / UDP(sport=1072, dport=9) / bytes(1472)
    before = rig.counters()
    rig.wire6.send(frame_of(softwire(packet), 6))
    found = frames(rig.wire6, 2)
    assert [frame[:58] + bytes(4) + frame[62:] for frame in found] == in_fragments(
        forwarded(packet), LWB4[3], AFTR
    )
    assert rig.counters() - before == HAIRPINNED


PADDED = [
    Scenario(
        "what Ethernet put behind a short packet is no part of it",
        send4=[downstream(len=28) / UDP(sport=53, dport=1072, len=8) / Raw(bytes(18))],
        out6=[IPv6(src=AFTR, dst=LWB4[1], nh=4, hlim=255)
              / (downstream(ttl=59, len=28) / UDP(sport=53, dport=1072, len=8))],
        counters=DOWN,
    ),
]  # fmt: skip


@pytest.mark.parametrize("scenario", PADDED, ids=str)
def test_padding(rig: Rig, scenario: Scenario) -> None:
    run(rig, scenario)


# --- an access network that takes more than the Internet's side -----------------------------------


@pytest.fixture(scope="module")
def wide() -> Iterator[Rig]:
    """1960 bytes of IPv4 come out of a softwire whole, of which the Internet's side takes 1500."""
    rig = Rig(CONFIG.replace("mtu: 1500", "mtu: 2000"))
    yield rig
    rig.stop()


def of_size(size: int, **fields: object) -> Packet:
    return upstream(**fields) / UDP(sport=1072, dport=53) / Raw(bytes(size - 28))


LIMIT = bytes.fromhex("0400040104010100")


def test_what_the_internet_takes_goes_on_whole(wide: Rig) -> None:
    packet = of_size(1500, flags="DF")
    run(wide, Scenario(
        "1500 bytes", send6=[softwire(packet)], out4=[forwarded(packet)], counters=UP
    ))  # fmt: skip


@pytest.mark.parametrize("options", [b"", LIMIT], ids=["plain", "encapsulation-limit"])
def test_more_is_fragmented_without_df(wide: Rig, options: bytes) -> None:
    """1501 bytes of IPv4: 1480 of its 1481 bytes of payload, and one (RFC 791 section 3.2)."""
    packet = of_size(1501)
    sent = softwire(packet)
    if options:
        sent = IPv6(src=LWB4[1], dst=AFTR, nh=60, hlim=63) / Raw(options + bytes(packet))
    run(wide, Scenario(
        "1501 bytes", send6=[sent], out4=[forwarded(p) for p in fragments(packet, 1480)],
        counters={"slow_softwire": 1, "from_softwire": 2, "to_internet": 2},
        shim={"options_stripped": 1} if options else {},
    ))  # fmt: skip


def test_more_is_answered_with_df(wide: Rig) -> None:
    packet = of_size(1501, flags="DF")
    run(wide, Scenario(
        "1501 bytes with DF", send6=[softwire(packet)],
        out6=[tunnelled(quoted_by(3, 4, packet, 1500), tc=0xC0)],
        counters={"slow_softwire": 1, "from_lwaftr": 1, "to_softwire": 1},
    ))  # fmt: skip


def test_nobody_is_answered_for_another(wide: Rig) -> None:
    """With DF, and the address and port of lwB4 2."""
    packet = upstream(flags="DF") / UDP(sport=1088, dport=53) / Raw(bytes(1473))
    run(wide, Scenario("forged", send6=[softwire(packet)], counters={"slow_softwire": 1}))
