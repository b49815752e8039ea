"""How a DHCP server that leases each address once leases port sets of shared addresses.

It leases a stand-in: every (address A, PSID) of a prefix has an address V in the network that the
prefix is ``leased_as``, counted through PSID by PSID::

    V = first of leased_as + ((A - first of prefix) << k | PSID)        k = PSID length

A /24 with 64 port sets to an address is leased as a /18. The arithmetic needs no memory: whoever
knows the configuration translates in both directions. A full address stands for itself unless the
configuration says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from ryu_lw4o6.core.binding import BindingKey, Prefix, PrefixIndex
from ryu_lw4o6.core.portset import FULL_ADDRESS


def leased_as(prefix: Prefix) -> IPv4Network | None:
    """The network that a prefix is leased as; None if DHCP does not lease it."""
    if prefix.leased_as is None and not prefix.params.shared:
        return prefix.network
    return prefix.leased_as


def leased_length(prefix: Prefix) -> int:
    """The length that ``leased_as`` has to have; it is negative if there are too many port sets
    for an IPv4 network."""
    return prefix.network.prefixlen - prefix.params.psid_length


class Leases:
    """Translates for the prefixes that DHCP leases."""

    def __init__(self, prefixes: Iterable[Prefix]) -> None:
        leased = {prefix: network for prefix in prefixes if (network := leased_as(prefix))}
        self.networks = leased
        self._prefixes = PrefixIndex(leased)
        # By their first addresses: networks are slow keys.
        self._first = {
            _first(prefix.network): _first(network) for prefix, network in leased.items()
        }
        self._of_network = {_first(network): prefix for prefix, network in leased.items()}
        self._networks = PrefixIndex(Prefix(network, FULL_ADDRESS) for network in leased.values())

    def prefix(self, ipv4: IPv4Address) -> Prefix | None:
        """The leased prefix that an lwB4's address lies in."""
        return self._prefixes.find(ipv4)

    def to_server(self, key: BindingKey) -> IPv4Address | None:
        """The address by which the server knows a port set; None if it does not."""
        prefix = self._prefixes.find(key.ipv4)
        if prefix is None or not 0 <= key.psid < prefix.params.psid_count:
            return None
        first = _first(prefix.network)
        index = (int(key.ipv4) - first) << prefix.params.psid_length | key.psid
        return IPv4Address(self._first[first] + index)

    def from_server(self, leased: IPv4Address) -> tuple[BindingKey, Prefix] | None:
        """The port set that a leased address stands for; None if it stands for none."""
        found = self._networks.find(leased)
        if found is None:
            return None
        first = _first(found.network)
        prefix = self._of_network[first]
        index = int(leased) - first
        ipv4 = _first(prefix.network) + (index >> prefix.params.psid_length)
        return BindingKey(IPv4Address(ipv4), index & (prefix.params.psid_count - 1)), prefix


def _first(network: IPv4Network) -> int:
    return int(network.network_address)
