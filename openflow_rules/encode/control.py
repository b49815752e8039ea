"""What is said to a switch besides flows and meters: bundles, barriers."""

from __future__ import annotations

import struct

from ryu.ofproto import ofproto_v1_3 as ofp

from openflow_rules.encode.flows import HEADER, XID

_ONF = 0x4F4E4600
_BUNDLE_CONTROL = 2300
_BUNDLE_ADD = 2301
_BUNDLE_ID = 1  # a connection has one bundle open at a time
_ATOMIC_ORDERED = 3


def barrier(xid: int) -> bytes:
    return HEADER.pack(ofp.OFP_VERSION, ofp.OFPT_BARRIER_REQUEST, 8, xid)


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
