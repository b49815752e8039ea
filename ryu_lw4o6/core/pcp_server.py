"""What a PCP server answers, and what changes by it (RFC 6887, RFC 7753).

One lwB4 is one subscriber: all its mappings are ports of one binding, which lives as long as the
last of them. A mapping with PORT_SET is the whole port set, one without it a single port out of
it. The lwAFTR translates nothing, so port N of a binding reaches the lwB4 as port N, whatever the
internal port of the mapping: it is the lwB4's NAPT that makes one of the other (RFC 7596
section 5.2). ``docs/adr/0013`` has the reasons.

``serve`` is a function of its arguments: served again, a request changes nothing more.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from ryu_lw4o6.core import pcp
from ryu_lw4o6.core.binding import Binding, Origin
from ryu_lw4o6.core.pcp import Opcode, Refused, Request, Response, Result
from ryu_lw4o6.core.pool import AddressPool
from ryu_lw4o6.core.settings import Pcp

TCP, UDP = 6, 17
_NEVER_MAPPED = {pcp.CLIENT_PORT, pcp.SERVER_PORT}
"""UDP ports that nobody gets a mapping of (RFC 6887 section 11.3)."""
_FOR_EVER = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Mapping:
    """One mapping of a subscriber: ``size`` ports of its binding from ``external_port`` on.

    ``nonce`` is known to whoever made it, who alone may change it. ``expires_at`` is Unix time.
    """

    protocol: int
    internal_port: int
    nonce: bytes
    external_address: IPv4Address
    external_port: int
    size: int
    expires_at: float

    @property
    def key(self) -> tuple[int, int]:
        """Protocol and internal port: no two mappings of a subscriber share them."""
        return self.protocol, self.internal_port


@dataclass(frozen=True, slots=True)
class Subscriber:
    """An lwB4, its binding, however it came to it, and its mappings."""

    lwb4: IPv6Address
    binding: Binding | None = None
    mappings: tuple[Mapping, ...] = ()

    def at(self, now: float) -> Subscriber:
        """The same, without the mappings that are over, or are of a binding it has no more.

        A binding that PCP made and that is over, but not yet given to somebody else, may be had
        again.
        """
        binding = self.binding
        if binding is None or (binding.origin is not Origin.PCP and _over(binding.expires_at, now)):
            return Subscriber(self.lwb4)
        if not self.mappings:
            return self
        ranges = list(_ranges(binding))
        live = tuple(
            m
            for m in self.mappings
            if m.expires_at > now
            and m.external_address == binding.ipv4
            and any(m.external_port in ports for ports in ranges)
        )
        return replace(self, mappings=live)


@dataclass(frozen=True, slots=True)
class Served:
    """What a request came to: the answer, and what the subscriber has then."""

    response: Response
    after: Subscriber


def check(request: Request, source: IPv4Address) -> None:
    """Raise Refused for what no subscriber may ask. ``source`` is the packet's inner source
    address."""
    if request.client != source:
        raise Refused(Result.ADDRESS_MISMATCH, f"{request.client} asks from {source}")
    mapping, options = request.mapping, request.options
    if options.third_party is not None:
        raise Refused(Result.UNSUPP_OPTION, "on behalf of somebody else")
    if mapping is None or request.lifetime == 0:
        return
    if _port_set(request) is None:
        if mapping.protocol not in (TCP, UDP):
            raise Refused(Result.UNSUPP_PROTOCOL, f"protocol {mapping.protocol}")
        if mapping.internal_port == 0:
            raise Refused(Result.UNSUPP_PROTOCOL, "all ports, and no port set")
    elif mapping.protocol not in (0, TCP, UDP):
        raise Refused(Result.UNSUPP_PROTOCOL, f"protocol {mapping.protocol}")
    if any(each.prefix_length for each in options.filters):
        # Nothing in the way of a packet to the lwB4 could tell one remote peer from another.
        raise Refused(Result.EXCESSIVE_REMOTE_PEERS, "filters belong to the lwB4")


def serve(
    before: Subscriber,
    request: Request,
    br_address: IPv6Address | None,
    terms: Pcp,
    pool: AddressPool,
    now: float,
    epoch: int,
) -> Served:
    """Serve a MAP request that passed ``check``; ``now`` is Unix time in seconds.

    ``br_address`` is the lwAFTR address it was sent to, None for the instance's first. Of the
    pool nothing is taken yet. Raises Refused.
    """
    mapping = request.mapping
    assert request.opcode is Opcode.MAP
    assert mapping is not None
    before = before.at(now)
    if request.lifetime == 0:
        return _delete(before, request, mapping, now, epoch)
    existing = next(
        (m for m in before.mappings if m.key == (mapping.protocol, mapping.internal_port)), None
    )
    if existing is not None and existing.nonce != mapping.nonce:
        left = math.ceil(existing.expires_at - now)
        raise Refused(Result.NOT_AUTHORIZED, "another nonce made this mapping", left)
    if existing is None and len(before.mappings) >= terms.mappings:
        raise Refused(Result.USER_EX_QUOTA, f"{len(before.mappings)} mappings")
    binding = before.binding
    if binding is None:
        binding = _allocate(before.lwb4, mapping, pool, strict=request.options.prefer_failure)
    if binding.br_address != br_address:
        if binding.origin is not Origin.PCP:
            raise Refused(Result.NOT_AUTHORIZED, "the binding has another lwAFTR address")
        binding = replace(binding, br_address=br_address)
    first, size = _ports(before, binding, request, mapping, existing)
    lifetime = min(max(request.lifetime, terms.min_lifetime), terms.max_lifetime)
    if binding.origin is not Origin.PCP:
        if _port_set(request) is not None:
            lifetime = _FOR_EVER  # as static mappings are told (RFC 6887 section 11.3)
        if binding.expires_at is not None:
            lifetime = min(lifetime, math.floor(binding.expires_at - now))
    made = Mapping(
        mapping.protocol,
        mapping.internal_port,
        mapping.nonce,
        binding.ipv4,
        first,
        size,
        now + lifetime,
    )
    after = before
    if binding.origin is Origin.PCP or _port_set(request) is None:
        mappings = (*(m for m in before.mappings if m.key != made.key), made)
        after = _lasting(Subscriber(before.lwb4, binding, mappings))
    return Served(_granted(request, mapping, made, binding.ipv4, lifetime, epoch), after)


def seed_of(lwb4: IPv6Address) -> int:
    """Where in a pool the search for an lwB4 begins. The same at every controller: two that
    serve one lwB4 find the same set, and two that serve different ones seldom do."""
    return zlib.crc32(lwb4.packed) << 32 | zlib.crc32(lwb4.packed[::-1])


def _over(expires_at: float | None, now: float) -> bool:
    return expires_at is not None and expires_at <= now


def _port_set(request: Request) -> pcp.PortSet | None:
    """PORT_SET, unless it is for one port, which is no set (RFC 7753 section 4.3)."""
    port_set = request.options.port_set
    return None if port_set is None or port_set.size == 1 else port_set


def _ranges(binding: Binding) -> Iterator[range]:
    """The ports of a binding, but for port 0, on which nothing can be reached."""
    for ports in binding.params.port_ranges(binding.psid):
        yield range(max(1, ports.start), ports.stop)


def _allocate(
    lwb4: IPv6Address, mapping: pcp.Mapping, pool: AddressPool, *, strict: bool
) -> Binding:
    wanted = mapping.external_address
    ipv4 = wanted if isinstance(wanted, IPv4Address) and wanted != pcp.ANY_IPV4 else None
    if strict and (ipv4 is None and int(wanted) != 0):
        raise Refused(Result.CANNOT_PROVIDE_EXTERNAL, f"{wanted} is not an IPv4 address")
    found = pool.find(seed_of(lwb4), ipv4, mapping.external_port, strict=strict)
    if found is None:
        result = Result.CANNOT_PROVIDE_EXTERNAL if strict else Result.NO_RESOURCES
        raise Refused(result, "no port set is free")
    key, params = found
    return Binding(lwb4, key.ipv4, key.psid, params, origin=Origin.PCP)


def _ports(
    before: Subscriber,
    binding: Binding,
    request: Request,
    mapping: pcp.Mapping,
    existing: Mapping | None,
) -> tuple[int, int]:
    """The first external port of a mapping, and how many there are. Raises Refused."""
    wanted = _port_set(request)
    ranges = list(_ranges(binding))
    if wanted is not None:
        # Port sets of a PSID offset above 0, which others make, are many ranges: this is one.
        first, size = ranges[0].start, min(wanted.size, len(ranges[0]))
    elif existing is not None:
        # A port set stays one, whether its renewal says so or not (RFC 7753 section 4.4.1).
        first, size = existing.external_port, existing.size
    else:
        taken = {
            m.external_port
            for m in before.mappings
            if m.size == 1 and m.protocol == mapping.protocol
        }
        if mapping.protocol == UDP:
            taken |= _NEVER_MAPPED
        found = _free_port(ranges, taken, (mapping.external_port, mapping.internal_port))
        if found is None:
            raise Refused(Result.NO_RESOURCES, "every port of the binding is mapped")
        first, size = found, 1
    if request.options.prefer_failure:
        asked = mapping.external_address
        if (int(asked) != 0 and asked != binding.ipv4) or mapping.external_port != first:
            raise Refused(Result.CANNOT_PROVIDE_EXTERNAL, f"only {binding.ipv4}:{first}")
    return first, size


def _free_port(ranges: list[range], taken: set[int], wishes: tuple[int, ...]) -> int | None:
    """A port that no other mapping has: one of the wishes, or the lowest."""
    for port in wishes:
        if port not in taken and any(port in ports for ports in ranges):
            return port
    return next((port for ports in ranges for port in ports if port not in taken), None)


def _lasting(subscriber: Subscriber) -> Subscriber:
    """With a binding that PCP made lasting as long as its last mapping."""
    binding = subscriber.binding
    if binding is None or binding.origin is not Origin.PCP:
        return subscriber
    if not subscriber.mappings:
        return replace(subscriber, binding=None)
    end = max(m.expires_at for m in subscriber.mappings)
    lasting = replace(binding, expires_at=end)
    return Subscriber(subscriber.lwb4, lasting, subscriber.mappings)


def _granted(
    request: Request,
    asked: pcp.Mapping,
    made: Mapping,
    ipv4: IPv4Address,
    lifetime: int,
    epoch: int,
) -> Response:
    """The options that were heeded are in the response (RFC 6887 section 7.3)."""
    options = request.options
    port_set = None
    if made.size > 1:
        # Nothing is translated on the way, so this is where the set begins inside, too.
        parity = options.port_set is not None and options.port_set.parity
        port_set = pcp.PortSet(made.size, made.external_port, parity)
    return Response(
        Opcode.MAP,
        Result.SUCCESS,
        lifetime,
        epoch,
        replace(asked, external_port=made.external_port, external_address=ipv4),
        replace(options, port_set=port_set),
    )


def _delete(
    before: Subscriber, request: Request, asked: pcp.Mapping, now: float, epoch: int
) -> Served:
    """Lifetime 0 (RFC 6887 section 15.1). Protocol 0 is every protocol, internal port 0 every
    port. What is not there is deleted already."""
    meant = [
        m
        for m in before.mappings
        if asked.protocol in (0, m.protocol) and asked.internal_port in (0, m.internal_port)
    ]
    gone = {m.key for m in meant if m.nonce == asked.nonce}
    if meant and not gone:
        left = math.ceil(max(m.expires_at for m in meant) - now)
        raise Refused(Result.NOT_AUTHORIZED, "another nonce made this mapping", left)
    binding = before.binding
    if (
        binding is not None
        and binding.origin is not Origin.PCP
        and not gone
        and _port_set(request) is not None
    ):
        raise Refused(Result.NOT_AUTHORIZED, f"the binding is {binding.origin}")
    left_over = tuple(m for m in before.mappings if m.key not in gone)
    after = replace(before, mappings=left_over)
    if gone:
        after = _lasting(after)
    response = Response(Opcode.MAP, Result.SUCCESS, 0, epoch, asked, request.options)
    return Served(response, after)
