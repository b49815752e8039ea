"""ARP and neighbour discovery on the wire: answered for own and for shared addresses."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_Redirect,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptRedirectedHdr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether

from tests.support import evidence
from tests.support.netns import Wire
from tests.support.rig import (
    CONFIG,
    IPV4,
    IPV6,
    NEXT_HOP4,
    NEXT_HOP6,
    NIC4,
    NIC6,
    ROUTER4,
    ROUTER6,
    Rig,
)
from tests.wire.scenario import AFTR, SECOND_AFTR, Scenario, run


def received(wire: Wire, wanted: Callable[[bytes], bool], timeout: float = 2) -> bytes | None:
    """The first frame that is wanted, whatever else comes in."""
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        frame = wire.receive(left)
        if frame is not None and wanted(frame):
            return frame
    return None


# The lwAFTR's own address, and shared ones with a binding and without.
@pytest.mark.parametrize("target", [IPV4, "192.0.2.1", "192.0.2.200", "203.0.113.7"])
def test_arp_is_answered(rig: Rig, target: str) -> None:
    request = Ether(src=ROUTER4, dst="ff:ff:ff:ff:ff:ff") / ARP(
        op=1, hwsrc=ROUTER4, psrc=NEXT_HOP4, pdst=target
    )
    rig.wire4.send(bytes(request))
    expected = bytes(
        Ether(src=NIC4, dst=ROUTER4)
        / ARP(op=2, hwsrc=NIC4, psrc=target, hwdst=ROUTER4, pdst=NEXT_HOP4)
    )
    answer = received(rig.wire4, lambda frame: frame[12:14] == b"\x08\x06" and frame[21] == 2)
    assert answer is not None
    assert answer[:42] == expected


def test_arp_is_answered_to_the_address_that_asks(rig: Rig) -> None:
    """Not to whoever hands its frame on: RFC 826, "send the packet to the (new) target hardware
    address"."""
    asking, bridge = "02:00:00:00:04:77", "02:00:00:00:04:78"
    request = Ether(src=bridge, dst="ff:ff:ff:ff:ff:ff") / ARP(
        op=1, hwsrc=asking, psrc="198.51.100.9", pdst=IPV4
    )
    rig.wire4.send(bytes(request))
    answer = received(rig.wire4, lambda frame: frame[12:14] == b"\x08\x06" and frame[21] == 2)
    assert answer is not None
    assert answer[:42] == bytes(
        Ether(src=NIC4, dst=asking)
        / ARP(op=2, hwsrc=NIC4, psrc=IPV4, hwdst=asking, pdst="198.51.100.9")
    )


def test_arp_for_other_addresses_is_not_answered(rig: Rig) -> None:
    before = rig.counters()
    for target in ("198.51.100.77", "10.0.0.1"):
        request = Ether(src=ROUTER4, dst="ff:ff:ff:ff:ff:ff") / ARP(
            op=1, hwsrc=ROUTER4, psrc="198.51.100.9", pdst=target
        )
        rig.wire4.send(bytes(request))
    assert received(rig.wire4, lambda f: f[12:14] == b"\x08\x06" and f[21] == 2, 0.3) is None
    assert (rig.counters() - before)["drop_arp_ignored"] == 2
    evidence.moved(["drop_arp_ignored"])


@pytest.mark.parametrize("target", [IPV6, AFTR, SECOND_AFTR])
def test_neighbour_solicitations_are_answered(rig: Rig, target: str) -> None:
    group = f"ff02::1:ff00:{target.rpartition(':')[2]}"
    solicitation = (
        Ether(src=ROUTER6, dst=f"33:33:ff:00:00:{int(target.rpartition(':')[2], 16):02x}")
        / IPv6(src=NEXT_HOP6, dst=group, hlim=255)
        / ICMPv6ND_NS(tgt=target)
        / ICMPv6NDOptSrcLLAddr(lladdr=ROUTER6)
    )
    rig.wire6.send(bytes(solicitation))

    def is_answer(frame: bytes) -> bool:
        with contextlib.suppress(Exception):
            return bool(Ether(frame)[ICMPv6ND_NA].tgt == target)
        return False

    answer = received(rig.wire6, is_answer)
    assert answer is not None
    packet = Ether(answer)
    assert (packet.src, packet.dst) == (NIC6, ROUTER6)
    assert (packet[IPv6].src, packet[IPv6].dst, packet[IPv6].hlim) == (target, NEXT_HOP6, 255)
    assert packet[ICMPv6ND_NA].S == 1
    assert packet[ICMPv6NDOptDstLLAddr].lladdr == NIC6


def test_who_is_not_on_the_link_does_not_say_where_the_next_hop_is(rig: Rig) -> None:
    """RFC 4861 section 7.1.2: the hop limit is 255, which no router has lowered. To an AFTR address
    anybody can send, and Open vSwitch asks no further."""
    for hops in (254, 64, 0):
        liar = "02:00:00:00:06:66"
        forged = (
            IPv6(src="2001:db8:77::1", dst=AFTR, hlim=hops)
            / ICMPv6ND_NA(tgt=NEXT_HOP6, R=1, S=1, O=1)
            / ICMPv6NDOptDstLLAddr(lladdr=liar)
        )
        run(rig, Scenario("", send6=[forged], counters={"drop_nd_from_afar": 1}))
        assert liar not in rig.ovs("ovs-appctl", "tnl/neigh/show")


def test_routes_are_not_for_others_on_the_link_to_change() -> None:
    """RFC 4861 section 8.2: a router does not follow redirects, here in the name of its next hop,
    nor take addresses or routes from router advertisements."""
    next_hop, host, rogue = "fe80::ff:fe00:6fe", "2001:db8:77::9", "02:00:00:00:06:66"
    rig = Rig(CONFIG.replace(NEXT_HOP6, next_hop))
    try:
        before = rig.ovs("ip", "-6", "addr"), rig.ovs("ip", "-6", "route")
        reply = IPv6(src=AFTR, dst=host) / ICMPv6EchoReply(id=7)
        redirect = (
            IPv6(src=next_hop, dst=AFTR, hlim=255)
            / ICMPv6ND_Redirect(tgt="fe80::66", dst=host)
            / ICMPv6NDOptDstLLAddr(lladdr=rogue)
            / ICMPv6NDOptRedirectedHdr(pkt=bytes(reply))
        )
        rig.wire6.send(bytes(Ether(src=ROUTER6, dst=NIC6) / redirect))
        advertisement = (
            IPv6(src="fe80::66", dst="ff02::1", hlim=255)
            / ICMPv6ND_RA(routerlifetime=1800, prf=1)
            / ICMPv6NDOptSrcLLAddr(lladdr=rogue)
            / ICMPv6NDOptPrefixInfo(prefix="2001:db8:bad::", prefixlen=64)
        )
        rig.wire6.send(bytes(Ether(src=rogue, dst="33:33:00:00:00:01") / advertisement))
        # Behind both of them, whatever the kernel has made of them is there.
        request = IPv6(src=host, dst=AFTR) / ICMPv6EchoRequest(id=7)
        rig.wire6.send(bytes(Ether(src=ROUTER6, dst=NIC6) / request))
        answer = received(rig.wire6, lambda f: f[12:14] == b"\x86\xdd" and f[54] == 129)
        assert answer is not None
        assert answer[:6] == Ether(dst=ROUTER6).build()[:6]
        assert (rig.ovs("ip", "-6", "addr"), rig.ovs("ip", "-6", "route")) == before
    finally:
        rig.stop()


def test_the_lwaftr_answers_ping6(rig: Rig) -> None:
    """The kernel does, behind the bridge's own port."""
    request = (
        Ether(src=ROUTER6, dst=NIC6)
        / IPv6(src=NEXT_HOP6, dst=AFTR, hlim=64)
        / ICMPv6EchoRequest(id=7, seq=1, data=b"hello")
    )
    rig.wire6.send(bytes(request))
    answer = received(rig.wire6, lambda f: f[12:14] == b"\x86\xdd" and f[20] == 58 and f[54] == 129)
    assert answer is not None
    assert Ether(answer)[IPv6].src == AFTR
    assert answer[62:] == b"hello"
