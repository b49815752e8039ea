"""Fragments that wait for others of their packet: bounded in number, bytes and time.

Pure: time is an argument, in seconds of a clock that never goes back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

LONGEST = 65535
"""What a packet may come to, in bytes (RFC 791 section 3.1, RFC 8200 section 4.5)."""
MOST_PIECES = 64
"""Fragments of one packet: enough for the longest at an MTU of 1280."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A fragment: ``offset`` in bytes, whether there is ``more``, and its ``data``. ``frame`` is
    what is to be sent on, if that is not the data."""

    offset: int
    more: bool
    data: bytes
    frame: bytes = b""

    @property
    def end(self) -> int:
        return self.offset + len(self.data)

    @property
    def sound(self) -> bool:
        """All but the last are a multiple of 8 bytes long, and none is empty."""
        if not self.data or self.end > LONGEST:
            return False
        return not (self.more and len(self.data) % 8)


@dataclass(slots=True)
class _Packet:
    """``pieces`` do not overlap. None is what has overlapped: what follows is dropped, too."""

    since: float
    pieces: dict[int, Piece] | None = field(default_factory=dict)
    size: int = 0

    def accepts(self, new: Piece) -> bool:
        """Whether a piece that is not there yet agrees with those that are."""
        assert self.pieces is not None
        if len(self.pieces) >= MOST_PIECES:
            return False
        for piece in self.pieces.values():
            if new.offset < piece.end and piece.offset < new.end:
                return False
            last, other = (piece, new) if not piece.more else (new, piece)
            if not last.more and (not other.more or other.end > last.offset):
                return False
        return True

    @property
    def complete(self) -> bool:
        assert self.pieces is not None
        at = 0
        for offset in sorted(self.pieces):
            if offset != at:
                return False
            at = self.pieces[offset].end
            if not self.pieces[offset].more:
                return True
        return False


class Waiting:
    """``dropped`` counts fragments by reason, ``dropped_bytes`` what is in them. ``late`` is given
    the first fragments of packets whose others have not come in time."""

    def __init__(
        self, seconds: float, most_packets: int, most_bytes: int,
        late: Callable[[Piece], None] | None = None,
    ) -> None:  # fmt: skip
        self.dropped: Counter[str] = Counter()
        self.dropped_bytes = 0
        self.bytes = 0
        self._seconds = seconds
        self._most_packets = most_packets
        self._most_bytes = most_bytes
        self._late = late
        self._packets: dict[Hashable, _Packet] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._packets)

    def add(self, key: Hashable, piece: Piece, now: float) -> bool:
        """Let a fragment wait for the others of its packet; True if it was the last to come."""
        self.expire(now)
        if not piece.sound:
            return self._lost("malformed", piece)
        packet = self._packets.get(key)
        if packet is None:
            packet = self._packets[key] = _Packet(now)
        if packet.pieces is None:
            return self._lost("overlapping", piece)
        if (same := packet.pieces.get(piece.offset)) and same.data == piece.data:
            return self._lost("duplicate", piece)
        if not packet.accepts(piece):
            # All of it goes (RFC 5722 section 4): nobody can say which piece is the right one.
            self._lost("overlapping", piece, *packet.pieces.values())
            self.bytes -= packet.size
            packet.pieces, packet.size = None, 0
            return False
        packet.pieces[piece.offset] = piece
        packet.size += len(piece.data) + len(piece.frame)
        self.bytes += len(piece.data) + len(piece.frame)
        complete = packet.complete
        self._make_room()
        return complete and key in self._packets

    def take(self, key: Hashable) -> list[Piece]:
        """The fragments of a packet, in order; they wait no longer."""
        packet = self._packets.get(key)
        if packet is None or packet.pieces is None:
            return []
        del self._packets[key]
        self.bytes -= packet.size
        return [packet.pieces[offset] for offset in sorted(packet.pieces)]

    def expire(self, now: float) -> None:
        """Drop what has waited too long."""
        while self._packets:
            key = next(iter(self._packets))
            packet = self._packets[key]
            if packet.since > now - self._seconds:
                return
            if self._late is not None and packet.pieces and 0 in packet.pieces:
                self._late(packet.pieces[0])
            self._drop(key, "timeout")

    def _make_room(self) -> None:
        """The oldest go first."""
        while len(self._packets) > self._most_packets or self.bytes > self._most_bytes:
            self._drop(next(iter(self._packets)), "overload")

    def _drop(self, key: Hashable, reason: str) -> None:
        packet = self._packets.pop(key)
        self._lost(reason, *(packet.pieces or {}).values())
        self.bytes -= packet.size

    def _lost(self, reason: str, *pieces: Piece) -> bool:
        self.dropped[reason] += len(pieces)
        self.dropped_bytes += sum(len(piece.data) for piece in pieces)
        return False


def joined(pieces: list[Piece]) -> bytes:
    """The packet that a complete list of fragments makes."""
    return b"".join(piece.data for piece in pieces)
