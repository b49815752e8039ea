"""Fragments to the lwAFTR's own IPv4 address, whose packets the controller reassembles and answers
(RFC 1122 section 3.3.2). Frames in, frames out; no waiting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from openflow_rules.encode import PipelineFields
from openflow_rules.marks import own_echo_frames
from openflow_rules.tables import Table
from ryu_lw4o6 import punt
from ryu_lw4o6.core import icmp, ipv4
from ryu_lw4o6.core.fragments import Piece, Waiting, joined
from ryu_lw4o6.core.settings import Instance
from ryu_lw4o6.slow_path import (
    MOST_BYTES,
    MOST_PACKETS,
    REASSEMBLY_SECONDS,
    Injection,
    fragment_key,
)

_ICMP = 1


class OwnFragments:
    """``tell`` is given ICMPv4 errors to send."""

    def __init__(self, instance: Instance, tell: Callable[[bytes], None]) -> None:
        self._instance = instance
        self._tell = tell
        self.packets: Counter[str] = Counter()
        self.waiting = Waiting(REASSEMBLY_SECONDS, MOST_PACKETS, MOST_BYTES, self._timed_out)

    def add(self, known: PipelineFields, frame: bytes, now: float) -> list[Injection]:
        """A fragment; the answer if it makes an echo request whole."""
        packet = icmp.ipv4_packet(frame)
        if packet is None:
            self.packets["dropped_malformed"] += 1
            return []
        key = fragment_key(known, packet)
        field, length = ipv4.fragment_field(packet), ipv4.header_length(packet)
        offset, more = (field & ipv4.OFFSET) * 8, bool(field & ipv4.MF)
        piece = Piece(offset, more, packet[length:], packet[:length])
        if not self.waiting.add(key, piece, now):
            return []
        pieces = self.waiting.take(key)
        whole = ipv4.reassembled(pieces[0].frame, joined(pieces))
        if whole is None:
            self.packets["dropped_malformed"] += 1
            return []
        return self._answer(whole)

    def expire(self, now: float) -> None:
        self.waiting.expire(now)

    def _answer(self, whole: bytes) -> list[Injection]:
        # The way out takes one hop off.
        reply = icmp.echo_reply(whole, icmp.HOP_LIMIT + 1)
        if reply is not None:
            self.packets["echo_answered"] += 1
            to_lwb4 = punt.goes_to_lwb4(self._instance, reply)
            mtu = self._instance.softwire_mtu if to_lwb4 else self._instance.ipv4.mtu
            frames = own_echo_frames(ipv4.in_fragments(reply, mtu))
            return [Injection(frame, Table.UPSTREAM_ROUTE) for frame in frames]
        self.packets["refused"] += 1
        if whole[9] != _ICMP and self._may_tell(whole):
            self._tell(punt.nobody_here(self._instance, whole))
        return []

    def _timed_out(self, first: Piece) -> None:
        packet = first.frame + first.data
        if self._may_tell(packet):
            error = icmp.TIME_EXCEEDED, icmp.REASSEMBLY_TIME_EXCEEDED
            self._tell(punt.ipv4_error(self._instance, packet, *error))

    def _may_tell(self, packet: bytes) -> bool:
        return self._instance.icmp.to_lwaftr and punt.may_answer(self._instance, packet)

    @property
    def dropped(self) -> tuple[int, int]:
        """Fragments, and the bytes in them."""
        return self.waiting.dropped.total(), self.waiting.dropped_bytes

    def status(self) -> dict[str, Any]:
        """Counts, ready for JSON."""
        return {
            "packets": dict(self.packets),
            "waiting": len(self.waiting),
            "dropped": dict(self.waiting.dropped),
        }
