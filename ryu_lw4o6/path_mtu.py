"""The ways to lwB4s, as routers on them report: errors handed on to those who sent what was inside
(RFC 2473 section 8), and path MTUs kept (RFC 8201)."""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

from openflow_rules.compiler.forward import path_mtu_flow
from openflow_rules.encode import PipelineFields
from openflow_rules.flow import Flow
from openflow_rules.marks import fragment_ports
from openflow_rules.outer import hashed_flow_label
from openflow_rules.tables import Mark
from ryu_lw4o6 import punt
from ryu_lw4o6.core import ethernet, icmp, ipv4, ipv6, tunnel_icmp
from ryu_lw4o6.core.binding import BindingTable
from ryu_lw4o6.core.settings import IPV6_HEADER, FlowLabel, Instance
from ryu_lw4o6.core.tunnel_icmp import PathMtus, Report

KEPT_SECONDS = 600  # RFC 8201 section 5.3
MOST_PATHS = 4096


@dataclass(slots=True)
class Outcome:
    """``answer`` is an ICMPv4 error, ``flow`` what the switch is to know, ``packets`` are IPv6
    packets for the access network."""

    answer: bytes | None = None
    flow: Flow | None = None
    packets: list[bytes] = field(default_factory=list)


class Paths:
    """``counts`` are errors and packets by what became of them."""

    def __init__(self, instance: Instance, table: BindingTable) -> None:
        self._instance = instance
        self._table = table
        self._mtus = PathMtus(KEPT_SECONDS, MOST_PATHS)
        self.counts: Counter[str] = Counter()
        self._fragmented_bytes = 0

    def error(self, frame: bytes, now: float) -> Outcome:
        """An ICMPv6 error to one of our AFTR addresses."""
        report = tunnel_icmp.read(frame[ethernet.HEADER :])
        if report is None:
            self.counts["ignored"] += 1
            return Outcome()
        if not self._may_be_ours(report):
            self.counts["forged"] += 1
            return Outcome()
        if report.parameter_problem:
            # For instance the lwB4 does not know next header 4, IPv4: it has no softwire any more.
            self.counts["parameter_problem"] += 1
            return Outcome()
        self.counts["believed"] += 1
        packet = report.packet
        if report.mtu is None:
            answer = None
            if punt.may_answer(self._instance, packet):
                answer = punt.ipv4_error(
                    self._instance, packet, icmp.UNREACHABLE, icmp.HOST_UNREACHABLE
                )
            return Outcome(answer)
        if report.mtu >= self._instance.ipv6.mtu:
            return Outcome()  # nothing that we did not know
        outcome = Outcome(self._too_big(packet, report.mtu - IPV6_HEADER))
        if self._mtus.learn(report.lwb4, report.mtu, now):
            outcome.flow = path_mtu_flow(report.lwb4, report.mtu, KEPT_SECONDS)
        return outcome

    def too_large(self, known: PipelineFields, frame: bytes) -> Outcome:
        """A packet that is larger than the way to its lwB4 takes, as the rules know."""
        packet = icmp.ipv4_packet(frame)
        if packet is None or known.softwire is None:
            return Outcome()
        if ipv4.fragment_field(packet) & ipv4.DF:
            self.counts["too_big"] += 1
            return Outcome(self._too_big(packet, known.mtu))
        self.counts["fragmented"] += 1
        self._fragmented_bytes += len(packet)
        br_address, lwb4 = known.softwire
        side = self._instance.ipv6
        label = hashed_flow_label(packet) if side.flow_label is FlowLabel.HASHED else 0
        outer = ipv6.Header(br_address, lwb4, packet[1], label, side.hop_limit)
        pieces = ipv6.in_fragments(
            outer, ipv4.one_hop_on(packet), ipv6.IPIP, known.mtu + IPV6_HEADER,
            secrets.randbits(32),
        )  # fmt: skip
        return Outcome(packets=pieces)

    def _too_big(self, packet: bytes, mtu: int) -> bytes | None:
        if not self._instance.icmp.too_big or not ipv4.fragment_field(packet) & ipv4.DF:
            return None
        return punt.too_big(self._instance, packet, mtu)

    def _may_be_ours(self, report: Report) -> bool:
        """Whether we could have sent the packet that an error quotes: there is such a softwire."""
        ports = fragment_ports(report.packet)
        port = 0 if ports is None else ports >> Mark.DESTINATION_PORT_BIT & 0xFFFF
        address = IPv4Address(report.packet[16:20])
        binding = punt.bound_to(self._instance, self._table, address, port)
        if binding is None or binding.lwb4 != report.lwb4:
            return False
        return self._instance.br_address_of(binding) == report.br_address

    @property
    def fragmented(self) -> tuple[int, int]:
        """Packets, and their bytes, that were sent in IPv6 fragments."""
        return self.counts["fragmented"], self._fragmented_bytes

    def status(self) -> dict[str, Any]:
        """Counts, ready for JSON."""
        return {"counts": dict(self.counts), "paths": len(self._mtus)}
