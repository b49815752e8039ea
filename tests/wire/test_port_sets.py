"""Port sets on the wire (RFC 7597 section 5.1): every way to cut an address, many side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.packet import Packet

from tests.support.rig import Rig
from tests.wire.scenario import (
    AFTR,
    SECOND_AFTR,
    Scenario,
    downstream,
    forwarded,
    run,
    softwire,
    tunnelled,
    upstream,
)

INSTANCE = """\
instances:
  - name: lwaftr1
    datapath_id: 1
    bridge: br0
    failover: none
    aftr_addresses: ["2001:db8:ffff::1", "2001:db8:ffff::2"]
    ipv6: {{port: eth6, address: "2001:db8:1::1/64", next_hop: "2001:db8:1::fe", mtu: 1500}}
    ipv4: {{port: eth4, address: 198.51.100.1/24, next_hop: 198.51.100.254}}
"""
STORE = "store: sqlite:///{directory}/bindings.sqlite\n"
SENTINEL = (
    "  - {{prefix: 192.0.2.0/24, psid_offset: 6, psid_length: 6}}\n",
    '  - {{lwb4: "2001:db8:b4::1", ipv4: 192.0.2.1, psid: 3}}\n',
)
"""What the packets that end a scenario pass by."""


def lwb4(number: int) -> str:
    return f"2001:db8:b4::{number:x}"


def config(prefixes: list[str], bindings: list[str]) -> str:
    return (
        f"{STORE}prefixes:\n{SENTINEL[0]}{''.join(prefixes)}"
        f"bindings:\n{SENTINEL[1]}{''.join(bindings)}{INSTANCE}"
    )


def both_ways(
    name: str, ipv4: str, owner: str, owned: list[int], foreign: list[int], excluded: list[int],
    aftr: str = AFTR,
) -> Scenario:  # fmt: skip
    """UDP from and to each port: ``owned`` ports are forwarded, ``foreign`` ones have no binding,
    ``excluded`` ones can have none."""
    up = [upstream(src=ipv4) / UDP(sport=port, dport=53) for port in owned]
    down = [downstream(dst=ipv4) / UDP(sport=53, dport=port) for port in owned]
    bad = [*foreign, *excluded]
    bad_up = [softwire(upstream(src=ipv4) / UDP(sport=port, dport=53), owner, aftr) for port in bad]
    bad_down = [downstream(dst=ipv4) / UDP(sport=53, dport=port) for port in bad]
    count = {"from_softwire": len(up) + len(bad), "from_internet": len(up) + len(bad)}
    count |= {"to_internet": len(up), "to_softwire": len(up)}
    for ports, reason in ((foreign, "no_binding"), (excluded, "excluded_port")):
        count |= {f"drop_{way}_{reason}": len(ports) for way in ("upstream", "downstream") if ports}
    return Scenario(
        name,
        send6=[*(softwire(p, owner, aftr) for p in up), *bad_up],
        send4=[*down, *bad_down],
        out4=[forwarded(p) for p in up],
        out6=[tunnelled(forwarded(p), owner, aftr) for p in down],
        counters={name: value for name, value in count.items() if value},
    )


# --- twelve prefixes with different parameters side by side ---------------------------------------


@dataclass(frozen=True)
class Cut:
    """A prefix, one binding in it, and ports worked out by hand."""

    prefix: str
    offset: int
    length: int
    ipv4: str
    psid: int
    owned: list[int]
    foreign: list[int]
    excluded: list[int]


TWELVE = [
    # a = 6, k = 8, m = 2: blocks of 1024; PSID 52 begins at 52 * 4 = 208.
    Cut("198.18.0.0/24", 6, 8, "198.18.0.1", 52, [1232, 1235, 64720, 64723],
        [1231, 1236, 64719, 64724], [0, 208, 1023]),
    # a = 0, k = 4, m = 12: sixteen ranges of 4096.
    Cut("198.18.1.0/24", 0, 4, "198.18.1.255", 0, [0, 1, 4095], [4096, 65535], []),
    # a = 0, k = 16: one port each.
    Cut("198.18.2.0/24", 0, 16, "198.18.2.0", 0xABCD, [0xABCD], [0xABCC, 0xABCE, 0, 65535], []),
    # a = 0, k = 1: halves.
    Cut("198.18.3.0/24", 0, 1, "198.18.3.9", 1, [32768, 65535], [0, 32767], []),
    # a = 1, k = 15, m = 0: the upper half, one port each.
    Cut("198.18.4.0/24", 1, 15, "198.18.4.9", 7, [32775], [32774, 32776, 65535], [7, 32767]),
    # a = 4, k = 8, m = 4: blocks of 4096; PSID 255 has the last sixteen ports of each.
    Cut("198.18.5.0/24", 4, 8, "198.18.5.9", 255, [8176, 8191, 65520, 65535],
        [8175, 8192, 65519], [4080, 4095]),
    # a = 6, k = 10, m = 0: one port in each block of 1024.
    Cut("198.18.6.0/24", 6, 10, "198.18.6.9", 1023, [2047, 65535], [2046, 2048, 65534], [1023]),
    # a = 8, k = 4, m = 4: blocks of 256.
    Cut("198.18.7.0/24", 8, 4, "198.18.7.9", 15, [496, 511, 65520, 65535], [495, 512], [240, 255]),
    # a = 15, k = 1, m = 0: every other port from 2 on.
    Cut("198.18.8.0/24", 15, 1, "198.18.8.9", 1, [3, 5, 65535], [2, 4, 65534], [0, 1]),
    # a = 10, k = 3, m = 3: blocks of 64.
    Cut("198.18.9.0/25", 10, 3, "198.18.9.127", 5, [104, 111, 65512, 65519],
        [103, 112, 65520], [40, 63]),
    # a = 12, k = 2, m = 2, beside the one before.
    Cut("198.18.9.128/25", 12, 2, "198.18.9.128", 2, [24, 27, 65528, 65531],
        [23, 28, 65532], [0, 8, 15]),
    # A single full address.
    Cut("203.0.113.77/32", 0, 0, "203.0.113.77", 0, [0, 1, 1023, 1024, 65535], [], []),
]  # fmt: skip


@pytest.fixture(scope="module")
def twelve() -> Iterator[Rig]:
    prefixes = [
        f"  - {{{{prefix: {c.prefix}, psid_offset: {c.offset}, psid_length: {c.length}}}}}\n"
        for c in TWELVE
    ]
    bindings = [
        f'  - {{{{lwb4: "{lwb4(0x10 + n)}", ipv4: {c.ipv4}, psid: {c.psid}, '
        f'br_address: "{(AFTR, SECOND_AFTR)[n % 2]}"}}}}\n'
        for n, c in enumerate(TWELVE)
    ]
    # One lwB4 with several bindings: two port sets of an address, and a full address.
    prefixes.append("  - {{prefix: 203.0.113.80/30}}\n")
    bindings += [
        f'  - {{{{lwb4: "{lwb4(0x99)}", ipv4: {ipv4}, psid: {psid}}}}}\n'
        for ipv4, psid in (("198.18.1.1", 1), ("198.18.1.1", 3), ("203.0.113.81", 0))
    ]
    rig = Rig(config(prefixes, bindings))
    yield rig
    rig.stop()


@pytest.mark.parametrize("number", range(len(TWELVE)), ids=lambda n: TWELVE[n].prefix)
def test_twelve_prefixes_side_by_side(twelve: Rig, number: int) -> None:
    cut = TWELVE[number]
    aftr = (AFTR, SECOND_AFTR)[number % 2]
    run(twelve, both_ways(cut.prefix, cut.ipv4, lwb4(0x10 + number), cut.owned, cut.foreign,
                          cut.excluded, aftr))  # fmt: skip


SEVERAL = lwb4(0x99)


def goes_both_ways(packet: Packet, back: Packet) -> Scenario:
    return Scenario(
        "both ways",
        send6=[softwire(packet, SEVERAL)],
        send4=[back],
        out4=[forwarded(packet)],
        out6=[tunnelled(forwarded(back), SEVERAL)],
        counters={"from_softwire": 1, "to_internet": 1, "from_internet": 1, "to_softwire": 1},
    )


@pytest.mark.parametrize("port", [4096, 8191, 12288, 16383])
def test_an_lwb4_with_two_port_sets_of_an_address(twelve: Rig, port: int) -> None:
    up = upstream(src="198.18.1.1") / TCP(sport=port, dport=80)
    run(twelve, goes_both_ways(up, downstream(dst="198.18.1.1") / TCP(sport=80, dport=port)))
    echo = upstream(src="198.18.1.1") / ICMP(type=8, id=port)
    run(twelve, goes_both_ways(echo, downstream(dst="198.18.1.1") / ICMP(type=0, id=port)))


@pytest.mark.parametrize("port", [4095, 8192, 12287, 16384])
def test_has_none_of_the_ports_between_them(twelve: Rig, port: int) -> None:
    run(twelve, both_ways("between", "198.18.1.1", SEVERAL, [], [port], []))


def test_and_a_full_address_besides(twelve: Rig) -> None:
    run(twelve, both_ways("full", "203.0.113.81", SEVERAL, [1, 4096, 65535], [], []))
    other = softwire(upstream(src="203.0.113.82") / UDP(sport=4096, dport=53), SEVERAL)
    run(twelve, Scenario("not the next address", send6=[other],
                         counters={"from_softwire": 1, "drop_upstream_no_binding": 1}))  # fmt: skip


# --- every offset, and lengths of every class -----------------------------------------------------

EVERY = [
    (offset, length)
    for offset in range(16)
    for length in sorted({1, (16 - offset + 1) // 2, 16 - offset})
]


def port(offset: int, length: int, a: int, psid: int, j: int) -> int:
    """A port by its three fields, as the figure in RFC 7597 section 5.1 has them."""
    bits = f"{a:0{offset}b}" if offset else ""
    bits += f"{psid:0{length}b}"
    low = 16 - offset - length
    return int(bits + (f"{j:0{low}b}" if low else ""), 2)


def address(offset: int, length: int) -> str:
    return f"198.{18 + offset // 8}.{offset % 8 * 16 + length}.7"


def psid_for(length: int) -> int:
    """Bits that are neither all 0 nor all 1, if there are several: 10, 101, 1010, ..."""
    return int(("10" * length)[:length], 2)


@pytest.fixture(scope="module")
def every() -> Iterator[Rig]:
    prefixes, bindings = [], []
    for number, (offset, length) in enumerate(EVERY):
        network = address(offset, length).removesuffix(".7") + ".0/24"
        prefixes.append(
            f"  - {{{{prefix: {network}, psid_offset: {offset}, psid_length: {length}}}}}\n"
        )
        bindings.append(
            f'  - {{{{lwb4: "{lwb4(0x100 + number)}", ipv4: {address(offset, length)}, '
            f"psid: {psid_for(length)}}}}}\n"
        )
    rig = Rig(config(prefixes, bindings))
    yield rig
    rig.stop()


@pytest.mark.parametrize(("offset", "length"), EVERY)
def test_every_offset_and_length(every: Rig, offset: int, length: int) -> None:
    psid, last_a = psid_for(length), (1 << offset) - 1
    last_j = (1 << 16 - offset - length) - 1
    first_a = 1 if offset else 0
    other = psid ^ 1
    owned = {port(offset, length, a, psid, j) for a in (first_a, last_a) for j in (0, last_j)}
    foreign = {port(offset, length, a, other, j) for a in (first_a, last_a) for j in (0, last_j)}
    excluded = {port(offset, length, 0, p, 0) for p in (psid, other)} if offset else set()
    owner = lwb4(0x100 + EVERY.index((offset, length)))
    run(every, both_ways("", address(offset, length), owner, sorted(owned), sorted(foreign),
                         sorted(excluded)))  # fmt: skip
