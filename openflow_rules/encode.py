"""Flows as bytes: OpenFlow 1.3 messages and the canonical form in which flows are compared.

Most flows are encoded one by one through Ryu's classes. The two flows of a binding exist a
hundred thousand times, so each is encoded once with recognisable values in place of its ``Var``s;
a ``Template`` then packs the real values into those places with one call of ``struct``.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address
from operator import itemgetter
from typing import Any, NamedTuple

from ryu.ofproto import ofproto_v1_3 as ofp
from ryu.ofproto import ofproto_v1_3_parser as parser
from ryu.ofproto.ofproto_protocol import ProtocolDesc

from openflow_rules.compiler import unknown
from openflow_rules.compiler.bindings import BINDING_FLOWS, br_mac
from openflow_rules.compiler.forward import to_next_hop
from openflow_rules.compiler.parts import ETH_IPV4, Ports
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
from openflow_rules.tables import CookieClass, Punt, Register, Table, cookie
from ryu_lw4o6.core import ethernet
from ryu_lw4o6.core.binding import Binding, BindingKey
from ryu_lw4o6.core.settings import Instance

_PROTOCOL = ProtocolDesc(ofp.OFP_VERSION)
_ONF = 0x4F4E4600
_BUNDLE_CONTROL = 2300
_BUNDLE_ADD = 2301
_BUNDLE_ID = 1  # a connection has one bundle open at a time
_ATOMIC_ORDERED = 3
_HEADER = struct.Struct("!BBHI")
_FLOW_MOD = 14
_XID = struct.Struct("!I")


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
        self._body = struct.pack("!HH4s6x", size, 0, _header(_nxm(register), 4))

    def serialize_body(self) -> bytes:
        return self._body


def _ryu_action(action: Action) -> Any:
    match action:
        case SetField(field, value):
            return parser.OFPActionSetField(**{field: _user(value)})
        case Load(field, bits, value):
            return parser.NXActionRegLoad(ofs_nbits=bits - 1, dst=_nxm(field), value=value)
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
        case ToController(max_len):
            return parser.OFPActionOutput(ofp.OFPP_CONTROLLER, max_len)
        case Resubmit(table):
            return parser.NXActionResubmitTable(ofp.OFPP_IN_PORT & 0xFFFF, table)


_PLACEHOLDER: dict[Var, int | str] = {
    Var.COOKIE: 0xC0_0C_1E_51_A7_3B_95_D2,
    Var.IPV4: "203.93.181.27",
    Var.PSID: 0x5AC3E1B7,
    Var.LWB4: "fd4b:a1b2:c3d4:e5f6:1726:3746:5766:7786",
    Var.BR_ADDRESS: "fd4b:9182:7364:5546:3728:190a:fbec:ddce",
    Var.BR_MAC: "9e:8d:7c:6b:5a:49",
}
_XID_PLACEHOLDER = 0x7B91D3F5


def _user(value: Value) -> int | str:
    return _PLACEHOLDER[value] if isinstance(value, Var) else value


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


def _flow_mod(
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
    return _HEADER.pack(ofp.OFP_VERSION, _FLOW_MOD, 8 + len(body), xid) + body


def _cookie(flow: Flow) -> int:
    value = _user(flow.cookie)
    assert isinstance(value, int)
    return value


def add_flow(flow: Flow, xid: int = 0) -> bytes:
    """A message that adds ``flow``, or puts it in the place of the one with the same match."""
    return _flow_mod(
        ofp.OFPFC_ADD,
        flow.table,
        flow.priority,
        _cookie(flow),
        _match(flow.match),
        _instructions(flow),
        hard_timeout=flow.hard_timeout,
        xid=xid,
    )


def delete_flow(flow: Flow) -> bytes:
    """A message that deletes exactly ``flow``."""
    return _flow_mod(
        ofp.OFPFC_DELETE_STRICT, flow.table, flow.priority, _cookie(flow), _match(flow.match)
    )


_ANY = _match(())


def delete_by_cookie(cookie: int) -> bytes:
    """A message that deletes the flows of every table that have exactly this cookie."""
    return _flow_mod(
        ofp.OFPFC_DELETE, ofp.OFPTT_ALL, 0, cookie, _ANY, cookie_mask=0xFFFF_FFFF_FFFF_FFFF
    )


def with_xid(message: bytes, xid: int) -> bytes:
    """The same message with another transaction id."""
    return message[:4] + _XID.pack(xid) + message[8:]


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
    header = _HEADER.pack(ofp.OFP_VERSION, ofp.OFPT_SET_CONFIG, 12, xid)
    return header + struct.pack("!HH", _FRAG_NX_MATCH, 0xFFFF)


# --- bundles (ONF extension 230) ----------------------------------------------------------------

_BUNDLE_ADD_HEADER = struct.Struct("!BBHIIIIHH")
BUNDLE_OVERHEAD = _BUNDLE_ADD_HEADER.size
BUNDLE_OPEN, BUNDLE_COMMIT = 0, 4


def bundle_control(kind: int, xid: int) -> bytes:
    """Open, commit or discard the connection's bundle."""
    body = struct.pack("!IIIHH", _ONF, _BUNDLE_CONTROL, _BUNDLE_ID, kind, _ATOMIC_ORDERED)
    return _HEADER.pack(ofp.OFP_VERSION, ofp.OFPT_EXPERIMENTER, 8 + len(body), xid) + body


def in_bundle(message: bytes) -> bytes:
    """The message wrapped for the bundle; inner and outer transaction id are the same."""
    (xid,) = _XID.unpack_from(message, 4)
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


# --- templates ----------------------------------------------------------------------------------

_PLACES: tuple[tuple[Var | None, bytes, str], ...] = (
    (None, _XID.pack(_XID_PLACEHOLDER), "I"),
    (Var.COOKIE, struct.pack("!Q", _PLACEHOLDER[Var.COOKIE]), "Q"),
    (Var.IPV4, bytes([203, 93, 181, 27]), "I"),
    (Var.PSID, struct.pack("!I", _PLACEHOLDER[Var.PSID]), "I"),
    (Var.LWB4, bytes.fromhex(str(_PLACEHOLDER[Var.LWB4]).replace(":", "")), "16s"),
    (Var.BR_ADDRESS, bytes.fromhex(str(_PLACEHOLDER[Var.BR_ADDRESS]).replace(":", "")), "16s"),
    (Var.BR_MAC, bytes.fromhex(str(_PLACEHOLDER[Var.BR_MAC]).replace(":", "")), "6s"),
)
_Values = tuple[int, int, int, int, bytes, bytes, bytes]
_BINDING_CLASS = cookie(CookieClass.BINDING)


class Template:
    """Bytes with places for (xid, cookie, IPv4, PSID, lwB4, br-address, br MAC)."""

    def __init__(self, sample: bytes) -> None:
        found: list[tuple[int, int, int, str]] = []
        for index, (_, placeholder, code) in enumerate(_PLACES):
            at = sample.find(placeholder)
            while at >= 0:
                found.append((at, len(placeholder), index, code))
                at = sample.find(placeholder, at + 1)
        formats: list[str] = ["!"]
        order: list[int] = []
        constants: list[bytes] = []
        end = 0
        for at, length, index, code in sorted(found):
            assert at >= end, "placeholders overlap"
            if at > end:
                order.append(len(_PLACES) + len(constants))
                constants.append(sample[end:at])
                formats.append(f"{at - end}s")
            order.append(index)
            formats.append(code)
            end = at + length
        order.append(len(_PLACES) + len(constants))
        constants.append(sample[end:])
        formats.append(f"{len(sample) - end}s")
        self._constants = tuple(constants)
        self._pick = itemgetter(*order)
        self._pack = struct.Struct("".join(formats)).pack

    def fill(self, values: _Values) -> bytes:
        return self._pack(*self._pick(values + self._constants))


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


def canonical_flow(flow: Flow) -> bytes:
    return canonical(
        flow.table, flow.priority, _cookie(flow), _match(flow.match), _instructions(flow)
    )


class BindingEncoder:
    """Encodes the flows of one instance's bindings.

    Every ``add_*`` gives two messages whose transaction ids are ``xid`` for both: an error about
    either is an error about the binding.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._default_br = self._br(None)
        self._brs = {address: self._br(address) for address in instance.aftr_addresses}
        messages = [add_flow(flow, _XID_PLACEHOLDER) for flow in BINDING_FLOWS]
        self._add = Template(b"".join(messages))
        self._add_bundled = Template(b"".join(in_bundle(m) for m in messages))
        self._delete_bundled = Template(
            in_bundle(with_xid(delete_by_cookie(_cookie(BINDING_FLOWS[0])), _XID_PLACEHOLDER))
        )
        self._canonical = {
            int(flow.table): Template(canonical_flow(flow)) for flow in BINDING_FLOWS
        }

    def _br(self, address: Any) -> tuple[bytes, bytes]:
        address = address or self._instance.aftr_addresses[0]
        return address.packed, br_mac(address).to_bytes(6, "big")

    def _values(self, binding: Binding, xid: int) -> _Values:
        ipv4 = int(binding.ipv4)
        br = self._brs[binding.br_address] if binding.br_address else self._default_br
        # The same as tables.binding_cookie, without building a key for each of 100,000 bindings.
        key = _BINDING_CLASS | ipv4 << 16 | binding.psid
        return (xid, key, ipv4, binding.psid, binding.lwb4.packed, *br)

    def add(self, binding: Binding, xid: int) -> bytes:
        return self._add.fill(self._values(binding, xid))

    def add_bundled(self, binding: Binding, xid: int) -> bytes:
        return self._add_bundled.fill(self._values(binding, xid))

    def delete_bundled(self, cookie: int, xid: int) -> bytes:
        return self._delete_bundled.fill((xid, cookie, 0, 0, b"", b"", b""))

    def canonical(self, binding: Binding, table: int) -> bytes | None:
        """The flow of ``binding`` in ``table`` in canonical form; None for a table that has
        none."""
        template = self._canonical.get(table)
        return None if template is None else template.fill(self._values(binding, 0))


def quiet(key: BindingKey, lwb4: IPv6Address | None, seconds: int) -> bytes:
    """A message that keeps an address and port set off the controller for ``seconds``: as the inner
    source of ``lwb4``, or as a destination if that is None."""
    outer = b"" if lwb4 is None else lwb4.packed
    return _quiet_template(seconds, lwb4 is not None).fill(
        (0, 0, int(key.ipv4), key.psid, outer, b"", b"")
    )


def quiet_lwb4(lwb4: bytes, seconds: int) -> bytes:
    """A message that keeps whatever an lwB4 sends without a binding off the controller."""
    return _quiet_template(seconds, None).fill((0, 0, 0, 0, lwb4, b"", b""))


@functools.lru_cache(maxsize=8)
def _quiet_template(seconds: int, upstream: bool | None) -> Template:
    flow = (
        unknown.quiet_lwb4(seconds)
        if upstream is None
        else unknown.quiet(seconds, upstream=upstream)
    )
    return Template(add_flow(flow))


_MAC_PLACEHOLDER = "9e:8d:7c:6b:5a:49"


def next_hop_mac(flow: FlowStats, instance: Instance, ports: Ports) -> str | None:
    """The next hop's MAC address if ``flow`` is the one that sends packets to it, else None.

    A restarted controller finds the next hop here, and so leaves the flow as it is.
    """
    sample = canonical_flow(to_next_hop(instance, ports, _MAC_PLACEHOLDER))
    before, after = sample.split(bytes.fromhex(_MAC_PLACEHOLDER.replace(":", "")))
    found = flow.canonical()
    mac = found[len(before) : len(found) - len(after)]
    return mac.hex(":") if len(mac) == 6 and found == before + mac + after else None


# --- packet-ins -----------------------------------------------------------------------------------


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


def _header(field: str, length: int) -> bytes:
    header: int = ofp.oxm_from_user_header(field) << 9 | length
    return header.to_bytes(4, "big")


_TUNNEL_SOURCE = _header("tun_ipv6_src", 16)
_TUNNEL_DESTINATION = _header("tun_ipv6_dst", 16)
_PSID = _header(Register.PSID, 4)
_MTU = _header(Register.MTU, 4)
_SENT_ON = _header(Register.SENT_ON, 4)


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


# --- reading flows back ---------------------------------------------------------------------------

_STATS_FIXED = struct.Struct("!HBxIIHHHH4xQQQ")


class FlowStats:
    """One entry of a flow-stats reply, its match and instructions still bytes."""

    __slots__ = (
        "bytes", "cookie", "instructions", "match", "packets", "priority", "seconds", "table",
    )  # fmt: skip

    def __init__(
        self,
        table: int,
        priority: int,
        cookie: int,
        packets: int,
        nbytes: int,
        match: bytes,
        instructions: bytes,
        seconds: int = 0,
    ) -> None:
        self.seconds = seconds  # since it was installed
        self.table = table
        self.priority = priority
        self.cookie = cookie
        self.packets = packets
        self.bytes = nbytes
        self.match = match
        self.instructions = instructions

    def canonical(self) -> bytes:
        return canonical(self.table, self.priority, self.cookie, self.match, self.instructions)

    def delete(self) -> bytes:
        """A message that deletes exactly this flow."""
        return _flow_mod(
            ofp.OFPFC_DELETE_STRICT, self.table, self.priority, self.cookie, self.match
        )


def flow_stats_entries(message: bytes) -> Iterator[FlowStats]:
    """The entries of one OFPT_MULTIPART_REPLY message of type flow.

    Raises ValueError if the message is cut off or its lengths do not fit.
    """
    at, end = 16, len(message)
    while at < end:
        if end - at < _STATS_FIXED.size + 8:
            raise ValueError("flow-stats reply is cut off")
        length, table, seconds, _, priority, _, _, _, cookie, packets, nbytes = (
            _STATS_FIXED.unpack_from(message, at)
        )
        match_at = at + _STATS_FIXED.size
        (match_length,) = struct.unpack_from("!H", message, match_at + 2)
        instructions_at = match_at + match_length + -match_length % 8
        if length < instructions_at - at or at + length > end:
            raise ValueError("flow-stats entry has a wrong length")
        yield FlowStats(
            table,
            priority,
            cookie,
            packets,
            nbytes,
            message[match_at:instructions_at],
            message[instructions_at : at + length],
            seconds,
        )
        at += length


def flow_stats_request(
    xid: int, *, table: int = ofp.OFPTT_ALL, cookie: int = 0, cookie_mask: int = 0
) -> bytes:
    """Ask for the flows of a table (all by default) with these cookie bits."""
    body = (
        struct.pack(
            "!HH4xB3xII4xQQ",
            ofp.OFPMP_FLOW,
            0,
            table,
            ofp.OFPP_ANY,
            ofp.OFPG_ANY,
            cookie,
            cookie_mask,
        )
        + _ANY
    )
    return _HEADER.pack(ofp.OFP_VERSION, ofp.OFPT_MULTIPART_REQUEST, 8 + len(body), xid) + body


def barrier(xid: int) -> bytes:
    return _HEADER.pack(ofp.OFP_VERSION, ofp.OFPT_BARRIER_REQUEST, 8, xid)


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


def _packed(*actions: Any) -> bytes:
    packed = bytearray()
    for action in actions:
        action.serialize(packed, len(packed))
    return bytes(packed)


@functools.lru_cache(maxsize=64)
def _output(port: int) -> bytes:
    return _packed(parser.OFPActionOutput(port, 0))


@functools.lru_cache(maxsize=64)
def _resubmit(in_port: int, table: int) -> bytes:
    return _packed(parser.NXActionResubmitTable(in_port, table))


def _set_tunnel() -> tuple[bytes, bytes, bytes]:
    """What stands before, between and after the two addresses when they are set."""
    source, destination = (_PLACEHOLDER[var] for var in (Var.LWB4, Var.BR_ADDRESS))
    sample = _packed(
        parser.OFPActionSetField(tun_ipv6_src=source),
        parser.OFPActionSetField(tun_ipv6_dst=destination),
    )
    before, rest = sample.split(IPv6Address(source).packed)
    between, after = rest.split(IPv6Address(destination).packed)
    return before, between, after


_SET_TUNNEL = _set_tunnel()
_SET_SENT_ON = _packed(parser.OFPActionSetField(**{Register.SENT_ON: 1}))
