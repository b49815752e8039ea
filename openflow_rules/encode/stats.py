"""Flows read back from a switch: their match and instructions stay bytes, to be compared."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from ryu.ofproto import ofproto_v1_3 as ofp

from openflow_rules.compiler.forward import to_next_hop
from openflow_rules.compiler.parts import Ports
from openflow_rules.encode.flows import (
    ANY,
    canonical,
    canonical_flow,
    flow_mod,
    multipart_request,
)
from ryu_lw4o6.core.settings import Instance

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
        return flow_mod(ofp.OFPFC_DELETE_STRICT, self.table, self.priority, self.cookie, self.match)


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
    body = struct.pack("!B3xII4xQQ", table, ofp.OFPP_ANY, ofp.OFPG_ANY, cookie, cookie_mask)
    return multipart_request(ofp.OFPMP_FLOW, xid, body + ANY)


_TABLE_STATS = struct.Struct("!B3xI16x")


def table_stats_request(xid: int) -> bytes:
    """Ask how many flows each table has."""
    return multipart_request(ofp.OFPMP_TABLE, xid)


def table_stats_entries(message: bytes) -> Iterator[tuple[int, int]]:
    """Tables and how many flows they have, in one OFPT_MULTIPART_REPLY message of type table."""
    whole = (len(message) - 16) // _TABLE_STATS.size * _TABLE_STATS.size
    yield from _TABLE_STATS.iter_unpack(message[16 : 16 + whole])


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
