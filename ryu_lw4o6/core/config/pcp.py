"""The ``pcp`` of an instance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from ipaddress import IPv4Address

from ryu_lw4o6.core.binding import Prefix
from ryu_lw4o6.core.config import values
from ryu_lw4o6.core.config.document import Entry, value_of
from ryu_lw4o6.core.pool import AddressRange
from ryu_lw4o6.core.portset import PortParams
from ryu_lw4o6.core.settings import DEFAULT_PCP_SERVER, Pcp

_MOST_SECONDS = 0xFFFFFFFF  # of a lifetime field (RFC 6887 section 7.1)
_MOST_MAPPINGS = 0xFFFF


def read_pcp(entry: Entry | None, served: Sequence[Prefix], *, complete: bool) -> Pcp | None:
    """``served`` are the instance's prefixes, ``complete`` whether none of them was wrong. The
    result is right if no problem was reported."""
    if entry is None:
        return None
    default = Pcp(())
    found = entry.fields([f.name for f in fields(Pcp)])
    if found is None:
        return None
    server = value_of(found, "server", values.ipv4_host, DEFAULT_PCP_SERVER)
    for prefix in served:
        if server is not None and server in prefix.network:
            found.get("server", entry).problem(
                f"{server} lies in {prefix.network}, whose addresses belong to lwB4s",
                "Take another one; lwB4s expect 192.0.0.1 unless they are told",
            )
    seconds = values.integer(1, _MOST_SECONDS)
    shortest = value_of(found, "min_lifetime", seconds, default.min_lifetime)
    longest = value_of(found, "max_lifetime", seconds, default.max_lifetime)
    if shortest and longest and shortest > longest:
        found.get("min_lifetime", found.get("max_lifetime", entry)).problem(
            f"the shortest lifetime, {shortest}, is longer than the longest, {longest}",
            "Lower min_lifetime or raise max_lifetime",
        )
    mappings = value_of(found, "mappings", values.integer(1, _MOST_MAPPINGS), default.mappings)
    system_ports = value_of(found, "system_ports", values.boolean, default.system_ports)
    if "pool" in found:
        pool = _read_pool(found["pool"], served, complete=complete)
    else:
        pool = [
            AddressRange(prefix.network[0], prefix.network[-1], prefix)
            for prefix in served
            if is_contiguous(prefix.params)
        ]
        if complete and not pool:
            entry.problem(
                "none of the prefixes has contiguous port sets, which are all that PCP can give",
                "Set psid_offset to 0, or psid_length to 0",
            )
    return Pcp(tuple(pool), server, shortest, longest, mappings, system_ports)


def is_contiguous(params: PortParams) -> bool:
    """Whether a port set is one range of ports, as PORT_SET has it (RFC 7753 section 4.1)."""
    return not params.shared or params.psid_offset == 0


def _read_pool(entry: Entry, served: Sequence[Prefix], *, complete: bool) -> list[AddressRange]:
    pool: list[tuple[AddressRange, Entry]] = []
    for item in entry.items():
        ends = item.value(values.ipv4_range)
        if ends is None:
            continue
        found = _in_prefix(item, ends, served, complete=complete)
        if found is None:
            continue
        for other, at in pool:
            if found.first <= other.last and other.first <= found.last:
                item.problem(f"overlaps {at.path} (line {at.line})", "Give each address once")
                break
        else:
            pool.append((found, item))
    return [each for each, _ in pool]


def _in_prefix(
    item: Entry, ends: tuple[IPv4Address, IPv4Address], served: Sequence[Prefix], *, complete: bool
) -> AddressRange | None:
    first, last = ends
    for prefix in served:
        if first in prefix.network and last in prefix.network:
            if not is_contiguous(prefix.params):
                item.problem(
                    f"port sets of {prefix.network} are not contiguous, as those of PCP are",
                    "Take addresses of a prefix whose psid_offset or psid_length is 0",
                )
            return AddressRange(first, last, prefix)
    if complete:
        item.problem(
            f"{first}-{last} does not lie in one of the instance's prefixes",
            "Take addresses of one of them; write one entry for each prefix",
        )
    return None
