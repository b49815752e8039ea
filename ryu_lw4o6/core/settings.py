"""What a configuration file says, as checked values. ``config`` reads the file into these."""

from __future__ import annotations

import enum
import zlib
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, IPv6Network

from ryu_lw4o6.core.binding import Binding, Prefix, PrefixIndex
from ryu_lw4o6.core.filters import Rule
from ryu_lw4o6.core.pool import AddressRange

DEFAULT_STORE_URL = "sqlite:////var/lib/lw4o6/bindings.sqlite"
DEFAULT_RUN_DIRECTORY = "/run/lw4o6"
DEFAULT_MTU = 1500
DEFAULT_BRIDGE = "br-lwaftr"
DEFAULT_SOFTWIRE_PORT = "softwire0"
DEFAULT_PCP_SERVER = IPv4Address("192.0.0.1")
"""The AFTR's address inside every softwire, the same on all of them (RFC 6333 section 5.7)."""
KEA = "kea:"
"""What the source of a supporting system begins with if it is Kea."""
DEFAULT_UNKNOWN_RATE = 45_000
DEFAULT_ASKED_RATE = 8_000
"""Where the supporting system is asked: each packet costs the switch and the controller a hundred
times what an answer by the shim does."""
IPV6_HEADER = 40
"""Bytes a softwire adds to an IPv4 packet (RFC 2473 section 3.1)."""


class Datapath(enum.StrEnum):
    """Open vSwitch's two datapaths, by the names its ``datapath_type`` column gives them."""

    USERSPACE = "netdev"
    KERNEL = "system"


class FlowLabel(enum.StrEnum):
    """The flow label of softwire packets: none, or one for each flow inside, so that routers can
    spread them over several paths (RFC 6438)."""

    ZERO = "zero"
    HASHED = "hashed"


class Dscp(enum.StrEnum):
    """Which DSCP a packet leaves its softwire with: its own, or that of the outer header, which
    routers on the way may have changed (RFC 2983: the pipe and the uniform model)."""

    INNER = "inner"
    OUTER = "outer"


class Failover(enum.StrEnum):
    """What becomes of a softwire packet without a binding, which after a failover is every
    subscriber's first one: the two mechanisms of draft-lee-softwire-lw4over6-failover, both, or
    none."""

    NONE = "none"
    ICMPV6 = "icmpv6"
    DATA_PACKET = "data-packet"
    DATA_PACKET_ICMPV6 = "data-packet+icmpv6"

    @property
    def validates(self) -> bool:
        """Whether the supporting system is asked if the lwB4 may use its address and port."""
        return self in (Failover.DATA_PACKET, Failover.DATA_PACKET_ICMPV6)

    @property
    def answers(self) -> bool:
        """Whether the lwB4 gets ICMPv6 type 1 code 5 (RFC 7596 section 6.2) if it may not, or if
        nobody is asked."""
        return self in (Failover.ICMPV6, Failover.DATA_PACKET_ICMPV6)

    @property
    def needs_no_question(self) -> bool:
        """Whether the lwB4 gets that error whatever it has sent, so that the shim can write it."""
        return self.answers and not self.validates


@dataclass(frozen=True, slots=True)
class Ipv6Side:
    """The access network's side: where lwB4s are. ``vlan`` is None for untagged frames,
    ``hop_limit`` and ``flow_label`` are those of softwire packets; ``dscp`` is about those of
    lwB4s, since the others' outer DSCP is always a copy."""

    port: str
    address: IPv6Interface
    next_hop: IPv6Address | None = None
    mtu: int = DEFAULT_MTU
    vlan: int | None = None
    hop_limit: int = 255
    flow_label: FlowLabel = FlowLabel.ZERO
    dscp: Dscp = Dscp.INNER
    filters: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Ipv4Side:
    """The Internet's side. ``vlan`` is None for untagged frames."""

    port: str
    address: IPv4Interface
    next_hop: IPv4Address
    mtu: int = DEFAULT_MTU
    vlan: int | None = None
    filters: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class IcmpPolicy:
    """Which ICMP errors are sent; each one not sent is a silent, counted drop.

    ``unknown_ipv4``: ICMPv4 type 3 code 1 to whoever sent to a destination without a binding.
    ``too_big``: ICMPv4 type 3 code 4 for a packet with DF that does not fit the softwire.
    ``ttl_expired``: ICMPv4 type 11 code 0 to whoever sent a packet with too small a TTL.
    ``to_lwaftr``: ICMPv4 type 3 codes 3 and 2, or type 11 code 1, about UDP, another protocol, or
    fragments without their others, to the lwAFTR's own address.
    ``inbound``: whether ICMP from the Internet is forwarded to lwB4s at all (section 8.1).
    ``rate``: the most ICMPv4 errors an instance sends per second. ICMPv6 errors to lwB4s without
    a binding are a matter of ``Failover``, and of the instance's ``unknown_rate``.
    """

    unknown_ipv4: bool = False
    too_big: bool = True
    ttl_expired: bool = True
    to_lwaftr: bool = True
    inbound: bool = True
    rate: int = 1000


@dataclass(frozen=True, slots=True)
class Peer:
    """A BGP neighbour."""

    address: IPv4Address | IPv6Address
    local_address: IPv4Address | IPv6Address
    asn: int


@dataclass(frozen=True, slots=True)
class Announce:
    """What an instance tells routers about the way to it (RFC 4271).

    ``local_preference`` goes to neighbours of the same AS, ``med`` to all: the higher, and the
    lower, the better. ``keep_without_controller`` is whether
    the routes stay when the controller has died: the switch goes on forwarding what it knows.
    """

    local_as: int
    router_id: IPv4Address
    peers: tuple[Peer, ...]
    local_preference: int = 100
    med: int = 0
    keep_without_controller: bool = False


@dataclass(frozen=True, slots=True)
class Pcp:
    """How lwB4s are provisioned by PCP (RFC 6887).

    ``server`` is the inner address that requests are sent to. Lifetimes are in seconds.
    ``mappings`` is how many an lwB4 may have at once, and ``system_ports`` whether port sets of
    shared addresses that hold one of the ports 0-1023 are given out, too.
    """

    pool: tuple[AddressRange, ...]
    server: IPv4Address = DEFAULT_PCP_SERVER
    min_lifetime: int = 120
    max_lifetime: int = 86400
    mappings: int = 64
    system_ports: bool = False


@dataclass(frozen=True, slots=True)
class DhcpRelay:
    """The relay agent between lwB4s and the DHCP server (RFC 8415 section 19, RFC 7341).

    ``address`` is the instance's own unicast address that the server answers to. An lwB4 may name
    another address than it sends from as its softwire's (RFC 8539) if the first
    ``softwire_prefix_length`` bits of both are the same. ``access_relays`` are believed when they
    say whose message they pass on.
    """

    server: IPv6Address
    address: IPv6Address
    softwire_prefix_length: int = 64
    access_relays: tuple[IPv6Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Instance:
    """One lwAFTR: one Open vSwitch bridge. ``unknown_rate`` is the most softwire packets without a
    binding that are answered, or that the controller is shown, per second."""

    name: str
    datapath_id: int
    ipv6: Ipv6Side
    ipv4: Ipv4Side
    aftr_addresses: tuple[IPv6Address, ...]
    prefixes: tuple[Prefix, ...]
    bridge: str = DEFAULT_BRIDGE
    softwire_port: str = DEFAULT_SOFTWIRE_PORT
    datapath: Datapath = Datapath.USERSPACE
    hairpinning: bool = True
    failover: Failover = Failover.ICMPV6
    unknown_rate: int = DEFAULT_UNKNOWN_RATE
    icmp: IcmpPolicy = field(default_factory=IcmpPolicy)
    announce: Announce | None = None
    pcp: Pcp | None = None
    dhcp: DhcpRelay | None = None
    _index: PrefixIndex = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", PrefixIndex(self.prefixes))

    @property
    def softwire_mtu(self) -> int:
        """The largest IPv4 packet, in bytes, that a softwire of this instance carries whole."""
        return self.ipv6.mtu - IPV6_HEADER

    @property
    def own_addresses(self) -> set[IPv6Address]:
        """The lwAFTR's own: no lwB4 has one of them."""
        return {*self.aftr_addresses, self.ipv6.address.ip}

    def br_address_of(self, binding: Binding) -> IPv6Address:
        """The lwAFTR address of a binding's softwire on this instance."""
        return binding.br_address or self.aftr_addresses[0]

    def prefix_of(self, ipv4: IPv4Address) -> Prefix | None:
        """The prefix of this instance that an IPv4 address lies in."""
        return self._index.find(ipv4)

    def serves(self, ipv4: IPv4Address) -> bool:
        """Whether an IPv4 address lies in a prefix of this instance."""
        return self._index.find(ipv4) is not None

    def carries(self, binding: Binding) -> bool:
        """Whether this instance serves a binding: its prefix and its br-address are ours."""
        return self.br_address_of(binding) in self.aftr_addresses and self.serves(binding.ipv4)


@dataclass(frozen=True, slots=True)
class RestSettings:
    """``token`` is the bearer token that requests must carry, None for an open API."""

    token: str | None = None
    max_body: int = 8 << 20


@dataclass(frozen=True, slots=True)
class SupportingSystem:
    """Who says which lwB4 may use an address and port set, for ``Failover.validates``.

    ``source`` is the URL of a binding store, the absolute path of a CSV or JSON file, or, after
    KEA, the path of Kea's control socket or its control agent's URL; None is the controller's own
    store. Seconds: ``deadline`` is how long an answer is waited for, ``remember_no`` how long a no
    is good for, ``recheck`` how long a yes that names no end, ``refresh`` how often a system that
    does not tell of changes is read. ``warm`` is whether its bindings are made before they are
    asked about, ``read_ahead`` how many of a prefix are asked about in a second when all of it is
    read, 0 for never.
    """

    source: str | None = None
    deadline: float = 1.0
    remember_no: int = 10
    recheck: int = 3600
    refresh: int = 60
    warm: bool = False
    read_ahead: int = 500


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole configuration file."""

    instances: tuple[Instance, ...]
    prefixes: tuple[Prefix, ...]
    bindings: tuple[Binding, ...] = ()
    store_url: str = DEFAULT_STORE_URL
    supporting_system: SupportingSystem = field(default_factory=SupportingSystem)
    run_directory: str = DEFAULT_RUN_DIRECTORY
    rest: RestSettings = field(default_factory=RestSettings)

    def instance(self, datapath_id: int) -> Instance | None:
        """The instance with this datapath id."""
        return next((i for i in self.instances if i.datapath_id == datapath_id), None)


def br_tag(address: IPv6Address) -> int:
    """The 32-bit name of an AFTR address inside the softwire port's frames.

    The rules write it, the shim looks it up. Being a function of the address alone, it cannot go
    out of step between a controller and a shim that read the configuration at different times;
    the configuration check refuses two addresses with one tag.
    """
    return zlib.crc32(address.packed)
