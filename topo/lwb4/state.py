"""What an lwB4 remembers across a restart, as JSON: the lease, and what it takes to get the same
again. Times are stored as Unix time, since a machine's own clock may begin anew."""

from __future__ import annotations

import json
import math
import os
import secrets
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from ryu_lw4o6.core.pcp import NONCE_LENGTH
from ryu_lw4o6.core.s46 import PortSet
from topo.lwb4 import dhcp, pcp
from topo.lwb4.lease import Lease


def save(path: Path, client: pcp.Client | dhcp.Client, to_unix: float) -> None:
    """Write, or replace, the file at once. ``to_unix`` is Unix time less the client's clock."""
    kept = _pcp(client, to_unix) if isinstance(client, pcp.Client) else _dhcp(client, to_unix)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(kept, indent=1) + "\n")
    os.replace(new, path)


def load(path: Path) -> dict[str, Any]:
    """What was saved; nothing if there is no file, or none that can be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _pcp(client: pcp.Client, to_unix: float) -> dict[str, Any]:
    kept: dict[str, Any] = {"nonce": client.nonce.hex()}
    if client.suggested is not None:
        first = client.suggested.ports[0]
        kept |= {"ipv4": str(client.suggested.ipv4), "first": first.start, "count": len(first)}
    if client.granted is not None:
        kept["until"] = client.granted.until + to_unix
    return kept


def pcp_client(config: pcp.Config, kept: dict[str, Any], now: float, to_unix: float) -> pcp.Client:
    """A PCP client that goes on where the one before stopped; a new one if nothing was kept."""
    try:
        nonce = bytes.fromhex(kept["nonce"])
        if len(nonce) != NONCE_LENGTH:
            raise ValueError
        client = pcp.Client(nonce, config)
        if "ipv4" not in kept:
            return client
        ports = range(kept["first"], kept["first"] + kept["count"])
        if not 0 <= ports.start < ports.stop <= 0x10000:
            raise ValueError
        lease = Lease(IPv4Address(kept["ipv4"]), (ports,))
        until = float(kept.get("until", -math.inf)) - to_unix
        granted = pcp.Granted(lease, now, until) if until > now else None
        return replace(client, suggested=lease, granted=granted)
    except (KeyError, ValueError, TypeError):
        return pcp.Client(secrets.token_bytes(NONCE_LENGTH), config)


def _dhcp(client: dhcp.Client, to_unix: float) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    if client.servers is not None:
        kept["servers"] = [str(server) for server in client.servers]
    leased = client.leased
    if leased is not None:
        kept |= {"ipv4": str(leased.ipv4), "server": str(leased.server)}
        if leased.port_set is not None:
            kept["port_set"] = leased.port_set.pack().hex()
        if client.valid:
            kept["until"] = None if leased.until == math.inf else leased.until + to_unix
    return kept


def dhcp_client(
    config: dhcp.Config, kept: dict[str, Any], now: float, to_unix: float
) -> dhcp.Client:
    """A DHCP client that goes on where the one before stopped; a new one if nothing was kept."""
    client = dhcp.Client(config)
    try:
        if "servers" in kept:
            servers = tuple(IPv6Address(server) for server in kept["servers"])
            client = replace(client, servers=servers)
        if "ipv4" not in kept:
            return client
        port_set = PortSet.parse(bytes.fromhex(kept["port_set"])) if "port_set" in kept else None
        leased = dhcp.Leased(IPv4Address(kept["ipv4"]), port_set, IPv4Address(kept["server"]))
        if "until" not in kept:
            return replace(client, leased=leased)
        if kept["until"] is not None:
            leased = replace(leased, until=float(kept["until"]) - to_unix)
        return replace(client, leased=leased, valid=leased.until > now)
    except (KeyError, ValueError, TypeError):  # Malformed is a ValueError
        return client
