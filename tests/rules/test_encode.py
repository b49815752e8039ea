from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openflow_rules import encode
from openflow_rules.compiler import pipeline
from openflow_rules.compiler.bindings import binding_flows
from openflow_rules.tables import CookieClass, Table, cookie
from ryu_lw4o6.core.binding import Binding, BindingKey
from ryu_lw4o6.core.settings import Failover, IcmpPolicy
from tests.rules.samples import (
    ANYCAST,
    BINDINGS,
    NEXT_HOP_MAC,
    PORTS,
    PREFIXES,
    SECOND_BR,
    instance,
    with_filters,
)
from tests.support.openflow import Connection
from tests.support.ovs import Ovs

INSTANCE = instance()
ENCODER = encode.BindingEncoder(INSTANCE)


@st.composite
def bindings(draw: st.DrawFn) -> Binding:
    prefix = draw(st.sampled_from(PREFIXES))
    host = draw(st.integers(0, prefix.network.num_addresses - 1))
    return Binding(
        lwb4=IPv6Address(draw(st.integers(1, 2**128 - 1))),
        ipv4=IPv4Address(int(prefix.network.network_address) + host),
        psid=draw(st.integers(0, prefix.params.psid_count - 1)),
        params=prefix.params,
        br_address=draw(st.sampled_from([None, ANYCAST, SECOND_BR])),
    )


@given(bindings(), st.integers(0, 2**32 - 1))
def test_template_says_what_the_flows_say(binding: Binding, xid: int) -> None:
    flows = binding_flows(INSTANCE, binding)
    messages = [encode.add_flow(flow, xid) for flow in flows]
    assert ENCODER.add(binding, xid) == b"".join(messages)
    assert ENCODER.add_bundled(binding, xid) == b"".join(encode.in_bundle(m) for m in messages)
    for flow in flows:
        assert ENCODER.canonical(binding, flow.table) == encode.canonical_flow(flow)


def test_a_binding_flow_to_the_byte() -> None:
    """The upstream flow of 192.0.2.1 PSID 3, from the tables of OpenFlow 1.3.5 (7.2.3, 7.3.4.1)
    and Open vSwitch's list of fields."""
    expected = bytes.fromhex(
        "04 0e 0080 11223344"  # version 1.3, OFPT_FLOW_MOD, 128 bytes, transaction id
        "0200c00002010003 0000000000000000"  # cookie: class 2, 192.0.2.1, PSID 3; no mask
        "14 00 0000 0000 0064"  # table 20, ADD, no timeouts, priority 100
        "ffffffff ffffffff ffffffff 0000 0000"  # no buffer, any port and group, no flags
        "0001 0042"  # OXM match of 66 bytes, padding apart
        "80000a02 0800"  # eth_type = IPv4
        "80001604 c0000201"  # ipv4_src
        "0001da10 20010db800b400000000000000000001"  # NXM_NX_TUN_IPV6_SRC (109)
        "0001dc10 20010db8ffff00000000000000000001"  # NXM_NX_TUN_IPV6_DST (110)
        "00010004 00000003"  # NXM_NX_REG0 (0): the PSID
        "000000000000"  # padding to 8
        "0001 0008 1e 000000"  # goto table 30
    )
    assert ENCODER.add(BINDINGS[0], 0x11223344)[: len(expected)] == expected


@pytest.mark.parametrize(
    "policy",
    [
        IcmpPolicy(),
        IcmpPolicy(unknown_ipv4=True, too_big=False, inbound=False),
    ],
    ids=["default", "inverted"],
)
@pytest.mark.parametrize("hairpinning", [True, False])
@pytest.mark.parametrize("failover", list(Failover))
def test_the_switch_reads_every_flow_back_as_it_was_written(
    ovs: Ovs, policy: IcmpPolicy, hairpinning: bool, failover: Failover
) -> None:
    """A controller that restarts recognises its own flows, and so leaves them alone."""
    lwaftr = with_filters(instance(icmp=policy, hairpinning=hairpinning, failover=failover))
    encoder = encode.BindingEncoder(lwaftr)
    flows = pipeline(lwaftr, PORTS, NEXT_HOP_MAC)
    connection = Connection(ovs.directory / "br0.mgmt")
    try:
        ovs("ovs-ofctl", "-OOpenFlow13", "del-flows", "br0")
        connection.set_meters(100)
        assert connection.send(encode.add_flow(flow) for flow in flows) == []
        assert connection.send(encoder.add(binding, 7) for binding in BINDINGS) == []
        found = {flow.canonical() for flow in connection.flows()}
    finally:
        connection.close()
    expected = {encode.canonical_flow(flow) for flow in flows}
    for binding in BINDINGS:
        for flow in binding_flows(lwaftr, binding):
            expected.add(encode.canonical_flow(flow))
    assert found == expected


def test_delete_by_cookie_takes_both_flows_of_a_binding(ovs: Ovs) -> None:
    connection = Connection(ovs.directory / "br0.mgmt")
    key = BindingKey(IPv4Address("192.0.2.1"), 3)
    binding_cookie = cookie(CookieClass.BINDING, int(key.ipv4) << 16 | key.psid)
    try:
        ovs("ovs-ofctl", "-OOpenFlow13", "del-flows", "br0")
        bundle = [encode.bundle_control(encode.BUNDLE_OPEN, 1)]
        bundle += [ENCODER.add_bundled(b, 10 + i) for i, b in enumerate(BINDINGS)]
        bundle += [ENCODER.delete_bundled(binding_cookie, 20)]
        bundle += [encode.bundle_control(encode.BUNDLE_COMMIT, 2)]
        assert connection.send(bundle) == []
        left = [flow.cookie for flow in connection.flows()]
        assert len(left) == 2 * (len(BINDINGS) - 1)
        assert binding_cookie not in left
    finally:
        connection.close()


def test_next_hop_is_found_in_the_flow_that_uses_it() -> None:
    lwaftr = instance()
    flow = next(
        f for f in pipeline(lwaftr, PORTS, NEXT_HOP_MAC)
        if f.table == Table.INTERNET_OUTPUT and f.priority == 0
    )  # fmt: skip
    message = encode.add_flow(flow)
    match_end = 48 + 4 + 6 + 6  # header and fixed part, match header, eth_type, padding
    stats = encode.FlowStats(
        flow.table, 0, int.from_bytes(message[8:16], "big"), 0, 0,
        message[48:match_end], message[match_end:],
    )  # fmt: skip
    assert encode.next_hop_mac(stats, lwaftr, PORTS) == NEXT_HOP_MAC
    other = encode.FlowStats(30, 0, stats.cookie, 0, 0, stats.match, stats.instructions[:-8])
    assert encode.next_hop_mac(other, lwaftr, PORTS) is None


@given(st.binary(max_size=200))
def test_a_broken_dump_is_refused_or_read_never_worse(body: bytes) -> None:
    try:
        for entry in encode.flow_stats_entries(bytes(16) + body):
            entry.canonical()
    except ValueError:
        pass
