"""What has passed, and what became of it: counters of the switch, the shim and the controller.

Of the switch's, each is the sum over the flows with one cookie. Bytes are those of what is in an
Ethernet frame: IPv4 packets, as they came in.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from openflow_rules.encode import FlowStats, MeterStats
from openflow_rules.tables import (
    CLASS_MASK,
    FILTER_TABLES,
    OVER_PATH_MTU,
    PUNT_MEANING,
    CookieClass,
    Count,
    Drop,
    Punt,
    Table,
    binding_cookie,
    cookie,
)
from ryu_lw4o6.core.binding import BindingKey
from ryu_lw4o6.core.settings import IPV6_HEADER, Instance
from ryu_lw4o6.core.times import rfc3339
from ryu_lw4o6.dialogue import SessionError
from ryu_lw4o6.session import Session, State

_ETHERNET = 14
_WHOLE_COOKIE = 0xFFFF_FFFF_FFFF_FFFF

FROM_LWB4 = frozenset(
    {
        Drop.UPSTREAM_NOT_SERVED,
        Drop.UPSTREAM_NO_BINDING,
        Drop.UPSTREAM_EXCLUDED_PORT,
        Drop.UPSTREAM_PROTOCOL,
        Drop.UPSTREAM_ICMP,
        Drop.UPSTREAM_TTL_EXPIRED,
        Drop.HAIRPIN_DISABLED,
        Drop.NEXT_HOP_UNRESOLVED,
    }
)
"""Reasons to drop what came out of a softwire, before it can turn around to another lwB4."""

TO_LWB4 = frozenset(
    {
        Drop.DOWNSTREAM_NOT_SERVED,
        Drop.DOWNSTREAM_NO_BINDING,
        Drop.DOWNSTREAM_EXCLUDED_PORT,
        Drop.DOWNSTREAM_PROTOCOL,
        Drop.DOWNSTREAM_ICMP,
        Drop.DOWNSTREAM_TTL_EXPIRED,
        Drop.DOWNSTREAM_TOO_BIG,
        Drop.INBOUND_ICMP_DISABLED,
        Drop.TO_LWAFTR,
    }
)
"""Reasons to drop what came from the Internet, or from another lwB4."""

NOT_TUNNELLED = frozenset(
    {
        Drop.UNCLASSIFIED,
        Drop.NOT_FOR_US,
        Drop.SOFTWIRE_NOT_IPV4,
        Drop.TAGGED,
        Drop.ND_FROM_AFAR,
        Drop.ARP_IGNORED,
    }
)
"""Reasons to drop what is neither."""


@dataclass(slots=True)
class IcmpSent:
    """ICMP errors of the lwAFTR's own, by kind: ``icmpv4`` or ``icmpv6``. ``withheld`` are those
    that a rate limit did not let out."""

    packets: Counter[str] = field(default_factory=Counter)
    octets: Counter[str] = field(default_factory=Counter)
    withheld: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, packet: bytes) -> None:
        self.packets[kind] += 1
        self.octets[kind] += len(packet)

    def with_shim(self, shim: Mapping[str, int] | None) -> IcmpSent:
        """Those of the controller and the ICMPv6 errors of the shim (docs/adr/0022)."""
        if shim is None:
            return self
        return IcmpSent(
            self.packets + Counter(icmpv6=shim["answered"]),
            self.octets + Counter(icmpv6=shim["answered_bytes"]),
            self.withheld + Counter(icmpv6=shim["answered_lately"]),
        )


@dataclass(frozen=True, slots=True)
class Total:
    packets: int = 0
    bytes: int = 0

    def __add__(self, other: Total) -> Total:
        return Total(self.packets + other.packets, self.bytes + other.bytes)

    def __sub__(self, other: Total) -> Total:
        """None of both is ever below zero: Open vSwitch brings flows' counters up to date every
        half a second, and meters' at once."""
        return Total(max(0, self.packets - other.packets), max(0, self.bytes - other.bytes))

    def json(self) -> dict[str, int]:
        return {"packets": self.packets, "bytes": self.bytes}


@dataclass(frozen=True, slots=True)
class Fragments:
    """What became of fragments in the controller: IPv4 ones that were ``dropped``, and IPv6 ones
    that were ``reassembled`` to softwire packets. ``sent`` are the packets for softwires that it
    has put into fragments, because of a smaller path MTU."""

    dropped: Total = Total()
    reassembled: Total = Total()
    sent: Total = Total()


class Totals:
    """The counters of one switch at one moment; ``since`` is when they began at 0."""

    def __init__(self) -> None:
        self.count: dict[int, Total] = dict.fromkeys(Count, Total())
        self.drop: dict[int, Total] = dict.fromkeys(Drop, Total())
        self.filters: dict[str, Total] = {}
        self.denied: dict[int, Total] = {}  # by table
        self.meters: dict[int, MeterStats] = {}
        self.since = time.time()

    def take(self, flow: FlowStats) -> None:
        number = flow.cookie & 0xFFFF
        if flow.cookie >> 56 == CookieClass.COUNT and number in self.count:
            self.count[number] += _total(flow)
        elif flow.cookie >> 56 == CookieClass.DROP and number in self.drop:
            self.drop[number] += _total(flow)
        elif flow.cookie >> 56 == CookieClass.FILTER and (name := filter_name(flow.cookie)):
            self.filters[name] = self.filters.get(name, Total()) + _total(flow)
            if not flow.instructions:
                self.denied[flow.table] = self.denied.get(flow.table, Total()) + _total(flow)
        self.since = min(self.since, time.time() - flow.seconds)

    @property
    def over_path_mtu(self) -> Total:
        """What is larger than the way to its lwB4 takes, and shown to the controller."""
        return self._metered(Punt.PATH_MTU) - self.withheld(Punt.PATH_MTU)

    @property
    def to_softwire(self) -> Total:
        """Open vSwitch credits the flow with packets that it could have sent this way."""
        return self.count[Count.TO_SOFTWIRE] - self._metered(Punt.PATH_MTU)

    def withheld(self, punt: Punt) -> Total:
        """What a meter did not let pass."""
        meter = self.meters.get(punt, MeterStats())
        return Total(meter.withheld, meter.withheld_bytes - meter.withheld * _ETHERNET)

    def _metered(self, punt: Punt) -> Total:
        meter = self.meters.get(punt, MeterStats())
        return Total(meter.packets, meter.bytes - meter.packets * _ETHERNET)

    def dropped(self, reasons: Iterable[Drop]) -> Total:
        return sum((self.drop[reason] for reason in reasons), Total())

    def dropped_from_lwb4(self) -> Total:
        """What is dropped, or denied by a filter rule, before it can turn around."""
        return self.dropped(FROM_LWB4) + self._denied(
            Table.FILTER_FROM_SOFTWIRE, Table.FILTER_TO_INTERNET
        )

    def dropped_to_lwb4(self) -> Total:
        """The same of what came from the Internet, or from another lwB4."""
        return self.dropped(TO_LWB4) + self._denied(
            Table.FILTER_FROM_INTERNET, Table.FILTER_TO_SOFTWIRE
        )

    def _denied(self, *tables: Table) -> Total:
        return sum((self.denied.get(table, Total()) for table in tables), Total())

    def json(self) -> dict[str, dict[str, int]]:
        counted = {name.name.lower(): self.count[name] for name in Count}
        counted["to_softwire"] = self.to_softwire
        counted[OVER_PATH_MTU] = self.over_path_mtu
        counted |= {f"drop_{name.name.lower()}": self.drop[name] for name in Drop}
        counted |= {f"withheld_{p.name.lower()}": self.withheld(p) for p in PUNT_MEANING}
        counted |= self.filters
        return {name: total.json() for name, total in counted.items()}


def filter_name(flow_cookie: int) -> str | None:
    """How the counter of a filter rule is called: ``filter_ipv4_in_1``."""
    table, number = flow_cookie >> 16 & 0xFFFF, flow_cookie & 0xFFFF
    for (side, direction), (its_table, _) in FILTER_TABLES.items():
        if its_table == table:
            return f"filter_ipv{side}_{direction}_{number + 1}"
    return None


def read(session: Session) -> Totals:
    """The switch's counters now. Raises SessionError if the switch does not answer."""
    totals = Totals()
    for kind in (CookieClass.COUNT, CookieClass.DROP, CookieClass.FILTER):
        session.dump(totals.take, cookie=cookie(kind), cookie_mask=CLASS_MASK)
    totals.meters = session.read_meters()
    return totals


def traffic_stat(totals: Totals, icmp: IcmpSent, fragments: Fragments) -> dict[str, int | str]:
    """The leaves of ``traffic-stat`` in the YANG module ietf-softwire-br (RFC 8676 section 6).

    Packets from one lwB4 to another that are dropped on their way down count as dropped IPv4.
    """
    received6, sent6 = totals.count[Count.FROM_SOFTWIRE], totals.to_softwire + fragments.sent
    too_large = totals.over_path_mtu + totals.withheld(Punt.PATH_MTU) - fragments.sent
    lost = totals.withheld(Punt.FRAGMENT) + totals.withheld(Punt.FRAGMENT_TO_LWAFTR)
    pairs = {
        "sent-ipv4-{}": totals.count[Count.TO_INTERNET],
        "sent-ipv6-{}": _tunnelled(sent6),
        "rcvd-ipv4-{}": totals.count[Count.FROM_INTERNET],
        "rcvd-ipv6-{}": _tunnelled(received6),
        "dropped-ipv4-{}": totals.dropped_to_lwb4() + too_large,
        "dropped-ipv6-{}": _tunnelled(totals.dropped_from_lwb4()),
        "out-icmpv4-error-{}": Total(icmp.packets["icmpv4"], icmp.octets["icmpv4"]),
        "out-icmpv6-error-{}": Total(icmp.packets["icmpv6"], icmp.octets["icmpv6"]),
        "dropped-icmpv4-{}": totals.drop[Drop.INBOUND_ICMP_DISABLED],
        "hairpin-ipv4-{}": totals.count[Count.HAIRPINNED],
    }
    leaves: dict[str, int | str] = {"discontinuity-time": rfc3339(totals.since)}
    for name, total in pairs.items():
        leaves[name.format("packets")] = total.packets
        leaves[name.format("bytes")] = total.bytes
    leaves["dropped-ipv4-fragments"] = fragments.dropped.packets + lost.packets
    leaves["dropped-ipv4-fragment-bytes"] = fragments.dropped.bytes + lost.bytes
    leaves["ipv6-fragments-reassembled"] = fragments.reassembled.packets
    leaves["ipv6-fragments-bytes-reassembled"] = fragments.reassembled.bytes
    return leaves


def instance_json(
    instance: Instance,
    session: Session | None,
    icmp: IcmpSent,
    fragments: Fragments,
    shim: Callable[[], dict[str, int] | None],
) -> dict[str, Any]:
    """All counters of an instance, ready for JSON; ``icmp`` are those of the controller alone.
    Raises TimeoutError if the switch does not answer."""
    answer: dict[str, Any] = {
        "instance": instance.name,
        "connected": session is not None,
        "counters": {},
        "traffic-stat": None,
        "shim": None,
        "icmp_errors_withheld": {kind: icmp.withheld[kind] for kind in ("icmpv4", "icmpv6")},
    }
    if session is not None and session.state is State.READY:
        with _answering(instance):
            totals = read(session)
        found = shim()
        all_sent = icmp.with_shim(found)
        answer |= {
            "counters": totals.json(),
            "traffic-stat": traffic_stat(totals, all_sent, fragments),
            "shim": found,
        }
        withheld = all_sent.withheld["icmpv6"] + totals.count[Count.QUIET_LWB4].packets
        if instance.failover.needs_no_question:
            withheld += totals.withheld(Punt.UNKNOWN_LWB4).packets
        answer["icmp_errors_withheld"]["icmpv6"] = withheld
    return answer


def binding_json(
    instance: Instance, session: Session, key: BindingKey
) -> dict[str, dict[str, int]]:
    """What has passed a binding's flows, each way. Raises TimeoutError if the switch does not
    answer."""
    found = dict.fromkeys(("upstream", "downstream"), Total())

    def take(flow: FlowStats) -> None:
        way = "upstream" if flow.table == Table.UPSTREAM_BINDING else "downstream"
        found[way] += _total(flow)

    with _answering(instance):
        session.dump(take, cookie=binding_cookie(key), cookie_mask=_WHOLE_COOKIE)
    return {way: total.json() for way, total in found.items()}


def _total(flow: FlowStats) -> Total:
    return Total(flow.packets, flow.bytes - flow.packets * _ETHERNET)


def _tunnelled(total: Total) -> Total:
    """The same packets with the header of their softwires (RFC 2473 section 3.1)."""
    return Total(total.packets, total.bytes + total.packets * IPV6_HEADER)


@contextlib.contextmanager
def _answering(instance: Instance) -> Iterator[None]:
    try:
        yield
    except SessionError as error:
        raise TimeoutError(f"{instance.name}: {error}") from error
