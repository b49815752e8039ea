"""Is this ICMPv6 error what the lwAFTR says to an lwB4 that it has no binding for? Or is it forged,
stale, or played again?

The lwAFTR answers with destination unreachable, source address failed ingress/egress policy (type
1 code 5; RFC 7596 section 6.2, RFC 4443 section 3.1). Anybody can send such an error, under any
address where networks do not filter. What a forger who is not on the path cannot do is quote a
packet that the lwB4 has sent a moment ago: address, port, peer and peer's port at once.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from ryu_lw4o6.core.ethernet import checksum
from topo.lwb4.lease import Lease

_ICMP, _TCP, _UDP, _IPIP, _OPTIONS = 1, 6, 17, 4, 60
_ECHO = (0, 8)


class Verdict(enum.StrEnum):
    """What an ICMPv6 error was taken for. All but the first mean that nothing is done about it;
    each has a counter."""

    ACCEPTED = "accepted"
    OTHER_ERROR = "other_error"  # not type 1 code 5
    WRONG_SOURCE = "wrong_source"  # not from the lwAFTR
    MALFORMED = "malformed"  # quotes no whole headers of an IPv4-in-IPv6 packet
    WRONG_SOFTWIRE = "wrong_softwire"  # quotes a packet between other tunnel ends
    WRONG_ADDRESS = "wrong_address"  # quotes a packet that is not from the public address
    WRONG_PORT = "wrong_port"  # quotes a packet that is not from a port of the set
    NO_LEASE = "no_lease"  # there is no lease: provisioning is under way anyway
    HELD_DOWN = "held_down"  # provisioning was restarted a moment ago
    STALE = "stale"  # quotes a packet of a flow that has not sent any lately
    REPLAYED = "replayed"  # is about the very packet of an error before
    RATE_LIMITED = "rate_limited"  # there are too many to look each of them up


class Flow(NamedTuple):
    """Who a quoted IPv4 packet was from and to. ICMP echo has its identifier for ``port``, and no
    peer's port."""

    ipv4: IPv4Address
    protocol: int
    port: int
    peer: IPv4Address
    peer_port: int = 0


class _Bad(Exception):
    """A quote that is not acceptable; its argument is the verdict."""


def quoted(
    message: bytes, source: IPv6Address, lwb4: IPv6Address, aftr: IPv6Address, lease: Lease
) -> Flow | Verdict:
    """The flow of the packet that an ICMPv6 error is about, or why the error is not acceptable.

    ``message`` is the ICMPv6 message without the IPv6 header; its checksum the kernel has checked
    (RFC 3542 section 3.1). ``lwb4`` and ``aftr`` are the ends of the softwire.
    """
    if message[:2] != b"\x01\x05":
        return Verdict.OTHER_ERROR
    if source != aftr:
        return Verdict.WRONG_SOURCE
    try:
        return _flow(_inner(message[8:], lwb4, aftr), lease)
    except _Bad as bad:
        verdict: Verdict = bad.args[0]
        return verdict


def _inner(packet: bytes, lwb4: IPv6Address, aftr: IPv6Address) -> bytes:
    """The IPv4 packet inside a quoted softwire packet, as far as it is quoted."""
    if len(packet) < 40 or packet[0] >> 4 != 6:
        raise _Bad(Verdict.MALFORMED)
    if packet[8:24] != lwb4.packed or packet[24:40] != aftr.packed:
        raise _Bad(Verdict.WRONG_SOFTWIRE)
    following, at = packet[6], 40
    if following == _OPTIONS and len(packet) >= 48:  # the tunnel encapsulation limit (RFC 2473 4.1)
        following, at = packet[40], 48 + packet[41] * 8
    if following != _IPIP:
        raise _Bad(Verdict.MALFORMED)
    return packet[at:]


def _flow(packet: bytes, lease: Lease) -> Flow:
    header = (packet[0] & 0xF) * 4 if packet else 0
    if header < 20 or packet[0] >> 4 != 4 or len(packet) < header + 8:
        raise _Bad(Verdict.MALFORMED)
    if checksum(packet[:header]) != 0:
        raise _Bad(Verdict.MALFORMED)
    if packet[12:16] != lease.ipv4.packed:
        raise _Bad(Verdict.WRONG_ADDRESS)
    protocol, peer = packet[9], IPv4Address(packet[16:20])
    if protocol in (_TCP, _UDP):
        port, peer_port = struct.unpack_from("!HH", packet, header)
    elif protocol == _ICMP and packet[header] in _ECHO:
        (port,), peer_port = struct.unpack_from("!H", packet, header + 4), 0
    else:
        raise _Bad(Verdict.MALFORMED)
    if not lease.owns(port):
        raise _Bad(Verdict.WRONG_PORT)
    return Flow(lease.ipv4, protocol, port, peer, peer_port)


HOLD_DOWN = 1.0
MAX_HOLD_DOWN = 64.0
"""Seconds. Each restart that comes right after the hold-down of the one before doubles it: an
lwAFTR that grants addresses and then refuses their packets is not asked every second for ever."""

REMEMBERED = 1024
FORGOTTEN = 60.0
"""How many quotes are remembered, and for how many seconds, so that an error that is played again
does nothing. Not for ever: a packet may be sent twice, the same to the byte."""

LOOK_UP_INTERVAL = 0.05
"""Seconds between two questions to the kernel whether a flow has sent a packet lately."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What is known of earlier errors; times are seconds of a clock that never goes back.

    ``seen`` has digests of the packets that earlier errors were about, oldest first, and when.
    """

    hold_down: float = HOLD_DOWN
    restarted: float | None = None
    held_for: float = 0.0
    looked_up: float | None = None
    seen: tuple[tuple[bytes, float], ...] = ()

    def judge(
        self, flow: Flow, message: bytes, recently_sent: Callable[[Flow], bool], now: float
    ) -> tuple[Guard, Verdict]:
        """Whether an error is to restart provisioning; ``flow`` is what ``quoted`` found in it.

        ``recently_sent`` says whether a flow has sent a packet lately; it is asked only about
        errors that are acceptable so far.
        """
        digest = blake2b(message[8:], digest_size=16).digest()
        seen = tuple(entry for entry in self.seen if entry[1] > now - FORGOTTEN)
        if any(known == digest for known, _ in seen):
            return replace(self, seen=seen), Verdict.REPLAYED
        remembered = (*seen, (digest, now))[-REMEMBERED:]
        if self.restarted is not None and now < self.restarted + self.held_for:
            return replace(self, seen=remembered), Verdict.HELD_DOWN
        if self.looked_up is not None and now < self.looked_up + LOOK_UP_INTERVAL:
            return self, Verdict.RATE_LIMITED
        if not recently_sent(flow):
            return replace(self, looked_up=now), Verdict.STALE
        return (
            Guard(self.hold_down, now, self._next_hold(now), now, remembered),
            Verdict.ACCEPTED,
        )

    def _next_hold(self, now: float) -> float:
        # A while without errors: the last restart has helped, and this is another failover.
        if self.restarted is None or now > self.restarted + self.held_for + self.hold_down:
            return self.hold_down
        return min(self.held_for * 2, max(MAX_HOLD_DOWN, self.hold_down))
