"""Packets on their way to the controller and back: what a packet-in says, packet-outs."""

from __future__ import annotations

import functools
import struct
from ipaddress import IPv6Address
from typing import Any, NamedTuple

from ryu.ofproto import ofproto_v1_3 as ofp
from ryu.ofproto import ofproto_v1_3_parser as parser

from openflow_rules.compiler.bindings import br_mac
from openflow_rules.compiler.parts import ETH_IPV4
from openflow_rules.encode.flows import PLACEHOLDER, header
from openflow_rules.flow import Var
from openflow_rules.tables import Register, Table
from ryu_lw4o6.core import ethernet


class PipelineFields(NamedTuple):
    """What the pipeline knew of a packet: its tunnel's addresses, of 16 bytes each, and the PSID it
    has read."""

    tunnel_source: bytes | None
    tunnel_destination: bytes | None
    psid: int
    mtu: int = 0
    """The largest IPv4 packet that the way to the lwB4 takes, if the rules knew it."""
    sent_on: bool = False
    """Whether the controller had the packet before, and gave it back to the pipeline."""

    @property
    def softwire(self) -> tuple[IPv6Address, IPv6Address] | None:
        """The lwB4 and the br-address."""
        if self.tunnel_source is None or self.tunnel_destination is None:
            return None
        return IPv6Address(self.tunnel_source), IPv6Address(self.tunnel_destination)


_TUNNEL_SOURCE = header("tun_ipv6_src", 16)
_TUNNEL_DESTINATION = header("tun_ipv6_dst", 16)
_PSID = header(Register.PSID, 4)
_MTU = header(Register.MTU, 4)
_SENT_ON = header(Register.SENT_ON, 4)


def pipeline_fields(fields: bytes) -> PipelineFields:
    """The match fields of a packet-in. A field that is not there was zero."""
    source = destination = None
    psid = mtu = at = 0
    sent_on = False
    end = len(fields)
    while at + 4 <= end:
        header = fields[at : at + 4]
        value_at = at + 4
        at = value_at + header[3]
        if at > end:
            break
        if header == _TUNNEL_SOURCE:
            source = fields[value_at:at]
        elif header == _TUNNEL_DESTINATION:
            destination = fields[value_at:at]
        elif header == _PSID:
            psid = int.from_bytes(fields[value_at:at], "big")
        elif header == _MTU:
            mtu = int.from_bytes(fields[value_at:at], "big")
        elif header == _SENT_ON:
            sent_on = any(fields[value_at:at])
    return PipelineFields(source, destination, psid, mtu, sent_on)


# --- packet-outs ----------------------------------------------------------------------------------


def packet_out(data: bytes, port: int) -> bytes:
    """Send ``data`` out of one port, without the pipeline."""
    return _packet_out(data, ofp.OFPP_CONTROLLER, _output(port))


def reinject(frame: bytes, in_port: int, table: int, tunnel: tuple[bytes, bytes] | None) -> bytes:
    """Put a frame that was shown to the controller back to ``table``, as if it came in by
    ``in_port``, out of a tunnel between these two addresses (of 16 bytes each) if it was in
    one."""
    return _reinject(b"", frame, in_port, table, tunnel)


def send_on(frame: bytes, in_port: int, table: int, tunnel: tuple[bytes, bytes] | None) -> bytes:
    """The same for a frame that had no binding and has one now. If it is shown again, its fields
    say so."""
    return _reinject(_SET_SENT_ON, frame, in_port, table, tunnel)


def _reinject(
    first: bytes, frame: bytes, in_port: int, table: int, tunnel: tuple[bytes, bytes] | None
) -> bytes:
    actions = _resubmit(in_port, table)
    if tunnel is not None:
        before, between, after = _SET_TUNNEL
        actions = b"".join((before, tunnel[0], between, tunnel[1], after, actions))
    return _packet_out(frame, in_port, first + actions)


def from_controller(frame: bytes) -> bytes:
    """Give the pipeline a frame of the controller's own."""
    actions = _resubmit(ofp.OFPP_CONTROLLER & 0xFFFF, Table.CLASSIFY)
    return _packet_out(frame, ofp.OFPP_CONTROLLER, actions)


def into_softwire(packet: bytes, lwb4: IPv6Address, br_address: IPv6Address, port: int) -> bytes:
    """Send an IPv4 packet to an lwB4 out of ``port``, the softwire port."""
    frame = ethernet.frame(br_mac(br_address).to_bytes(6, "big"), bytes(6), ETH_IPV4, packet)
    before, between, after = _SET_TUNNEL
    actions = b"".join((before, br_address.packed, between, lwb4.packed, after, _output(port)))
    return _packet_out(frame, ofp.OFPP_CONTROLLER, actions)


def _packet_out(data: bytes, in_port: int, actions: bytes) -> bytes:
    size = len(actions)
    length = _PACKET_OUT.size + size + len(data)
    header = _PACKET_OUT.pack(
        ofp.OFP_VERSION, ofp.OFPT_PACKET_OUT, length, 0, ofp.OFP_NO_BUFFER, in_port, size
    )
    return b"".join((header, actions, data))


_PACKET_OUT = struct.Struct("!BBHIIIH6x")


def packed(*actions: Any) -> bytes:
    packed = bytearray()
    for action in actions:
        action.serialize(packed, len(packed))
    return bytes(packed)


@functools.lru_cache(maxsize=64)
def _output(port: int) -> bytes:
    return packed(parser.OFPActionOutput(port, 0))


@functools.lru_cache(maxsize=64)
def _resubmit(in_port: int, table: int) -> bytes:
    return packed(parser.NXActionResubmitTable(in_port, table))


def _set_tunnel() -> tuple[bytes, bytes, bytes]:
    """What stands before, between and after the two addresses when they are set."""
    source, destination = (PLACEHOLDER[var] for var in (Var.LWB4, Var.BR_ADDRESS))
    sample = packed(
        parser.OFPActionSetField(tun_ipv6_src=source),
        parser.OFPActionSetField(tun_ipv6_dst=destination),
    )
    before, rest = sample.split(IPv6Address(source).packed)
    between, after = rest.split(IPv6Address(destination).packed)
    return before, between, after


_SET_TUNNEL = _set_tunnel()
_SET_SENT_ON = packed(parser.OFPActionSetField(**{Register.SENT_ON: 1}))
