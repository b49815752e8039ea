"""What the PCP server makes of any bytes, and of any sequence of requests.

Both functions take bytes from Hypothesis (test_pcp.py) or from atheris, and raise when something is
wrong.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from ryu_lw4o6.core import pcp, pcp_server, udp
from ryu_lw4o6.core.binding import Prefix
from ryu_lw4o6.core.ethernet import checksum
from ryu_lw4o6.core.pcp import Ignored, Mapping, Opcode, Options, PortSet, Refused, Request, Result
from ryu_lw4o6.core.pcp_server import Subscriber
from ryu_lw4o6.core.pool import AddressPool, AddressRange
from ryu_lw4o6.core.portset import FULL_ADDRESS, PortParams
from ryu_lw4o6.core.settings import Pcp

B4 = IPv4Address("192.0.0.2")
SHARED = Prefix(IPv4Network("192.0.2.0/30"), PortParams(0, 6))
WHOLE = Prefix(IPv4Network("203.0.113.0/30"), FULL_ADDRESS)
TERMS = Pcp(
    tuple(AddressRange(each.network[0], each.network[-1], each) for each in (SHARED, WHOLE)),
    mappings=4,
)
MOST_STEPS = 30
"""In a sequence: another sequence finds more than more steps do."""
TEMPLATE = Request(
    Opcode.MAP, B4, 3600, Mapping(bytes(12), 17, 4096), Options(port_set=PortSet(1024, 4096))
).encode()
SEEDS = [
    TEMPLATE,
    TEMPLATE[:60],
    Request(Opcode.ANNOUNCE, B4).encode(),
    pcp.announcement(7),
    udp.Datagram(B4, IPv4Address("192.0.0.1"), 40000, pcp.SERVER_PORT, TEMPLATE).encode(),
]


def message_is_read(data: bytes) -> None:
    """Any bytes as request, as response and as IPv4 packet."""
    result = None
    try:
        request = pcp.parse_request(data)
        assert pcp.parse_request(request.encode()) == request
    except Ignored:
        assert len(data) < 24 or data[1] & 0x80
    except Refused as refused:
        result = refused.result
    if result is not None:
        answer = pcp.error_response(data, result, 1)
        assert len(answer) % 4 == 0
        assert 24 <= len(answer) <= pcp.MAX_LENGTH
        assert pcp.parse_response(answer).result is result
    try:
        response = pcp.parse_response(data)
    except ValueError:
        pass
    else:
        assert pcp.parse_response(response.encode()) == response
    datagram = udp.parse(data)
    if datagram is not None:
        packet = datagram.encode()
        assert udp.parse(packet) == datagram
        assert checksum(packet[:20]) == 0


def requests_are_served(data: bytes) -> None:
    """``data`` is a sequence of steps: an lwB4, a time to pass, a length, and what differs from a
    request for a port set. No port is anybody else's, and a replay changes nothing."""
    pool = AddressPool(TERMS.pool, system_ports=TERMS.system_ports)
    subscribers: dict[IPv6Address, Subscriber] = {}
    now, at = 1e9, 0
    for _ in range(MOST_STEPS):
        if at + 3 > len(data):
            break
        lwb4 = IPv6Address((0x20010DB8 << 96) + data[at] % 8)
        now += data[at + 1] * 8
        length = data[at + 2] % 100
        message = _differing(data[at + 3 : at + 3 + length])
        at += 3 + length
        try:
            request = pcp.parse_request(message)
            pcp_server.check(request, B4)
        except (Ignored, Refused):
            continue
        if request.opcode is Opcode.MAP:
            _serve(subscribers, lwb4, request, pool, now)
    _check(subscribers.values(), pool)


def _differing(change: bytes) -> bytes:
    """The request that differs from the template in these bits, from its end to its beginning."""
    size = max(len(TEMPLATE), len(change))
    template = int.from_bytes(TEMPLATE.ljust(size, b"\0"), "big")
    return (template ^ int.from_bytes(change, "big")).to_bytes(size, "big")


def _serve(
    subscribers: dict[IPv6Address, Subscriber],
    lwb4: IPv6Address,
    request: Request,
    pool: AddressPool,
    now: float,
) -> None:
    before = subscribers.get(lwb4, Subscriber(lwb4))
    try:
        served = pcp_server.serve(before, request, None, TERMS, pool, now, 1)
    except Refused:
        return
    assert pcp.parse_response(served.response.encode()).result is Result.SUCCESS
    if before.binding is not None:
        pool.mark(before.binding.key, False)
    if served.after.binding is not None:
        pool.mark(served.after.binding.key, True)
    subscribers[lwb4] = served.after
    assert pcp_server.serve(served.after, request, None, TERMS, pool, now, 1) == served


def _check(subscribers: Collection[Subscriber], pool: AddressPool) -> None:
    """Once for each sequence, which is enough: what begins a sequence is one, too."""
    bound = [s.binding for s in subscribers if s.binding is not None]
    assert len({binding.key for binding in bound}) == len(bound) == pool.used
    for subscriber in subscribers:
        assert len(subscriber.mappings) <= TERMS.mappings
        for mapping in subscriber.mappings:
            assert subscriber.binding is not None
            assert mapping.external_address == subscriber.binding.ipv4
            ports = next(subscriber.binding.params.port_ranges(subscriber.binding.psid))
            assert 0 < mapping.external_port in ports
            assert mapping.external_port + mapping.size <= ports.stop
