"""The shim's programs against the model, on random and mutated frames."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP

from ryu_lw4o6.core.settings import br_tag
from ryu_lw4o6.softwire import nic, shim
from tests.shim import model
from tests.shim.test_shim import (
    AFTR,
    ECHO,
    GRE_FRAME,
    INSTANCE,
    QUOTED_ECHO,
    QUOTED_GRE,
    QUOTED_TCP,
    QUOTED_UDP,
    SECOND,
    UDP_PACKET,
    from_ovs,
    in_snap,
    in_vlan,
    inner,
    place,
    short,
    softwire,
)
from tests.support.bpf import TC_OK, TC_STOLEN, XDP_DROP, XDP_PASS, Program

__all__ = ["place"]

ADDRESSES = {AFTR.packed, SECOND.packed}
BR_ADDRESSES = {br_tag(a): a.packed for a in (AFTR, SECOND)}
ERRORS = [inner(ICMP(type=t) / q) for t in (3, 11, 12) for q in (QUOTED_TCP, QUOTED_UDP)]
PACKETS = [
    UDP_PACKET, ECHO, *ERRORS, inner(ICMP(type=3) / QUOTED_ECHO), inner(ICMP(type=3) / QUOTED_GRE),
    bytes(IP(src="192.0.2.9", dst="198.51.100.200") / ICMP(type=3) / QUOTED_UDP),
    bytes(IP(src="192.0.2.1", dst="198.51.100.9") / ICMP(type=3) / QUOTED_UDP),
]  # fmt: skip
OPTIONS = [bytes.fromhex(f"{nh:02x}00 0401 0401 0000") for nh in (4, 58, 47, 60, 0)]
CONGESTED = [
    softwire(inner(UDP(sport=1072, dport=53), tos=tos), tc=tc)
    for tos in range(4) for tc in range(4)
]  # fmt: skip
SEEDS = [
    GRE_FRAME,
    *CONGESTED,
    *(softwire(packet) for packet in PACKETS),
    *(softwire(packet, dst="2001:db8:ffff::3") for packet in PACKETS),
    *(softwire(o + ECHO, nh=nh) for o in OPTIONS for nh in (60, 0, 43, 44, 51)),
    *(softwire(o + p + ECHO, nh=60) for o in OPTIONS for p in OPTIONS),
    *(softwire(bytes.fromhex(f"0400 {kind}04 01020304") + ECHO, nh=60) for kind in ("5e", "9e")),
    *(in_vlan(softwire(packet)) for packet in PACKETS[:2]),
    in_vlan(in_vlan(GRE_FRAME)),
    in_vlan(softwire(UDP_PACKET, dst="2001:db8:ffff::3")),
    in_vlan(softwire(UDP_PACKET[20:], nh=17)),
]
SEEDS += [in_snap(frame) for frame in SEEDS[:4]]
SENT = [from_ovs(br, packet) for br in (AFTR, SECOND) for packet in PACKETS]
FROM_INTERNET = [bytes(12) + b"\x08\x00" + packet for packet in PACKETS]


@pytest.fixture(scope="module")
def programs(place: str) -> Iterator[dict[str, Program]]:
    shim.attach(INSTANCE)
    found = {h.program: Program(nic.program(h) or 0) for h in nic.hooks(INSTANCE)}
    yield found
    for program in found.values():
        program.close()
    shim.detach(INSTANCE)


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed with some bytes changed, cut short or with something behind it."""
    frame = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        # mostly in the headers, where it matters
        place = draw(st.integers(12, min(len(frame), 110) - 1))
        frame[place] = draw(st.one_of(st.integers(0, 255), st.sampled_from([0, 4, 44, 47, 60])))
    at = draw(st.sampled_from([0, 14, 54, 62]))
    if at and len(frame) >= at + 20:  # let some of them have a header checksum that is right
        header = frame[at : at + max(20, (frame[at] & 15) * 4)]
        header[10:12] = bytes(2)
        frame[at + 10 : at + 12] = model.checksum(bytes(header)).to_bytes(2, "big")
    length = draw(st.one_of(st.just(len(frame)), st.integers(14, len(frame))))
    return bytes(frame[:length]) + draw(st.binary(max_size=8))


def random_with(prefix: bytes) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=60, max_size=200).map(lambda tail: prefix + tail)


@settings(max_examples=3000, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(frame=st.one_of(mutated(SEEDS), random_with(softwire(b"")[:54]), st.binary(min_size=14)))
def test_ingress_agrees_with_the_model(programs: dict[str, Program], frame: bytes) -> None:
    assume(not model.holds_fragment(frame))
    expected = model.into_ovs(frame, ADDRESSES)
    verdict, made = programs["softwire_in"].run(frame)
    assert verdict == (XDP_DROP if expected is None else XDP_PASS)
    assert expected is None or made == expected


@settings(max_examples=1500, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(frame=st.one_of(mutated(SENT), random_with(SENT[0][:54])).filter(lambda f: len(f) >= 54))
def test_egress_agrees_with_the_model(programs: dict[str, Program], frame: bytes) -> None:
    expected = model.ovs_to_wire(frame, BR_ADDRESSES)
    assume(len(frame) < 1500)  # what is longer leaves in fragments
    verdict, made = programs["softwire_out"].run(frame)
    assert verdict == (TC_STOLEN if expected is None else TC_OK)
    assert expected is None or made == expected


@settings(max_examples=1500, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(frame=st.one_of(mutated(FROM_INTERNET), random_with(FROM_INTERNET[0][:14])))
def test_ipv4_ingress_agrees_with_the_model(programs: dict[str, Program], frame: bytes) -> None:
    assume(not model.holds_fragment(frame))
    expected = model.into_ovs(frame, ADDRESSES)
    verdict, made = programs["softwire_in"].run(frame)
    assert verdict == (XDP_DROP if expected is None else XDP_PASS)
    assert expected is None or made == expected


@pytest.mark.parametrize("frame", [s for s in SEEDS if s[12:14] == b"\x81\x00"], ids=short)
def test_frames_of_a_vlan_are_nobodys(programs: dict[str, Program], frame: bytes) -> None:
    """Not on the wire: the kernel takes the tag away before a raw socket sees it."""
    verdict, _ = programs["softwire_in"].run(frame)
    assert verdict == XDP_DROP


@pytest.mark.parametrize("packet", PACKETS, ids=short)
def test_the_model_is_not_blind(packet: bytes) -> None:
    """The seeds do reach the translations, and the two directions undo each other."""
    seen = model.wire_to_ovs(softwire(packet), ADDRESSES)
    assert seen is not None
    assert len(seen) == len(softwire(packet)) + 18
    back = model.ovs_to_wire(from_ovs(SECOND, packet), BR_ADDRESSES)
    assert back is not None
    assert back[54:] == packet
    assert back[22:38] == SECOND.packed
