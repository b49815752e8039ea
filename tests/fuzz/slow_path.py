"""Sequences of frames for what the controller does about fragments and extension headers: it raises
nothing, forgets in time, and lets nothing out that is no sound IPv4 packet."""

from __future__ import annotations

from ipaddress import IPv6Address

from openflow_rules.encode import PipelineFields
from openflow_rules.tables import Table
from ryu_lw4o6.core import ipv4
from ryu_lw4o6.core.ethernet import checksum
from ryu_lw4o6.slow_path import MOST_BYTES, MOST_PACKETS, Injection, SlowPath
from tests.fuzz.punt import ANYCAST, INSTANCE, LWB4

OTHER = IPv6Address("2001:db8:b4::2")
IPV4_FRAME = bytes(12) + b"\x08\x00"
IPV6_FRAME = bytes(12) + b"\x86\xdd"
FROM_INTERNET = PipelineFields(None, None, 0)
FROM_LWB4 = PipelineFields(LWB4.packed, ANYCAST.packed, 0)


def any_sequence(data: bytes) -> None:
    """``data`` is a list of steps: what comes, how much later, how long it is, and its bytes."""
    told: list[bytes] = []
    path = SlowPath(INSTANCE, lambda packet, _: told.append(packet))
    now = 0.0
    while len(data) >= 3:
        what, later, length = data[:3]
        body, data = data[3 : 3 + length], data[3 + length :]
        now += later if later > 200 else later / 100
        for injection in step(path, what, body, now):
            check(injection)
        for waiting in (path.held, path.reassembly):
            assert len(waiting) <= MOST_PACKETS
            assert 0 <= waiting.bytes <= MOST_BYTES
        path.status()
    for waiting in (path.held, path.reassembly):
        waiting.expire(now + 3600)
        assert (len(waiting), waiting.bytes) == (0, 0)
    for packet in told:
        assert packet[6] & 0x40  # DF


def step(path: SlowPath, what: int, body: bytes, now: float) -> list[Injection]:
    known = FROM_LWB4 if what & 1 else FROM_INTERNET
    kind = what >> 1 & 3
    if kind == 0:
        return path.later(known, IPV4_FRAME + ipv4_packet(what, body), now)
    if kind == 1:
        return path.first(known, IPV4_FRAME + ipv4_packet(what, body), now)
    if what & 0x80:
        return path.softwire(IPV6_FRAME + body, now)
    source = LWB4 if what & 1 else OTHER
    next_header = (4, 44, 60, 0, 43, 47, 4, 44)[what >> 4 & 7]
    if next_header == 4:
        body = ipv4_packet(what, body)
    header = b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes([next_header, 63])
    return path.softwire(IPV6_FRAME + header + source.packed + ANYCAST.packed + body, now)


def ipv4_packet(what: int, body: bytes) -> bytes:
    """``body`` itself, or behind a header that adds up."""
    if what & 8:
        return body
    field, payload = body[:2].ljust(2, b"\0"), body[2:]
    header = b"\x45\0" + (20 + len(payload)).to_bytes(2, "big") + b"\0\x07" + field
    header += bytes([64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 200])
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + payload


def check(injection: Injection) -> None:
    """What goes to the pipeline is one IPv4 packet, in a frame as the shim would have made it; what
    the kernel is to answer goes there as it came."""
    if injection.table is None:
        assert injection.frame[12:14] == IPV6_FRAME[12:14]
        return
    assert injection.table in {
        Table.CLASSIFY, Table.UPSTREAM_PORT_SET, Table.DOWNSTREAM_PORT_SET,
    }  # fmt: skip
    frame = injection.frame
    assert frame[12:14] == b"\x08\x00"
    packet = frame[14:]
    assert packet[0] >> 4 == 4
    if injection.table is Table.CLASSIFY:  # taken out of a softwire here
        assert ipv4.is_sound(packet)
        assert len(packet) <= INSTANCE.ipv4.mtu
        assert injection.tunnel is not None
        assert injection.tunnel[1] == ANYCAST.packed
