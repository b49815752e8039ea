"""What is said to a switch besides flows: meters, bundles, barriers."""

from __future__ import annotations

import struct

from ryu.ofproto import ofproto_v1_3 as ofp
from ryu.ofproto import ofproto_v1_3_parser as parser
from ryu.ofproto.ofproto_protocol import ProtocolDesc

from openflow_rules.encode.flows import HEADER, XID
from openflow_rules.tables import Punt

_PROTOCOL = ProtocolDesc(ofp.OFP_VERSION)
_ONF = 0x4F4E4600
_BUNDLE_CONTROL = 2300
_BUNDLE_ADD = 2301
_BUNDLE_ID = 1  # a connection has one bundle open at a time
_ATOMIC_ORDERED = 3


def barrier(xid: int) -> bytes:
    return HEADER.pack(ofp.OFP_VERSION, ofp.OFPT_BARRIER_REQUEST, 8, xid)


# --- meters -------------------------------------------------------------------------------------


METER_EXISTS = (ofp.OFPET_METER_MOD_FAILED, ofp.OFPMMFC_METER_EXISTS)
"""The error (type, code) that ``set_meter`` may cause and that means nothing."""


def set_meter(punt: Punt, rate: int) -> list[bytes]:
    """Messages that make the meter of ``punt`` pass ``rate`` packets/s, whether it exists or not.

    Deleting it first would take the flows that use it along.
    """
    out = []
    for command in (ofp.OFPMC_ADD, ofp.OFPMC_MODIFY):
        flags = ofp.OFPMF_PKTPS | ofp.OFPMF_BURST | ofp.OFPMF_STATS
        band = parser.OFPMeterBandDrop(rate=rate, burst_size=rate)
        message = parser.OFPMeterMod(_PROTOCOL, command, flags, punt, [band])
        message.set_xid(0)
        message.serialize()
        out.append(bytes(message.buf))
    return out


# --- fragments ------------------------------------------------------------------------------------

_FRAG_NX_MATCH = 3  # ovs-ofctl(8), set-frags


def match_fragments(xid: int) -> bytes:
    """Let rules see the ports of first fragments, which Open vSwitch otherwise shows as 0."""
    header = HEADER.pack(ofp.OFP_VERSION, ofp.OFPT_SET_CONFIG, 12, xid)
    return header + struct.pack("!HH", _FRAG_NX_MATCH, 0xFFFF)


# --- bundles (ONF extension 230) ----------------------------------------------------------------

_BUNDLE_ADD_HEADER = struct.Struct("!BBHIIIIHH")
BUNDLE_OVERHEAD = _BUNDLE_ADD_HEADER.size
BUNDLE_OPEN, BUNDLE_COMMIT = 0, 4


def bundle_control(kind: int, xid: int) -> bytes:
    """Open, commit or discard the connection's bundle."""
    body = struct.pack("!IIIHH", _ONF, _BUNDLE_CONTROL, _BUNDLE_ID, kind, _ATOMIC_ORDERED)
    return HEADER.pack(ofp.OFP_VERSION, ofp.OFPT_EXPERIMENTER, 8 + len(body), xid) + body


def in_bundle(message: bytes) -> bytes:
    """The message wrapped for the bundle; inner and outer transaction id are the same."""
    (xid,) = XID.unpack_from(message, 4)
    return (
        _BUNDLE_ADD_HEADER.pack(
            ofp.OFP_VERSION,
            ofp.OFPT_EXPERIMENTER,
            BUNDLE_OVERHEAD + len(message),
            xid,
            _ONF,
            _BUNDLE_ADD,
            _BUNDLE_ID,
            0,
            _ATOMIC_ORDERED,
        )
        + message
    )
