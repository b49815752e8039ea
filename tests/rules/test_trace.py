"""What a real Open vSwitch does with the rules, one packet at a time (ofproto/trace).

Ports and PSIDs are worked out by hand in samples.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest

from openflow_rules import encode
from openflow_rules.compiler import pipeline
from openflow_rules.compiler.forward import path_mtu_flow
from openflow_rules.tables import CookieClass, Count, Drop, Punt, cookie
from ryu_lw4o6.core.binding import BindingKey
from ryu_lw4o6.core.settings import Failover, IcmpPolicy, br_tag
from tests.rules.samples import ANYCAST, BINDINGS, NEXT_HOP_MAC, PORTS, SECOND_BR, instance
from tests.support.openflow import Connection
from tests.support.ovs import Ovs

NIC4_MAC = "02:00:00:00:04:01"
TO_NIC6 = "in_port=1,dl_dst=02:00:00:00:06:01"


class Bridge:
    def __init__(self, ovs: Ovs) -> None:
        self._ovs = ovs

    def program(self, **options: object) -> None:
        lwaftr = instance(**options)  # type: ignore[arg-type]
        encoder = encode.BindingEncoder(lwaftr)
        connection = Connection(self._ovs.directory / "br0.mgmt")
        try:
            self._ovs("ovs-ofctl", "-OOpenFlow13", "del-flows", "br0")
            connection.set_meters(100)
            connection.send([encode.match_fragments(1)])
            flows = pipeline(lwaftr, PORTS, NEXT_HOP_MAC)
            assert connection.send(encode.add_flow(flow) for flow in flows) == []
            assert connection.send(encoder.add(binding, 7) for binding in BINDINGS) == []
        finally:
            connection.close()

    def add(self, message: bytes) -> None:
        connection = Connection(self._ovs.directory / "br0.mgmt")
        try:
            assert connection.send([message]) == []
        finally:
            connection.close()

    def trace(self, packet: str) -> str:
        return self._ovs("ovs-appctl", "ofproto/trace", "br0", packet)


@pytest.fixture(scope="module")
def bridge(ovs: Ovs) -> Bridge:
    bridge = Bridge(ovs)
    bridge.program()
    return bridge


@pytest.fixture
def reprogram(bridge: Bridge) -> Iterator[Bridge]:
    """For tests with another configuration; the usual one is put back."""
    yield bridge
    bridge.program()


def names(trace: str) -> set[str]:
    """The counters that a packet passed, by name."""
    found = set()
    for text in re.findall(r"cookie (0x[0-9a-f]+)", trace):
        value = int(text, 16)
        kind, number = value >> 56, value & 0xFFFF
        if kind == CookieClass.DROP:
            found.add(f"drop_{Drop(number).name.lower()}")
        elif kind == CookieClass.COUNT:
            found.add(Count(number).name.lower())
    return found


def binding_of(trace: str) -> set[str]:
    """The bindings (IPv4/PSID) whose flows a packet passed."""
    values = (int(text, 16) for text in re.findall(r"cookie (0x[0-9a-f]+)", trace))
    return {
        f"{value >> 40 & 0xFF}.{value >> 32 & 0xFF}.{value >> 24 & 0xFF}.{value >> 16 & 0xFF}"
        f"/{value & 0xFFFF}"
        for value in values
        if value >> 56 == CookieClass.BINDING
    }


def megaflow(trace: str) -> str:
    return re.search(r"^Megaflow: (.*)$", trace, re.M).group(1)  # type: ignore[union-attr]


def up(protocol: str, lwb4: int, source: str, rest: str, br: object = ANYCAST) -> str:
    """A packet out of a softwire, as the shim hands it over."""
    # Hop limit 63, flow label 0x12345: where they go is softwire.bpf.c's and test_shim.py's story.
    mac = "" if "dl_src" in rest else ",dl_src=3a:31:23:45:00:00"
    return (
        f"in_port=3,{protocol},dl_dst=02:4b:00:00:00:00{mac},nw_ttl=64,"
        f"tun_ipv6_src=2001:db8:b4::{lwb4},tun_ipv6_dst={br},"
        f"nw_src={source},{rest}"
    )


def down(protocol: str, destination: str, rest: str) -> str:
    """A packet from the Internet, as the shim hands it over."""
    mac = "" if "dl_src" in rest else ",dl_src=00:00:00:00:00:00"
    return (
        f"in_port=2,{protocol},dl_dst={NIC4_MAC}{mac},nw_ttl=64,"
        f"nw_src=198.51.100.200,nw_dst={destination},{rest}"
    )


INTERNET = "nw_dst=198.51.100.200"
OUT4 = f"set(eth(dst={NEXT_HOP_MAC}))"


@pytest.mark.parametrize(
    "packet",
    [
        up("udp", 1, "192.0.2.1", f"{INTERNET},udp_src=1072,udp_dst=53"),  # first of PSID 3
        up("tcp", 1, "192.0.2.1", f"{INTERNET},tcp_src=64575,tcp_dst=80"),  # last of PSID 3
        up("icmp", 1, "192.0.2.1", f"{INTERNET},icmp_type=8,dl_src=3a:71:23:45:04:3f"),
        up("udp", 2, "192.0.2.1", f"{INTERNET},udp_src=1088,udp_dst=53"),  # first of PSID 4
        up("tcp", 3, "203.0.113.5", f"{INTERNET},tcp_src=7,tcp_dst=80"),  # full: any port
        up("icmp", 3, "203.0.113.5", f"{INTERNET},icmp_type=8,dl_src=3a:71:23:45:00:01"),
        up("ip,nw_proto=47", 3, "203.0.113.5", INTERNET),  # full: any protocol
        up("udp", 3, "203.0.113.5", f"{INTERNET},nw_frag=later"),  # full: fragments
        up("icmp", 3, "203.0.113.5", f"{INTERNET},nw_frag=later,dl_src=3a:b1:23:45:00:00"),
        up("icmp", 3, "203.0.113.5", f"{INTERNET},icmp_type=3,dl_src=3a:f1:23:45:00:00"),
        up("udp", 1, "192.0.2.1", f"{INTERNET},nw_frag=later,dl_src=3a:31:00:35:04:30"),
        up("tcp", 4, "198.18.0.7", f"{INTERNET},tcp_src=16384,tcp_dst=80", SECOND_BR),
        up("tcp", 4, "198.18.0.7", f"{INTERNET},tcp_src=32767,tcp_dst=80", SECOND_BR),
    ],
)
def test_upstream_packet_of_a_binding_goes_to_the_next_hop(bridge: Bridge, packet: str) -> None:
    trace = bridge.trace(packet)
    assert names(trace) == {"from_softwire", "to_internet"}
    assert len(binding_of(trace)) == 1
    assert f"set_field:{NEXT_HOP_MAC}->eth_dst" in trace
    assert "output:2" in trace


@pytest.mark.parametrize(
    ("packet", "drop"),
    [
        # one below and one above the first range of PSID 3, and another range's neighbour
        (up("udp", 1, "192.0.2.1", f"{INTERNET},udp_src=1071"), Drop.UPSTREAM_NO_BINDING),
        (up("udp", 1, "192.0.2.1", f"{INTERNET},udp_src=1088"), Drop.UPSTREAM_NO_BINDING),
        (up("tcp", 1, "192.0.2.1", f"{INTERNET},tcp_src=64576"), Drop.UPSTREAM_NO_BINDING),
        # somebody else's address, an unknown lwB4, the wrong br-address
        (up("udp", 1, "192.0.2.2", f"{INTERNET},udp_src=1072"), Drop.UPSTREAM_NO_BINDING),
        (up("udp", 9, "192.0.2.1", f"{INTERNET},udp_src=1072"), Drop.UPSTREAM_NO_BINDING),
        (up("udp", 1, "192.0.2.1", f"{INTERNET},udp_src=1072", SECOND_BR),
         Drop.UPSTREAM_NO_BINDING),
        (up("tcp", 4, "198.18.0.7", f"{INTERNET},tcp_src=16383", SECOND_BR),
         Drop.UPSTREAM_NO_BINDING),
        (up("tcp", 4, "198.18.0.7", f"{INTERNET},tcp_src=32768", SECOND_BR),
         Drop.UPSTREAM_NO_BINDING),
        # PSID bits 3, but the A field is zero: port 0x0030 = 48, and 0x03f0 at the edge
        (up("udp", 1, "192.0.2.1", f"{INTERNET},udp_src=48"), Drop.UPSTREAM_EXCLUDED_PORT),
        (up("tcp", 1, "192.0.2.1", f"{INTERNET},tcp_src=1023"), Drop.UPSTREAM_EXCLUDED_PORT),
        (up("icmp", 1, "192.0.2.1", f"{INTERNET},icmp_type=8,dl_src=3a:71:23:45:00:30"),
         Drop.UPSTREAM_EXCLUDED_PORT),
        (up("udp", 1, "10.0.0.1", f"{INTERNET},udp_src=1072"), Drop.UPSTREAM_NOT_SERVED),
        (up("ip,nw_proto=47", 1, "192.0.2.1", INTERNET), Drop.UPSTREAM_PROTOCOL),
        (up("ip,nw_proto=47", 1, "192.0.2.1", f"{INTERNET},nw_frag=later,dl_src=3a:f1:23:45:00:00"),
         Drop.UPSTREAM_PROTOCOL),
        (up("udp", 1, "192.0.2.1", f"{INTERNET},nw_frag=later,dl_src=3a:31:00:35:04:40"),
         Drop.UPSTREAM_NO_BINDING),
        (up("tcp", 1, "192.0.2.1", f"{INTERNET},nw_frag=later,dl_src=3a:31:00:35:00:30"),
         Drop.UPSTREAM_EXCLUDED_PORT),
        (up("icmp", 1, "192.0.2.1", f"{INTERNET},icmp_type=5,dl_src=3a:b1:23:45:00:00"),
         Drop.UPSTREAM_ICMP),
        (up("icmp", 3, "203.0.113.5", f"{INTERNET},icmp_type=5,dl_src=3a:b1:23:45:00:00"),
         Drop.UPSTREAM_ICMP),
        (up("udp", 1, "192.0.2.1", f"{INTERNET},udp_src=1072").replace("nw_ttl=64", "nw_ttl=1"),
         Drop.UPSTREAM_TTL_EXPIRED),
        ("in_port=3,arp,dl_src=3a:31:23:45:00:00", Drop.SOFTWIRE_NOT_IPV4),
    ],
)  # fmt: skip
def test_upstream_packet_that_breaks_a_rule_is_dropped_by_name(
    bridge: Bridge, packet: str, drop: Drop
) -> None:
    trace = bridge.trace(packet)
    assert f"drop_{drop.name.lower()}" in names(trace)
    assert "to_internet" not in names(trace)
    assert "output:2" not in trace


@pytest.mark.parametrize(
    ("packet", "lwb4", "br"),
    [
        (down("udp", "192.0.2.1", "udp_dst=1072"), 1, ANYCAST),
        (down("tcp", "192.0.2.1", "tcp_dst=64575"), 1, ANYCAST),
        (down("tcp", "192.0.2.1", "tcp_dst=1088"), 2, ANYCAST),
        (down("icmp", "192.0.2.1", "icmp_type=0,dl_src=00:40:00:00:04:30"), 1, ANYCAST),
        # an ICMP error that quotes a packet from the subscriber's port 0x0430 to port 80
        (down("icmp", "192.0.2.1", "icmp_type=3,dl_src=00:00:04:30:00:50"), 1, ANYCAST),
        (down("ip,nw_proto=47", "203.0.113.5", ""), 3, ANYCAST),
        (down("udp", "203.0.113.5", "nw_frag=later"), 3, ANYCAST),
        (down("tcp", "198.18.0.7", "tcp_dst=20000"), 4, SECOND_BR),
        (down("udp", "192.0.2.1", "nw_frag=first,udp_dst=1088"), 2, ANYCAST),
        # a later fragment, the first of which went from port 53 to port 0x0440
        (down("udp", "192.0.2.1", "nw_frag=later,dl_src=00:00:04:40:00:35"), 2, ANYCAST),
    ],
)
def test_downstream_packet_goes_to_the_lwb4_that_owns_the_port(
    bridge: Bridge, packet: str, lwb4: int, br: object
) -> None:
    trace = bridge.trace(packet)
    assert names(trace) == {"from_internet", "to_softwire"}
    assert f"set_field:2001:db8:b4::{lwb4}->tun_ipv6_dst" in trace
    assert f"set_field:{br}->tun_ipv6_src" in trace
    tag = br_tag(br).to_bytes(4, "big").hex(":")  # type: ignore[arg-type]
    assert f"set_field:02:4b:{tag}->eth_dst" in trace
    assert "dec_ttl" in trace


@pytest.mark.parametrize(
    ("packet", "drop"),
    [
        (down("udp", "192.0.2.1", "udp_dst=1071"), Drop.DOWNSTREAM_NO_BINDING),
        (down("udp", "192.0.2.9", "udp_dst=1072"), Drop.DOWNSTREAM_NO_BINDING),
        (down("udp", "203.0.113.6", "udp_dst=1072"), Drop.DOWNSTREAM_NO_BINDING),
        (down("tcp", "192.0.2.1", "tcp_dst=48"), Drop.DOWNSTREAM_EXCLUDED_PORT),
        (down("icmp", "192.0.2.1", "icmp_type=8,dl_src=00:40:00:00:00:30"),
         Drop.DOWNSTREAM_EXCLUDED_PORT),
        (down("ip,nw_proto=50", "192.0.2.1", ""), Drop.DOWNSTREAM_PROTOCOL),
        (down("ip,nw_proto=47", "192.0.2.1", "nw_frag=later,dl_src=00:c0:00:00:00:00"),
         Drop.DOWNSTREAM_PROTOCOL),
        (down("udp", "192.0.2.1", "nw_frag=later,dl_src=00:00:04:50:00:35"),
         Drop.DOWNSTREAM_NO_BINDING),
        (down("udp", "192.0.2.1", "nw_frag=later,dl_src=00:00:00:30:00:35"),
         Drop.DOWNSTREAM_EXCLUDED_PORT),
        (down("icmp", "192.0.2.1", "icmp_type=5,dl_src=00:80:00:00:00:00"), Drop.DOWNSTREAM_ICMP),
        (down("icmp", "192.0.2.1", "icmp_type=5,dl_src=04:80:00:00:00:00"), Drop.DOWNSTREAM_ICMP),
        (down("udp", "192.0.2.1", "udp_dst=1072,dl_src=04:00:00:00:00:00"),
         Drop.DOWNSTREAM_TOO_BIG),
        (down("icmp", "192.0.2.1", "icmp_type=8,dl_src=04:40:00:00:04:30"),
         Drop.DOWNSTREAM_TOO_BIG),
        (up("udp", 1, "192.0.2.1",
            "nw_dst=203.0.113.5,udp_src=1072,udp_dst=9,dl_src=3e:31:23:45:00:00"),
         Drop.DOWNSTREAM_TOO_BIG),
        (down("udp", "198.51.100.1", "udp_dst=53"), Drop.TO_LWAFTR),
        (down("udp", "8.8.8.8", "udp_dst=53"), Drop.DOWNSTREAM_NOT_SERVED),
        (down("udp", "192.0.2.1", "udp_dst=1072").replace("nw_ttl=64", "nw_ttl=1"),
         Drop.DOWNSTREAM_TTL_EXPIRED),
        ("in_port=2,dl_type=0x88cc", Drop.UNCLASSIFIED),
        (down("udp", "192.0.2.1", "udp_dst=1072,dl_vlan=7"), Drop.TAGGED),
        ("in_port=1,ip", Drop.UNCLASSIFIED),
        (f"{TO_NIC6},ipv6,ipv6_dst=2001:db8:9::9", Drop.NOT_FOR_US),
        (f"in_port=1,dl_dst=02:00:00:00:06:99,ipv6,ipv6_dst={ANYCAST}", Drop.NOT_FOR_US),
        (f"{TO_NIC6},icmp6,ipv6_dst={ANYCAST},nw_ttl=254,icmpv6_type=136,nd_target=2001:db8:1::9",
         Drop.ND_FROM_AFAR),
        (down("udp", "192.0.2.1", "udp_dst=1072").replace(NIC4_MAC, "ff:ff:ff:ff:ff:ff"),
         Drop.NOT_FOR_US),
        (down("icmp", "192.0.2.1", "icmp_type=3,dl_src=00:c0:00:00:00:00"), Drop.DOWNSTREAM_ICMP),
    ],
)  # fmt: skip
def test_downstream_packet_that_breaks_a_rule_is_dropped_by_name(
    bridge: Bridge, packet: str, drop: Drop
) -> None:
    trace = bridge.trace(packet)
    assert f"drop_{drop.name.lower()}" in names(trace)
    assert "to_softwire" not in names(trace)


@pytest.mark.parametrize(
    ("packet", "drop"),
    [
        (up("udp", 1, "192.0.2.1", f"{INTERNET},udp_src=1072"), Drop.UPSTREAM_TTL_EXPIRED),
        (down("udp", "192.0.2.1", "udp_dst=1072"), Drop.DOWNSTREAM_TTL_EXPIRED),
    ],
)
def test_an_expired_ttl_is_shown_as_the_policy_wants_it(
    reprogram: Bridge, packet: str, drop: Drop
) -> None:
    packet = packet.replace("nw_ttl=64", "nw_ttl=1")
    assert f"meter:{Punt.TTL_EXPIRED}" in (trace := reprogram.trace(packet))
    assert "CONTROLLER:576" in trace
    reprogram.program(icmp=IcmpPolicy(ttl_expired=False))
    trace = reprogram.trace(packet)
    assert f"drop_{drop.name.lower()}" in names(trace)
    assert "CONTROLLER" not in trace


def test_an_error_of_our_own_finds_its_way_into_the_softwire(bridge: Bridge) -> None:
    """It quotes a packet from port 1088 = 0x440, which is lwB4 2's."""
    trace = bridge.trace(
        "in_port=CONTROLLER,icmp,nw_src=198.51.100.1,nw_dst=192.0.2.1,nw_ttl=65,icmp_type=11,"
        "dl_src=00:00:04:40:00:35"
    )
    assert names(trace) == {"from_lwaftr", "to_softwire"}
    assert binding_of(trace) == {"192.0.2.1/4"}


@pytest.mark.parametrize(
    ("packet", "count"),
    [
        (up("udp", 1, "192.0.2.1", f"{INTERNET},nw_frag=later,dl_src=3a:b1:23:45:00:00"),
         Count.HELD_FROM_SOFTWIRE),
        (down("tcp", "192.0.2.1", "nw_frag=later,dl_src=00:80:00:00:00:00"),
         Count.HELD_FROM_INTERNET),
    ],
)  # fmt: skip
def test_a_fragment_whose_port_is_not_known_waits(
    bridge: Bridge, packet: str, count: Count
) -> None:
    trace = bridge.trace(packet)
    assert count.name.lower() in names(trace)
    assert f"meter:{Punt.FRAGMENT}" in trace
    assert "CONTROLLER:65535" in trace
    assert binding_of(trace) == set()


@pytest.mark.parametrize(
    "packet",
    [
        up("udp", 1, "192.0.2.1",
           f"{INTERNET},nw_frag=first,udp_src=1072,dl_src=3a:b1:23:45:00:00"),
        up("icmp", 1, "192.0.2.1",
           f"{INTERNET},nw_frag=first,icmp_type=8,dl_src=3a:f1:23:45:04:30"),
        down("udp", "192.0.2.1", "nw_frag=first,udp_dst=1072,dl_src=00:80:00:00:00:00"),
        down("icmp", "192.0.2.1", "nw_frag=first,icmp_type=0,dl_src=00:c0:00:00:04:30"),
    ],
)  # fmt: skip
def test_the_fragment_that_others_wait_for_goes_on_and_is_shown(
    bridge: Bridge, packet: str
) -> None:
    trace = bridge.trace(packet)
    assert "sample(sample=100.0%,actions(meter(" in trace  # the copy, and not the packet
    assert "max_len=65535" in trace
    assert names(trace) & {"to_internet", "to_softwire"}


def test_fragments_of_a_range_of_ports_share_a_datapath_flow(bridge: Bridge) -> None:
    """Whatever the port on the other side."""
    first, second = (
        megaflow(bridge.trace(down("udp", "192.0.2.1", f"nw_frag=later,dl_src=00:00:{ports}")))
        for ports in ("84:30:00:35", "84:3f:12:34")
    )
    assert first == second


@pytest.mark.parametrize(
    "protocol", ["nw_proto=4", "nw_proto=44,nw_frag=later", "nw_proto=4,nw_frag=first"]
)
def test_a_softwire_packet_in_pieces_is_for_the_controller(bridge: Bridge, protocol: str) -> None:
    trace = bridge.trace(f"{TO_NIC6},ipv6,{protocol},ipv6_src=2001:db8:b4::1,ipv6_dst={ANYCAST}")
    assert names(trace) == {"slow_softwire"}
    assert f"meter:{Punt.SLOW_SOFTWIRE}" in trace


def test_hairpin_is_checked_at_both_ends(bridge: Bridge) -> None:
    trace = bridge.trace(up("udp", 1, "192.0.2.1", "nw_dst=192.0.2.1,udp_src=1072,udp_dst=1088"))
    assert names(trace) == {"from_softwire", "hairpinned", "to_softwire"}
    assert binding_of(trace) == {"192.0.2.1/3", "192.0.2.1/4"}
    assert "set_field:2001:db8:b4::2->tun_ipv6_dst" in trace
    assert trace.count("dec_ttl") == 1  # one router, one hop
    # the wrong source does not get through to the other end
    trace = bridge.trace(up("udp", 1, "192.0.2.1", "nw_dst=192.0.2.1,udp_src=1088,udp_dst=1072"))
    assert "hairpinned" not in names(trace)


def test_hairpin_of_an_echo_uses_its_one_identifier(bridge: Bridge) -> None:
    """An echo of lwB4 1 (identifier 0x430) has that identifier at the other end as well, which is
    not lwB4 2's; its reply to lwB4 1's would be."""
    own = up("icmp", 1, "192.0.2.1", "nw_dst=192.0.2.1,icmp_type=8,dl_src=3a:71:23:45:04:30")
    assert binding_of(bridge.trace(own)) == {"192.0.2.1/3"}
    full = up("icmp", 1, "192.0.2.1", "nw_dst=203.0.113.5,icmp_type=8,dl_src=3a:71:23:45:04:30")
    trace = bridge.trace(full)
    assert binding_of(trace) == {"192.0.2.1/3", "203.0.113.5/0"}
    assert "to_softwire" in names(trace)


def test_datapath_flows_do_not_tell_flow_labels_apart(bridge: Bridge) -> None:
    """Nor hop limits: an lwB4 could otherwise fill the datapath's flow table."""
    for packet in (
        up("udp", 1, "192.0.2.1", f"{INTERNET},udp_src=1072,dl_src={{}}:23:45:00:00"),
        up("tcp", 1, "192.0.2.1", f"{INTERNET},tcp_src=1072,dl_src={{}}:23:45:00:00"),
    ):
        first = megaflow(bridge.trace(packet.format("3a:31")))
        second = megaflow(bridge.trace(packet.format("fa:3f").replace(":23:45", ":fe:dc")))
        assert first == second
    echo = up("icmp", 1, "192.0.2.1", f"{INTERNET},icmp_type=8,dl_src={{}}:04:30")
    first = megaflow(bridge.trace(echo.format("3a:71:23:45")))
    assert first == megaflow(bridge.trace(echo.format("fa:7f:fe:dc")))


def test_hairpin_of_an_icmp_error_uses_the_port_of_each_side(bridge: Bridge) -> None:
    """lwB4 1 complains about a packet from lwB4 2 (port 1088 = 0x440) to its port 1072 (0x430):
    its own side is the quoted destination, the other side the quoted source."""
    trace = bridge.trace(
        up("icmp", 1, "192.0.2.1", "nw_dst=192.0.2.1,icmp_type=3,dl_src=3a:31:04:40:04:30")
    )
    assert binding_of(trace) == {"192.0.2.1/3", "192.0.2.1/4"}
    assert "to_softwire" in names(trace)


def test_policies(reprogram: Bridge) -> None:
    policy = IcmpPolicy(inbound=False)
    reprogram.program(hairpinning=False, icmp=policy, failover=Failover.NONE)
    hairpin = up("udp", 1, "192.0.2.1", "nw_dst=192.0.2.1,udp_src=1072,udp_dst=1088")
    assert "drop_hairpin_disabled" in names(reprogram.trace(hairpin))
    echo = down("icmp", "192.0.2.1", "icmp_type=0,dl_src=00:40:00:00:04:30")
    assert "to_softwire" in names(reprogram.trace(echo.replace("in_port=2", "in_port=CONTROLLER")))
    assert "drop_inbound_icmp_disabled" in names(reprogram.trace(echo))
    unknown = reprogram.trace(up("udp", 9, "192.0.2.1", f"{INTERNET},udp_src=1072"))
    assert "drop_upstream_no_binding" in names(unknown)
    assert "CONTROLLER" not in unknown


UNKNOWN = up("udp", 9, "192.0.2.1", f"{INTERNET},udp_src=1072")


@pytest.mark.parametrize("failover", [Failover.ICMPV6, Failover.DATA_PACKET_ICMPV6])
def test_an_lwb4_with_an_address_of_another_lwaftr_is_told(
    reprogram: Bridge, failover: Failover
) -> None:
    """Lightweight AFTRs may own different prefixes: the one that takes over must speak up."""
    reprogram.program(failover=failover)
    trace = reprogram.trace(up("udp", 1, "192.0.9.1", f"{INTERNET},udp_src=1072"))
    assert "CONTROLLER:65535" in trace


def says(answers: str, packet: str = UNKNOWN, about: str = "01:b8") -> str:
    """A packet whose shim says whether it answers; then encapsulation limit and traffic class."""
    return packet.replace("dl_dst=02:4b:00:00:00:00", f"dl_dst=02:4b:00:{answers}:{about}")


@pytest.mark.parametrize(("br_address", "number"), [(ANYCAST, 9), (SECOND_BR, 8)])
def test_what_the_shim_answers_goes_back_to_it(
    reprogram: Bridge, br_address: IPv6Address, number: int
) -> None:
    """To the lwB4, with the br-address's CRC-32 in bits 9 to 40 of eth_dst, and 0b0000011 above."""
    reprogram.program(failover=Failover.ICMPV6)
    for source in ("192.0.2.1", "192.0.9.1"):
        packet = up("udp", number, source, f"{INTERNET},udp_src=1072", br=br_address)
        trace = reprogram.trace(says("01", packet))
        assert "answered_lwb4" in names(trace)
        assert "CONTROLLER" not in trace
        assert "IN_PORT" in trace
        final = re.search(r"^Final flow: (.*)$", trace, re.M)
        assert final is not None
        dl_dst = 0b0000011 << 41 | br_tag(br_address) << 9 | 0x1B8
        for field in (
            f"tun_ipv6_dst=2001:db8:b4::{number}", f"tun_ipv6_src={br_address}",
            f"dl_dst={dl_dst.to_bytes(6, 'big').hex(':')}", "dl_src=3a:31:23:45:00:00", "nw_ttl=64",
        ):  # fmt: skip
            assert f",{field}," in final[1], field


def test_what_the_shim_does_not_answer_now_is_dropped(reprogram: Bridge) -> None:
    reprogram.program(failover=Failover.ICMPV6)
    trace = reprogram.trace(says("03"))
    assert names(trace) == {"from_softwire", "drop_upstream_no_binding", "quiet_lwb4"}
    assert "Datapath actions: drop" in trace


@pytest.mark.parametrize(
    ("failover", "answers"),
    [(Failover.ICMPV6, "00"), (Failover.DATA_PACKET, "01"), (Failover.DATA_PACKET_ICMPV6, "01"),
     (Failover.DATA_PACKET_ICMPV6, "03")],
)  # fmt: skip
def test_with_an_older_shim_or_if_it_is_asked_about_the_controller_answers(
    reprogram: Bridge, failover: Failover, answers: str
) -> None:
    reprogram.program(failover=failover)
    trace = reprogram.trace(says(answers))
    assert "CONTROLLER:65535" in trace
    assert not names(trace) & {"answered_lwb4", "quiet_lwb4"}


def test_whether_the_shim_answers_is_nothing_to_known_lwb4s(reprogram: Bridge) -> None:
    reprogram.program(failover=Failover.ICMPV6)
    known = up("udp", 1, "192.0.2.1", f"{INTERNET},udp_src=1072")
    for answers in ("00", "01", "03"):
        assert "to_internet" in names(reprogram.trace(says(answers, known)))


def test_without_icmp_an_address_of_another_lwaftr_is_dropped(reprogram: Bridge) -> None:
    reprogram.program(failover=Failover.DATA_PACKET)
    trace = reprogram.trace(up("udp", 1, "192.0.9.1", f"{INTERNET},udp_src=1072"))
    assert "drop_upstream_not_served" in names(trace)
    assert "CONTROLLER" not in trace


@pytest.mark.parametrize("failover", [Failover.DATA_PACKET, Failover.DATA_PACKET_ICMPV6])
def test_what_is_asked_about_is_no_drop(reprogram: Bridge, failover: Failover) -> None:
    reprogram.program(failover=failover)
    trace = reprogram.trace(UNKNOWN)
    assert names(trace) == {"from_softwire", "unknown_lwb4"}
    assert "CONTROLLER:65535" in trace
    trace = reprogram.trace(down("udp", "192.0.2.1", "udp_dst=1104"))  # PSID 5
    assert names(trace) == {"from_internet", "unknown_ipv4"}
    assert "CONTROLLER:65535" in trace


def test_a_refusal_concerns_one_lwb4_and_one_port_set(reprogram: Bridge) -> None:
    reprogram.program(failover=Failover.DATA_PACKET)
    lwb4 = IPv6Address("2001:db8:b4::9")
    reprogram.add(encode.quiet(BindingKey(IPv4Address("192.0.2.1"), 3), lwb4, 60))
    trace = reprogram.trace(UNKNOWN)
    assert names(trace) == {"from_softwire", "unknown_lwb4", "drop_upstream_no_binding"}
    assert "CONTROLLER" not in trace
    for packet in (
        up("udp", 9, "192.0.2.1", f"{INTERNET},udp_src=1088"),  # PSID 4
        up("udp", 9, "192.0.2.2", f"{INTERNET},udp_src=1072"),
        up("udp", 8, "192.0.2.1", f"{INTERNET},udp_src=1072"),
    ):
        assert "CONTROLLER" in reprogram.trace(packet)


def test_an_lwb4_that_goes_on_sending_is_kept_quiet(reprogram: Bridge) -> None:
    reprogram.program(failover=Failover.ICMPV6)
    assert "CONTROLLER:65535" in reprogram.trace(UNKNOWN)
    reprogram.add(encode.quiet_lwb4(IPv6Address("2001:db8:b4::9").packed, 60))
    for packet in (UNKNOWN, up("udp", 9, "192.0.2.2", f"{INTERNET},udp_src=1088")):
        trace = reprogram.trace(packet)
        assert names(trace) == {"from_softwire", "drop_upstream_no_binding"}
        assert "CONTROLLER" not in trace
    other = up("udp", 8, "192.0.2.1", f"{INTERNET},udp_src=1072")
    assert "CONTROLLER" in reprogram.trace(other)
    known = up("udp", 1, "192.0.2.1", f"{INTERNET},udp_src=1072")
    reprogram.add(encode.quiet_lwb4(IPv6Address("2001:db8:b4::1").packed, 60))
    assert "to_internet" in names(reprogram.trace(known))


def test_a_refusal_of_a_destination_concerns_one_port_set(reprogram: Bridge) -> None:
    reprogram.program(failover=Failover.DATA_PACKET)
    reprogram.add(encode.quiet(BindingKey(IPv4Address("192.0.2.1"), 5), None, 60))
    trace = reprogram.trace(down("udp", "192.0.2.1", "udp_dst=1104"))
    assert "drop_downstream_no_binding" in names(trace)
    assert "CONTROLLER" not in trace
    assert "CONTROLLER" in reprogram.trace(down("udp", "192.0.2.1", "udp_dst=1120"))


def test_one_datapath_flow_serves_a_whole_port_set(bridge: Bridge) -> None:
    """Two ports of one set are covered by one megaflow: only PSID bits, and what it takes to
    tell an excluded port, are looked at."""
    first = megaflow(bridge.trace(down("udp", "192.0.2.1", "udp_dst=0x8430")))
    second = megaflow(bridge.trace(down("udp", "192.0.2.1", "udp_dst=0xbc3f")))
    assert first == second
    assert "tp_dst=0x8030/0x83f0" in first


def test_a_smaller_path_mtu_is_one_lwb4s(reprogram: Bridge) -> None:
    packets = [down("udp", "192.0.2.1", f"udp_dst={port}") for port in (1072, 1088)]
    before = [megaflow(reprogram.trace(packet)) for packet in packets]
    reprogram.add(encode.add_flow(path_mtu_flow(IPv6Address("2001:db8:b4::1"), 1400, 600)))
    trace = reprogram.trace(packets[0])
    assert "check_pkt_larger(1374)" in trace  # 1360 bytes of IPv4 and an Ethernet header
    assert f"meter:{Punt.PATH_MTU}" in trace
    assert "check_pkt_larger" not in reprogram.trace(packets[1])
    # The tables for it add nothing to anybody's datapath flow.
    assert [megaflow(reprogram.trace(packet)) for packet in packets] == before


@pytest.mark.parametrize("kind", [1, 2, 3, 4])
def test_errors_about_softwires_are_shown(bridge: Bridge, kind: int) -> None:
    trace = bridge.trace(f"{TO_NIC6},icmp6,ipv6_dst={ANYCAST},icmpv6_type={kind}")
    assert names(trace) == {"tunnel_icmp"}
    assert f"meter:{Punt.TUNNEL_ICMP}" in trace
    own = bridge.trace(f"{TO_NIC6},icmp6,ipv6_dst=2001:db8:1::1,icmpv6_type={kind}")
    assert "CONTROLLER" not in own
    assert "LOCAL" in own


ECHO = "icmp_type=8,dl_src=00:40:00:00:00:09"


def test_an_echo_to_the_lwaftr_is_answered_by_the_switch(bridge: Bridge) -> None:
    trace = bridge.trace(down("icmp", "198.51.100.1", ECHO))
    assert names(trace) == {"from_internet", "echo_answered", "to_internet"}
    assert f"meter:{Punt.ECHO}" in trace
    final = re.search(r"^Final flow: (.*)$", trace, re.M).group(1)  # type: ignore[union-attr]
    assert "nw_src=198.51.100.1,nw_dst=198.51.100.200" in final
    assert "nw_ttl=64" in final
    assert "icmp_type=0" in final
    trace = bridge.trace(down("icmp", "198.51.100.1", "icmp_type=0,dl_src=00:40:00:00:00:09"))
    assert names(trace) == {"from_internet", "drop_to_lwaftr"}
    assert "CONTROLLER" not in trace


@pytest.mark.parametrize("part", ["first", "later"])
def test_fragments_to_the_lwaftr_are_the_controllers(bridge: Bridge, part: str) -> None:
    trace = bridge.trace(down("icmp", "198.51.100.1", f"nw_frag={part}"))
    assert names(trace) == {"from_internet", "fragments_to_lwaftr"}
    assert f"meter:{Punt.FRAGMENT_TO_LWAFTR}" in trace


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_what_nobody_takes_is_shown(reprogram: Bridge, protocol: str) -> None:
    packet = down(protocol, "198.51.100.1", f"{protocol}_dst=33434")
    trace = reprogram.trace(packet)
    assert names(trace) == {"from_internet", "drop_to_lwaftr"}
    assert f"meter:{Punt.TO_LWAFTR}" in trace
    reprogram.program(icmp=IcmpPolicy(to_lwaftr=False))
    trace = reprogram.trace(packet)
    assert names(trace) == {"from_internet", "drop_to_lwaftr"}
    assert "CONTROLLER" not in trace


def test_arp_for_our_addresses_is_answered_by_the_switch(bridge: Bridge) -> None:
    for target in ("198.51.100.1", "192.0.2.77", "203.0.113.5"):
        trace = bridge.trace(
            "in_port=2,arp,dl_src=02:00:00:00:00:77,arp_op=1,arp_spa=198.51.100.200,"
            f"arp_sha=02:00:00:00:00:77,arp_tpa={target}"
        )
        assert "IN_PORT" in trace
        final = re.search(r"^Final flow: (.*)$", trace, re.M).group(1)  # type: ignore[union-attr]
        assert f"arp_spa={target},arp_tpa=198.51.100.200,arp_op=2" in final
        assert f"arp_sha={NIC4_MAC},arp_tha=02:00:00:00:00:77" in final
        assert f"dl_src={NIC4_MAC},dl_dst=02:00:00:00:00:77" in final
    trace = bridge.trace("in_port=2,arp,arp_op=1,arp_spa=198.51.100.200,arp_tpa=198.51.100.9")
    assert names(trace) == {"drop_arp_ignored"}


def test_arp_of_the_next_hop_is_shown_to_the_controller(bridge: Bridge) -> None:
    trace = bridge.trace("in_port=2,arp,arp_op=2,arp_spa=198.51.100.254,arp_tpa=198.51.100.1")
    assert f"cookie {cookie(CookieClass.PUNT, Punt.ARP):#x}" in trace
    assert "CONTROLLER" in trace


@pytest.mark.parametrize(
    "address",
    ["2001:db8:1::1", "2001:db8:ffff::1", "2001:db8:ffff::2", "ff02::1:ff00:1", "fe80::1"],
)
def test_ipv6_for_the_lwaftr_goes_to_local(bridge: Bridge, address: str) -> None:
    trace = bridge.trace(f"{TO_NIC6},icmp6,ipv6_src=2001:db8:1::fe,ipv6_dst={address}")
    assert "LOCAL" in trace.split("bridge(")[1]
    assert names(trace) == set()
