"""What rules and shim cannot do by themselves: fragments whose ports are not known yet, softwire
packets in IPv6 fragments, behind other extension headers, or too large for the Internet's side.
Frames in, frames out; no waiting."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from typing import Any

from openflow_rules.encode import PipelineFields
from openflow_rules.marks import fragment_ports, with_ports
from openflow_rules.outer import softwire_frame
from openflow_rules.tables import Table
from ryu_lw4o6.core import ethernet, icmp, ipv4, ipv6
from ryu_lw4o6.core.fragments import Piece, Waiting, joined
from ryu_lw4o6.core.ipv6 import Forbidden, Malformed
from ryu_lw4o6.core.settings import Dscp, Instance

FRAGMENT_SECONDS = 15.0
"""How long a fragment waits for the first of its packet (RFC 791 section 3.2); the shim forgets
their ports after as long."""
REASSEMBLY_SECONDS = 60.0  # RFC 8200 section 4.5
MOST_PACKETS = 4096
MOST_BYTES = 16 << 20
"""Of fragments that wait, for each of both purposes."""

Tunnel = tuple[bytes, bytes]
"""The lwB4's address and the br-address, of 16 bytes each."""
_Key = tuple[bytes | None, bytes, bytes, int]


@dataclass(frozen=True, slots=True)
class Injection:
    """A frame for the pipeline: at ``table``, out of a softwire if it has a ``tunnel``. One without
    a table is for the kernel, as it came."""

    frame: bytes
    table: Table | None
    tunnel: Tunnel | None = None


class SlowPath:
    """``too_big`` is told of a packet out of a softwire, and the lwB4 it came from, that is larger
    than the Internet side's MTU and may not be fragmented."""

    def __init__(self, instance: Instance, too_big: Callable[[bytes, IPv6Address], None]) -> None:
        self._instance = instance
        self._too_big = too_big
        self.packets: Counter[str] = Counter()
        self._reassembled = [0, 0]
        self.held = Waiting(FRAGMENT_SECONDS, MOST_PACKETS, MOST_BYTES)
        self._late: list[bytes] = []
        self.reassembly = Waiting(REASSEMBLY_SECONDS, MOST_PACKETS, MOST_BYTES, self._timed_out)
        self._ports: OrderedDict[_Key, tuple[int, float]] = OrderedDict()

    # --- IPv4 fragments ---------------------------------------------------------------------------

    def later(self, known: PipelineFields, frame: bytes, now: float) -> list[Injection]:
        """A fragment that is not the first, and came before it."""
        packet = icmp.ipv4_packet(frame)
        if packet is None:
            self.packets["dropped_malformed"] += 1
            return []
        key = fragment_key(known, packet)
        if (found := self._ports.get(key)) and found[1] > now - FRAGMENT_SECONDS:
            self.packets["sent_on"] += 1
            return [_injection(known, with_ports(frame, found[0]))]
        field = ipv4.fragment_field(packet)
        data = packet[ipv4.header_length(packet) :]
        piece = Piece((field & ipv4.OFFSET) * 8, bool(field & ipv4.MF), data, frame)
        self.held.add(key, piece, now)
        return []

    def first(self, known: PipelineFields, frame: bytes, now: float) -> list[Injection]:
        """A copy of a first fragment, others of whose packet have come before it."""
        packet = icmp.ipv4_packet(frame)
        if packet is None:
            return []
        ports = fragment_ports(packet, upstream=known.tunnel_source is not None)
        if ports is None:
            return []
        key = fragment_key(known, packet)
        self._ports.pop(key, None)
        self._ports[key] = ports, now
        while len(self._ports) > MOST_PACKETS:
            self._ports.popitem(last=False)
        waited = self.held.take(key)
        self.packets["sent_on"] += len(waited)
        return [_injection(known, with_ports(piece.frame, ports)) for piece in waited]

    # --- softwire packets -------------------------------------------------------------------------

    def softwire(self, frame: bytes, now: float) -> list[Injection]:
        """An IPv6 packet to one of our AFTR addresses: a fragment, or with extension headers."""
        kernel_has_it = False
        try:
            header, next_header, data = ipv6.read(frame[ethernet.HEADER :])
            opened = ipv6.behind_extensions(next_header, data)
            if opened.fragment is not None:
                kernel_has_it = opened.fragment.offset > 0
                headers = frame[ethernet.HEADER :][: ipv6.HEADER + len(data) - len(opened.payload)]
                whole = self._reassemble(headers, header, opened, now)
                if whole is None:
                    return []
                header, opened = whole
            return self._decapsulate(header, opened)
        except Forbidden as error:
            self.packets[f"dropped_{error}"] += 1
            return [] if kernel_has_it else [Injection(frame, None)]
        except Malformed as error:
            self.packets[f"dropped_{error}"] += 1
            return []

    def late(self, now: float) -> list[bytes]:
        """ICMPv6 errors about first fragments whose others have not come in time (RFC 8200 section
        4.5)."""
        self.reassembly.expire(now)
        late, self._late = self._late, []
        return late

    def _timed_out(self, first: Piece) -> None:
        fragment = first.frame + first.data
        if icmp.is_single_node(fragment[8:24]):
            self._late.append(icmp.softwire_reassembly_timed_out(fragment))

    def _reassemble(
        self, headers: bytes, header: ipv6.Header, opened: ipv6.Opened, now: float
    ) -> tuple[ipv6.Header, ipv6.Opened] | None:
        fragment = opened.fragment
        assert fragment is not None
        if fragment.next_header not in (ipv6.IPIP, ipv6.OPTIONS):
            return None  # the kernel's, who has it as well
        key = header.source, header.destination, fragment.identification
        piece = Piece(fragment.offset, fragment.more, opened.payload, headers)
        if not piece.sound:
            raise Forbidden("malformed")
        if not self.reassembly.add(key, piece, now):
            return None
        pieces = self.reassembly.take(key)
        self.packets["reassembled"] += 1
        self._reassembled[0] += len(pieces)
        self._reassembled[1] += sum(len(piece.data) for piece in pieces)
        next_header = pieces[0].frame[-8]  # of the fragment header, which is the last
        whole = ipv6.behind_extensions(next_header, joined(pieces), first=False)
        if whole.fragment is not None:  # a fragment in fragments
            raise Malformed("malformed")
        traffic_class = ipv6.reassembled_class([ipv6.traffic_class(p.frame) for p in pieces])
        return replace(header, traffic_class=traffic_class), whole

    def _decapsulate(self, header: ipv6.Header, opened: ipv6.Opened) -> list[Injection]:
        packet = opened.payload
        if opened.next_header != ipv6.IPIP or not ipv4.is_sound(packet):
            raise Malformed("malformed")
        if ipv4.is_martian(packet[16:20]):
            raise Malformed("martian")
        outer_dscp = self._instance.ipv6.dscp is Dscp.OUTER
        outgoing = ipv4.out_of_tunnel(packet, header.traffic_class, outer_dscp=outer_dscp)
        if outgoing is None:
            raise Malformed("ecn")
        packet = outgoing[: int.from_bytes(outgoing[2:4], "big")]
        packets = [packet]
        if len(packet) > self._instance.ipv4.mtu:
            if ipv4.fragment_field(packet) & ipv4.DF:
                self._too_big(packet, header.source)
                raise Malformed("too_big")
            packets = ipv4.in_fragments(packet, self._instance.ipv4.mtu)
        tunnel = header.source.packed, header.destination.packed
        ports = fragment_ports(packet, upstream=True)
        frames = [
            softwire_frame(p, header, opened.limited, self._instance.softwire_mtu) for p in packets
        ]
        if ports is not None:
            frames[1:] = [with_ports(frame, ports) for frame in frames[1:]]
        return [Injection(frame, Table.CLASSIFY, tunnel) for frame in frames]

    @property
    def fragments_dropped(self) -> tuple[int, int]:
        """Packets and bytes of IPv4 fragments."""
        return self.held.dropped.total(), self.held.dropped_bytes

    @property
    def fragments_reassembled(self) -> tuple[int, int]:
        """IPv6 fragments that have become packets, and the bytes in them."""
        return self._reassembled[0], self._reassembled[1]

    def status(self) -> dict[str, Any]:
        """Counts, ready for JSON."""
        return {
            "packets": dict(self.packets),
            "held": {"waiting": len(self.held), "dropped": dict(self.held.dropped)},
            "reassembly": {
                "waiting": len(self.reassembly),
                "dropped": dict(self.reassembly.dropped),
            },
        }


def fragment_key(known: PipelineFields, packet: bytes) -> _Key:
    """What fragments of one packet have in common (RFC 791 section 3.2), softwire included."""
    return known.tunnel_source, packet[12:20], packet[4:6], packet[9]


def _injection(known: PipelineFields, frame: bytes) -> Injection:
    if known.tunnel_source is None or known.tunnel_destination is None:
        return Injection(frame, Table.DOWNSTREAM_PORT_SET, None)
    tunnel = known.tunnel_source, known.tunnel_destination
    return Injection(frame, Table.UPSTREAM_PORT_SET, tunnel)
