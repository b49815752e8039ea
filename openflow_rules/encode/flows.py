"""A flow as an OpenFlow 1.3 message, and in the canonical form in which flows are compared."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from ryu.ofproto import ofproto_v1_3 as ofp
from ryu.ofproto import ofproto_v1_3_parser as parser

from openflow_rules.flow import (
    Action,
    CheckLarger,
    DecTtl,
    Flow,
    Load,
    Match,
    Move,
    Output,
    Resubmit,
    SetField,
    ToController,
    Value,
    Var,
)

HEADER = struct.Struct("!BBHI")
_MULTIPART = struct.Struct("!HH4x")  # type, flags
XID = struct.Struct("!I")
_FLOW_MOD = 14

PLACEHOLDER: dict[Var, int | str] = {
    Var.COOKIE: 0xC0_0C_1E_51_A7_3B_95_D2,
    Var.IPV4: "203.93.181.27",
    Var.PSID: 0x5AC3E1B7,
    Var.LWB4: "fd4b:a1b2:c3d4:e5f6:1726:3746:5766:7786",
    Var.BR_ADDRESS: "fd4b:9182:7364:5546:3728:190a:fbec:ddce",
    Var.BR_MAC: "9e:8d:7c:6b:5a:49",
}
XID_PLACEHOLDER = 0x7B91D3F5
"""What stands for a ``Var`` in a flow that is to be a template: bytes that are nowhere else."""


def header(field: str, length: int) -> bytes:
    header: int = ofp.oxm_from_user_header(field) << 9 | length
    return header.to_bytes(4, "big")


_NAMES = frozenset(field.name for field in ofp.oxm_types)


def _nxm(field: str) -> str:
    """The Nicira name of a field: Open vSwitch lists moves so, however they were sent, and a
    flow must read back as it was written to be recognised."""
    return f"{field}_nxm" if f"{field}_nxm" in _NAMES else field


class _CheckLarger(parser.NXAction):  # type: ignore[misc]
    """check_pkt_larger of Open vSwitch, which Ryu does not know; see ovs-actions(7)."""

    _subtype = 49

    def __init__(self, size: int, register: str) -> None:
        super().__init__()
        self._body = struct.pack("!HH4s6x", size, 0, header(_nxm(register), 4))

    def serialize_body(self) -> bytes:
        return self._body


class _MeteredToController(parser.NXAction):  # type: ignore[misc]
    """controller(max_len=65535,meter_id=...) of Open vSwitch; see ovs-actions(7)."""

    _subtype = 37

    def __init__(self, meter: int) -> None:
        super().__init__()
        self._body = struct.pack("!6xHHI", _METER_PROPERTY, 8, meter)

    def serialize_body(self) -> bytes:
        return self._body


_METER_PROPERTY = 5  # NXAC2PT_METER_ID


def _ryu_action(action: Action) -> Any:
    match action:
        case SetField(field, value):
            return parser.OFPActionSetField(**{field: _user(value)})
        case Load(field, bits, value, first):
            part = first << 6 | bits - 1
            return parser.NXActionRegLoad(ofs_nbits=part, dst=_nxm(field), value=value)
        case Move(src, src_bit, dst, dst_bit, bits):
            return parser.NXActionRegMove(
                src_field=_nxm(src),
                dst_field=_nxm(dst),
                n_bits=bits,
                src_ofs=src_bit,
                dst_ofs=dst_bit,
            )
        case CheckLarger(size, register):
            return _CheckLarger(size, register)
        case DecTtl():
            return parser.OFPActionDecNwTtl()
        case Output(port):
            return parser.OFPActionOutput(port, 0)
        case ToController(meter=int(meter)):
            return _MeteredToController(meter)
        case ToController(max_len):
            return parser.OFPActionOutput(ofp.OFPP_CONTROLLER, max_len)
        case Resubmit(table):
            return parser.NXActionResubmitTable(ofp.OFPP_IN_PORT & 0xFFFF, table)


def _user(value: Value) -> int | str:
    return PLACEHOLDER[value] if isinstance(value, Var) else value


def _oxm(match: Match) -> bytes:
    value = _user(match.value)
    number, raw, mask = ofp.oxm_from_user(
        match.field, value if match.mask is None else (value, match.mask)
    )
    buf = bytearray()
    ofp.oxm_serialize(number, raw, mask, buf, 0)
    return bytes(buf)


def _padded(body: bytes) -> bytes:
    return body + bytes(-len(body) % 8)


def _match(matches: Sequence[Match]) -> bytes:
    """An OFPMatch in the order given: Ryu's own class sorts fields, and so puts the fields of
    Open vSwitch's extension before those they need."""
    fields = b"".join(_oxm(m) for m in matches)
    return _padded(struct.pack("!HH", ofp.OFPMT_OXM, 4 + len(fields)) + fields)


def _instructions(flow: Flow) -> bytes:
    out: list[Any] = []
    if flow.meter is not None:
        out.append(parser.OFPInstructionMeter(flow.meter))
    if flow.actions:
        out.append(
            parser.OFPInstructionActions(
                ofp.OFPIT_APPLY_ACTIONS, [_ryu_action(a) for a in flow.actions]
            )
        )
    if flow.goto is not None:
        out.append(parser.OFPInstructionGotoTable(flow.goto))
    buf = bytearray()
    for instruction in out:
        instruction.serialize(buf, len(buf))
    return bytes(buf)


def flow_mod(
    command: int,
    table: int,
    priority: int,
    cookie: int,
    match: bytes,
    instructions: bytes = b"",
    *,
    cookie_mask: int = 0,
    hard_timeout: int = 0,
    xid: int = 0,
) -> bytes:
    body = (
        struct.pack(
            "!QQBBHHHIIIH2x",
            cookie,
            cookie_mask,
            table,
            command,
            0,
            hard_timeout,
            priority,
            ofp.OFP_NO_BUFFER,
            ofp.OFPP_ANY,
            ofp.OFPG_ANY,
            0,
        )
        + match
        + instructions
    )
    return HEADER.pack(ofp.OFP_VERSION, _FLOW_MOD, 8 + len(body), xid) + body


def cookie_of(flow: Flow) -> int:
    value = _user(flow.cookie)
    assert isinstance(value, int)
    return value


def add_flow(flow: Flow, xid: int = 0) -> bytes:
    """A message that adds ``flow``, or puts it in the place of the one with the same match."""
    return flow_mod(
        ofp.OFPFC_ADD,
        flow.table,
        flow.priority,
        cookie_of(flow),
        _match(flow.match),
        _instructions(flow),
        hard_timeout=flow.hard_timeout,
        xid=xid,
    )


def delete_flow(flow: Flow) -> bytes:
    """A message that deletes exactly ``flow``."""
    return flow_mod(
        ofp.OFPFC_DELETE_STRICT, flow.table, flow.priority, cookie_of(flow), _match(flow.match)
    )


ANY = _match(())


def delete_by_cookie(cookie: int) -> bytes:
    """A message that deletes the flows of every table that have exactly this cookie."""
    return flow_mod(
        ofp.OFPFC_DELETE, ofp.OFPTT_ALL, 0, cookie, ANY, cookie_mask=0xFFFF_FFFF_FFFF_FFFF
    )


def with_xid(message: bytes, xid: int) -> bytes:
    """The same message with another transaction id."""
    return message[:4] + XID.pack(xid) + message[8:]


def canonical(table: int, priority: int, cookie: int, match: bytes, instructions: bytes) -> bytes:
    """A flow as bytes that are equal exactly when two flows are the same rule.

    ``match`` is an OFPMatch with its header. The switch may list matched fields in an order of
    its own, so they are sorted.
    """
    (length,) = struct.unpack_from("!H", match, 2)
    fields, at = [], 4
    while at < length:
        end = at + 4 + match[at + 3]
        fields.append(match[at:end])
        at = end
    fields.sort()
    return struct.pack("!BHQ", table, priority, cookie) + b"".join(fields) + instructions


def multipart_request(kind: int, xid: int, body: bytes = b"") -> bytes:
    """An OFPT_MULTIPART_REQUEST of this type (OpenFlow 1.3 section 7.3.5)."""
    length = HEADER.size + _MULTIPART.size + len(body)
    header = HEADER.pack(ofp.OFP_VERSION, ofp.OFPT_MULTIPART_REQUEST, length, xid)
    return header + _MULTIPART.pack(kind, 0) + body


def table_of(canonical: bytes) -> int:
    """The table of a flow in its canonical form."""
    return canonical[0]


def canonical_flow(flow: Flow) -> bytes:
    return canonical(
        flow.table, flow.priority, cookie_of(flow), _match(flow.match), _instructions(flow)
    )
