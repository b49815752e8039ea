"""Counters as arithmetic: what the totals of the switch's flows mean in RFC 8676."""

from __future__ import annotations

import pytest

from openflow_rules.encode import FlowStats
from openflow_rules.tables import CookieClass, Count, Drop, Table, cookie
from ryu_lw4o6.counters import (
    FROM_LWB4,
    NOT_TUNNELLED,
    TO_LWB4,
    Fragments,
    IcmpSent,
    Total,
    Totals,
    traffic_stat,
)


def flow(kind: CookieClass, number: int, packets: int, size: int, seconds: int = 60) -> FlowStats:
    return FlowStats(0, 0, cookie(kind, number), packets, size, b"", b"", seconds)


@pytest.mark.parametrize("drop", Drop)
def test_every_reason_belongs_to_one_direction(drop: Drop) -> None:
    assert [drop in group for group in (FROM_LWB4, TO_LWB4, NOT_TUNNELLED)].count(True) == 1


def test_traffic_stat() -> None:
    """Two packets of 100 bytes each way, one of 60 dropped each way; flows count 14 bytes of
    Ethernet, a softwire adds 40 of IPv6."""
    totals = Totals()
    for count, packets, size in (
        (Count.FROM_SOFTWIRE, 3, 302), (Count.TO_INTERNET, 2, 228),
        (Count.FROM_INTERNET, 3, 302), (Count.TO_SOFTWIRE, 2, 228),
    ):  # fmt: skip
        totals.take(flow(CookieClass.COUNT, count, packets, size))
    # Several flows have one reason.
    totals.take(flow(CookieClass.DROP, Drop.UPSTREAM_PROTOCOL, 1, 74, seconds=7200))
    totals.take(flow(CookieClass.DROP, Drop.UPSTREAM_PROTOCOL, 0, 0))
    totals.take(flow(CookieClass.DROP, Drop.INBOUND_ICMP_DISABLED, 1, 74))
    totals.take(flow(CookieClass.DROP, Drop.ARP_IGNORED, 9, 540))
    icmp = IcmpSent()
    icmp.add("icmpv6", bytes(1280))
    icmp.withheld["icmpv6"] += 5
    leaves = traffic_stat(totals, icmp, Fragments(Total(1, 60), Total(3, 1300)))
    assert str(leaves.pop("discontinuity-time")).endswith("Z")
    assert leaves == {
        "rcvd-ipv6-packets": 3, "rcvd-ipv6-bytes": 302 - 42 + 120,
        "sent-ipv4-packets": 2, "sent-ipv4-bytes": 200,
        "dropped-ipv6-packets": 1, "dropped-ipv6-bytes": 60 + 40,
        "rcvd-ipv4-packets": 3, "rcvd-ipv4-bytes": 302 - 42,
        "sent-ipv6-packets": 2, "sent-ipv6-bytes": 280,
        "dropped-ipv4-packets": 1, "dropped-ipv4-bytes": 60,
        "dropped-ipv4-fragments": 1, "dropped-ipv4-fragment-bytes": 60,
        "ipv6-fragments-reassembled": 3, "ipv6-fragments-bytes-reassembled": 1300,
        "dropped-icmpv4-packets": 1, "dropped-icmpv4-bytes": 60,
        "hairpin-ipv4-packets": 0, "hairpin-ipv4-bytes": 0,
        "out-icmpv4-error-packets": 0, "out-icmpv4-error-bytes": 0,
        "out-icmpv6-error-packets": 1, "out-icmpv6-error-bytes": 1280,
    }  # fmt: skip


def test_errors_of_the_shim_are_the_lwaftrs() -> None:
    icmp = IcmpSent()
    icmp.add("icmpv6", bytes(100))
    icmp.add("icmpv4", bytes(56))
    both = icmp.with_shim({"answered": 2, "answered_bytes": 300, "answered_lately": 4})
    assert both.packets == {"icmpv6": 3, "icmpv4": 1}
    assert both.octets == {"icmpv6": 400, "icmpv4": 56}
    assert both.withheld == {"icmpv6": 4}
    assert icmp.with_shim(None) is icmp


def test_a_cookie_of_a_later_version_is_left_alone() -> None:
    totals = Totals()
    totals.take(flow(CookieClass.DROP, 0xFFFF, 1, 100))
    assert all(total["packets"] == 0 for total in totals.json().values())


def test_what_a_filter_denies_is_dropped() -> None:
    totals = Totals()
    for table, number, instructions in (
        (Table.FILTER_FROM_SOFTWIRE, 0, b""), (Table.FILTER_TO_INTERNET, 1, b""),
        (Table.FILTER_FROM_INTERNET, 0, b""), (Table.FILTER_FROM_INTERNET, 1, b"goto"),
    ):  # fmt: skip
        own = cookie(CookieClass.FILTER, table << 16 | number)
        totals.take(FlowStats(table, 0, own, 1, 74, b"", instructions))
    assert totals.dropped_from_lwb4() == Total(2, 120)
    assert totals.dropped_to_lwb4() == Total(1, 60)
    counted = {name: total["packets"] for name, total in totals.json().items()}
    assert {name: packets for name, packets in counted.items() if packets} == {
        "filter_ipv6_in_1": 1, "filter_ipv4_out_2": 1,
        "filter_ipv4_in_1": 1, "filter_ipv4_in_2": 1,
    }  # fmt: skip
