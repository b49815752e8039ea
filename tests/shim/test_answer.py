"""What the shim makes of softwire packets that the rules refuse: ICMPv6 errors (RFC 7596 section
6.2, RFC 4443 section 3.1) about them as they were on the wire."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from ipaddress import IPv6Address

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from ryu_lw4o6.core.settings import br_tag
from ryu_lw4o6.softwire import nic, shim
from ryu_lw4o6.softwire.nic import Hook
from tests.shim import model
from tests.shim.test_shim import (
    AFTR,
    ECHO,
    INSTANCE,
    NIC6,
    QUOTED_UDP,
    ROUTER6,
    SECOND,
    UDP_PACKET,
    VLANS,
    Ends,
    counters,
    ends,
    in_vlan,
    inner,
    place,
)
from tests.support.bpf import TC_OK, TC_STOLEN, XDP_PASS, Program
from tests.support.ovs import wait_for

__all__ = ["ends", "place"]

LIMIT = bytes.fromhex("0400 0401 04 010100")
BR_ADDRESSES = {br_tag(a): a.packed for a in (AFTR, SECOND)}
_LWB4S = itertools.count(0x20010DB8_DEAD0000_00000000_00000001)


def stranger() -> str:
    """An lwB4 that nobody has told anything yet."""
    return str(IPv6Address(next(_LWB4S)))


class Refusing:
    """Shim, rules that refuse everything, and shim again."""

    def __init__(self) -> None:
        self._in = Program(nic.program(Hook("eth6", "xdp", "softwire_in")) or 0)
        self._out = Program(nic.program(Hook("eth6", "egress", "softwire_out")) or 0)

    def seen(self, frame: bytes) -> bytes:
        """What Open vSwitch sees of a frame from the wire."""
        verdict, made = self._in.run(frame)
        assert verdict == XDP_PASS
        return made

    def sends(self, frame: bytes) -> bytes | None:
        """What leaves of a frame that Open vSwitch sends; None for nothing."""
        verdict, made = self._out.run(frame)
        assert verdict in (TC_OK, TC_STOLEN)
        return made if verdict == TC_OK else None

    def __call__(self, packet: IPv6) -> bytes | None:
        """The IPv6 packet that comes back for one."""
        seen = self.seen(bytes(Ether(src=ROUTER6, dst=NIC6) / packet))
        answer = self.sends(back(seen))
        assert answer is None or answer[:14] == bytes(Ether(src=NIC6, dst=ROUTER6, type=0x86DD))
        return None if answer is None else answer[14:]

    def close(self) -> None:
        self._in.close()
        self._out.close()


@pytest.fixture
def refusing(ends: Ends) -> Iterator[Refusing]:
    found = Refusing()
    yield found
    found.close()


def back(seen: bytes, tag: int | None = None) -> bytes:
    """A frame as the rules send it back: refused, by the br-address it was sent to."""
    if tag is None:
        tag = br_tag(IPv6Address(seen[38:54]))
    to = 3 << 41 | tag << 9 | int.from_bytes(seen[58:64], "big") & 0x1FF
    outer = IPv6(src="2001:db8:1::1", dst=IPv6Address(seen[22:38]), nh=47, plen=len(seen) - 54)
    outer.hlim = 255
    start = bytes(Ether(src=NIC6, dst=ROUTER6, type=0x86DD) / outer)
    return start + seen[54:58] + to.to_bytes(6, "big") + seen[64:]


def told(packet: IPv6) -> bytes:
    """What Scapy makes of it: type 1, code 5, at most 1280 bytes in all."""
    error = IPv6(src=packet.dst, dst=packet.src, hlim=64) / ICMPv6DestUnreach(code=5)
    return bytes(error / Raw(bytes(packet)[: 1280 - 48]))


def test_to_the_byte(refusing: Refusing) -> None:
    """By hand: the words of the pseudo-header (RFC 8200 section 8.1) add up to 0x23BAD, those of
    the ICMPv6 header to 0x105, of the quotation to 0x8261B: 0xA62CD, which folds to 0x62D7. What is
    missing to 0xFFFF is 0x9D28."""
    packet = bytes.fromhex(
        "6a8a bcde 0024 043f"  # class 0xA8, label 0xABCDE, 36 bytes of IPv4, 63 hops
        "20010db8 dead0000 00000000 00000100 20010db8 ffff0000 00000000 00000001"
        "4500 0024 0007 0000 4011 8dc5 c0000201 c63364c8"
        "0430 0035 0010 0000 7175657374696f6e"
    )
    expected = bytes.fromhex(
        "6000 0000 0054 3a40"  # 84 bytes of ICMPv6, hop limit 64
        "20010db8 ffff0000 00000000 00000001 20010db8 dead0000 00000000 00000100"
        "0105 9d28 00000000"
    )
    assert refusing(IPv6(packet)) == expected + packet


@pytest.mark.parametrize("aftr", [AFTR, SECOND])
@pytest.mark.parametrize("size", [20, 21, 22, 23, 24, 1191, 1192, 1193, 1194, 1195, 1460])
@pytest.mark.parametrize("limited", [False, True])
def test_every_length(refusing: Refusing, aftr: IPv6Address, size: int, limited: bool) -> None:
    body = bytes(n % 251 for n in range(size - 20))
    ipv4 = inner(Raw(body), proto=59)
    packet = IPv6(src=stranger(), dst=str(aftr), nh=4, hlim=1, tc=0xFF, fl=0xFFFFF) / Raw(ipv4)
    if limited:
        packet.nh, packet.payload = 60, Raw(LIMIT + ipv4)
    packet = IPv6(bytes(packet))
    # Congestion outside becomes congestion inside, where the sender may be told of it.
    packet.tc = 0xFC
    answer = refusing(packet)
    assert answer == told(packet)
    assert len(answer) == min(1280, 48 + 40 + 8 * limited + size)


@pytest.mark.parametrize(
    ("packet", "label"),
    [(ECHO, 0x12345), (inner(ICMP(type=13, ts_ori=0, ts_rx=0, ts_tx=0)), 0x12345),
     (inner(Raw(bytes(8)), proto=17, frag=2, id=77), 0x12345),  # the first has not come
     # where the rules are told of two ports, there is no room for a flow label
     (inner(ICMP(type=3, code=3) / QUOTED_UDP), 0)],
)  # fmt: skip
def test_the_flow_label_as_far_as_it_is_known(
    refusing: Refusing, packet: bytes, label: int
) -> None:
    sent = IPv6(src=stranger(), dst=str(AFTR), nh=4, hlim=200, fl=0x12345) / Raw(packet)
    expected = sent.copy()
    expected.fl = label
    assert refusing(sent) == told(expected)


def test_once_a_second(refusing: Refusing) -> None:
    packet = IPv6(src=stranger(), dst=str(AFTR), nh=4) / Raw(UDP_PACKET)
    other = IPv6(src=stranger(), dst=str(AFTR), nh=4) / Raw(UDP_PACKET)
    frame = bytes(Ether(src=ROUTER6, dst=NIC6) / packet)
    first = refusing.seen(frame)
    assert first[58:64].hex() == "024b00010000"
    assert refusing(packet) == told(packet)
    assert refusing.seen(frame)[58:64].hex() == "024b00030000"  # the rules are told: not now
    assert refusing.sends(back(first)) is None  # and what was under way already is kept back
    assert refusing(other) == told(other)
    found = counters()
    assert {k: v for k, v in found.items() if "answered" in k} == {
        "answered": 2, "answered_bytes": 2 * (48 + 40 + 36), "answered_lately": 1,
    }  # fmt: skip
    wait_for("it may be told again", lambda: refusing.seen(frame) == first, 3)
    assert refusing(packet) == told(packet)


@pytest.mark.parametrize(
    ("source", "mark"),
    [("::", 3), ("::1", 3), ("ff02::1", 3), ("ffff::1", 3), ("::2", 1), ("0:0:0:1::1", 1),
     ("fe80::1", 1), ("1::", 1)],
)  # fmt: skip
def test_who_must_not_be_told(refusing: Refusing, source: str, mark: int) -> None:
    """RFC 4443 section 2.4 e.6."""
    packet = IPv6(src=source, dst=str(AFTR), nh=4) / Raw(UDP_PACKET)
    assert refusing.seen(bytes(Ether(src=ROUTER6, dst=NIC6) / packet))[61] == mark


def test_what_cannot_be_answered(refusing: Refusing) -> None:
    packet = IPv6(src=stranger(), dst=str(AFTR), nh=4) / Raw(UDP_PACKET)
    seen = refusing.seen(bytes(Ether(src=ROUTER6, dst=NIC6) / packet))
    assert refusing.sends(back(seen, tag=0x12345678)) is None
    assert refusing.sends(back(seen)[:-1]) is None
    assert {k: v for k, v in counters().items() if k.startswith("refused") and v} == {
        "refused_unknown_br_tag": 1, "refused_truncated": 1,
    }  # fmt: skip


def test_answers_are_tagged(ends: Ends) -> None:
    shim.attach(VLANS)
    packet = IPv6(src=stranger(), dst=str(AFTR), nh=4) / Raw(UDP_PACKET)
    program = Program(nic.program(Hook("eth6", "xdp", "softwire_in")) or 0)
    try:
        tagged = in_vlan(bytes(Ether(src=ROUTER6, dst=NIC6) / packet), 100)
        _, seen = program.run(tagged)
    finally:
        program.close()
    ends.eth6.send(back(seen))
    expected = bytes(Ether(src=NIC6, dst=ROUTER6, type=0x86DD)) + told(packet)
    assert ends.wire6.receive() == in_vlan(expected, 100)


@pytest.fixture(scope="module")
def always(place: str) -> Iterator[Refusing]:
    shim.attach(INSTANCE)
    found = Refusing()
    yield found
    found.close()
    shim.detach(INSTANCE)


@settings(max_examples=1500, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    payload=st.binary(max_size=1400), label=st.integers(0, 0xFFFFF), hops=st.integers(0, 255),
    tos=st.integers(0, 63), limited=st.booleans(), changes=st.lists(
        st.tuples(st.integers(14, 91), st.integers(0, 255)), max_size=3),
)  # fmt: skip
def test_agrees_with_the_model(
    always: Refusing, payload: bytes, label: int, hops: int, tos: int, limited: bool,
    changes: list[tuple[int, int]],
) -> None:  # fmt: skip
    """Whatever Open vSwitch sends, the frame of a refused packet as it is or with bytes changed."""
    ipv4 = inner(UDP(sport=1072, dport=53) / payload, tos=tos << 2)
    outer = IPv6(src=stranger(), dst=str(AFTR), nh=60 if limited else 4, hlim=hops, fl=label)
    packet = bytes(Ether(src=ROUTER6, dst=NIC6) / outer / Raw(LIMIT * limited + ipv4))
    frame = bytearray(back(always.seen(packet)))
    for at, value in changes:
        if not 38 <= at < 54:  # a stranger it remains
            frame[at] = value
    assert always.sends(bytes(frame)) == model.ovs_to_wire(bytes(frame), BR_ADDRESSES)
