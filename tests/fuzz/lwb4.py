"""What a lwB4 makes of any bytes: as an ICMPv6 error, and as what its server answers."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from ryu_lw4o6.core import dhcpv4, dhcpv6
from ryu_lw4o6.core import pcp as wire
from ryu_lw4o6.core.portset import PortParams
from topo.lwb4 import dhcp, pcp
from topo.lwb4.lease import Lease
from topo.lwb4.machine import Bound, Received, Send, Start
from topo.lwb4.refusal import Flow, Guard, Verdict, quoted

LWB4, AFTR = IPv6Address("2001:db8:b4:1::1"), IPv6Address("2001:db8:ffff::1")
LEASE = Lease.of(IPv4Address("192.0.2.1"), PortParams(6, 6), 3)
REFUSED = b"\1\5" + bytes(6)
SOFTWIRE = bytes.fromhex("60000000 0028 04 40") + LWB4.packed + AFTR.packed
CONFIG = dhcp.Config(LWB4, b"\0\3\0\1abcdef", servers=(AFTR,))


def _half() -> float:
    return 0.5


MAPPING, _ = pcp.step(pcp.Client(bytes(12)), Start(), 0.0, _half)
ASKING, _ = dhcp.step(dhcp.Client(CONFIG), Start(), 0.0, _half)
MAP_RESPONSE = wire.Response(wire.Opcode.MAP, wire.Result.SUCCESS, 600, 1).encode()


def error_is_judged(data: bytes) -> None:
    """Any bytes, any bytes as a quote, or any bytes in a softwire of the lwB4's."""
    for message in (data, REFUSED + data, REFUSED + SOFTWIRE + data):
        found = quoted(message, AFTR, LWB4, AFTR, LEASE)
        if isinstance(found, Flow):
            assert found.ipv4 == LEASE.ipv4
            assert LEASE.owns(found.port)
            _, verdict = Guard().judge(found, message, lambda _: True, 0.0)
            assert verdict is Verdict.ACCEPTED


def answer_is_heard(data: bytes) -> None:
    """Any bytes as a message of a PCP or DHCP server, and as the inside of one."""
    for payload in (data, MAP_RESPONSE[:24] + data):
        client, actions = pcp.step(MAPPING, Received(payload), 1.0, _half)
        for action in actions:
            if isinstance(action, Bound):
                assert action.lease.ports
                assert client.granted is not None
        assert client.wake is not None
    head = b"\2\1\0\0" + ASKING.xid.to_bytes(4, "big")  # a reply to the lwB4's message
    inside = (
        head + bytes(8) + data[:4].ljust(4, b"\0") + bytes(216) + b"\x63\x82\x53\x63" + data[4:]
    )
    requesting = replace(ASKING, phase=dhcp.Phase.REQUESTING, offered=dhcp.Leased(LEASE.ipv4))
    for state in (ASKING, requesting):
        for payload in (data, dhcpv6.dhcpv4_response(inside).pack()):
            after, actions = dhcp.step(state, Received(payload), 1.0, _half)
            for action in actions:
                assert not isinstance(action, Bound) or after.valid
                if isinstance(action, Send):
                    sent = dhcpv6.parse(action.payload)
                    assert isinstance(sent, dhcpv6.Message)
                    assert dhcpv4.Message.parse(sent.dhcpv4 or b"").xid == after.xid
            assert after.wake is not None
