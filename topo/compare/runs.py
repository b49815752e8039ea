"""What is compared. A further mechanism, or another way to provision, is one more entry here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ryu_lw4o6.core.settings import Failover
from topo.failover.plan import FailoverLab
from topo.plan import subscribers
from topo.provisioning import Provisioning

BUSY = 8
"""Subscribers with traffic. One more is silent."""


class Claims(NamedTuple):
    """What the slides say of a mechanism, by their table's rows."""

    pools: str = "-"
    impact: str = "-"
    cost: str = "-"


@dataclass(frozen=True)
class Run:
    """One column of the comparison. ``options`` are the lab's; ``how`` says in a sentence what
    happens; ``lwb4``, ``lwaftr`` and ``beside`` what has to be there for it."""

    title: str
    how: str
    claims: Claims
    lwb4: str
    lwaftr: str
    beside: str
    options: dict[str, Any] = field(default_factory=dict)

    def lab(self, name: str) -> FailoverLab:
        return FailoverLab(name, subscribers(BUSY + 1), **self.options)


_ICMPV6 = "ICMP in lwB4 and lwAFTR"
_PCP = Claims("the same or different", "perhaps another address, nothing from outside", _ICMPV6)
_DHCP = Claims(
    "the same or different", "can be the same address, also for connections from outside", _ICMPV6
)
_DATA_PACKET = Claims(
    "must be the same",
    "the same address, also for connections from outside",
    "an interface to the supporting system",
)
_REACT = "react to the ICMPv6 error: provision again, renumber if it has to"
_REFUSE = "the ICMPv6 error, with a rate limit"
_HOLD = "hold the packet, ask, make the binding, send the packet on"

NONE = Run(
    "No mechanism",
    "The backup drops packets that it has no binding for. LwB4s were provisioned by PCP, and do "
    "not hear that the primary is gone.",
    Claims(),
    lwb4="nothing",
    lwaftr="nothing",
    beside="nothing",
    options={"mechanism": Failover.NONE, "provisioning": Provisioning.PCP},
)
PCP_OWN_POOLS = Run(
    "ICMPv6, PCP, own pools",
    "The backup answers with ICMPv6 type 1 code 5, and the lwB4 asks the PCP server in the backup "
    "for a port set, which gives one of its own prefix.",
    _PCP,
    lwb4=_REACT,
    lwaftr=f"{_REFUSE}; a PCP server",
    beside="nothing",
    options={
        "mechanism": Failover.ICMPV6, "provisioning": Provisioning.PCP, "own_pools": True,
    },
)  # fmt: skip
PCP_ONE_POOL = Run(
    "ICMPv6, PCP, one pool",
    "The same, but the lwAFTRs have the same prefix: the lwB4 suggests the port set that it had, "
    "and gets it, since nobody else has it at the backup.",
    _PCP,
    lwb4=_REACT,
    lwaftr=f"{_REFUSE}; a PCP server",
    beside="nothing",
    options={"mechanism": Failover.ICMPV6, "provisioning": Provisioning.PCP},
)
DHCP = Run(
    "ICMPv6, DHCP",
    "The backup answers with ICMPv6 type 1 code 5, and the lwB4 asks by DHCPv4 over DHCPv6 whether "
    "its lease still holds. The backup relays to the central server, Kea, and makes the binding "
    "of the answer.",
    _DHCP,
    lwb4=_REACT,
    lwaftr=f"{_REFUSE}; a DHCPv6 relay that reads leases",
    beside="a central DHCP server",
    options={"mechanism": Failover.ICMPV6, "provisioning": Provisioning.DHCP},
)
DATA_PACKET = Run(
    "Data packet, SQL",
    "The backup asks the supporting system, PostgreSQL, whether the lwB4 may use this address "
    "and port set, and makes the binding.",
    _DATA_PACKET,
    lwb4="nothing",
    lwaftr=_HOLD,
    beside="a supporting system that knows all bindings",
    options={"mechanism": Failover.DATA_PACKET},
)
KEA = Run(
    "Data packet, Kea",
    "The backup asks the DHCP server's lease database whether the lwB4 holds a lease of this "
    "address and port set, and makes the binding. The lwB4 got it by DHCPv4 over DHCPv6, and does "
    "nothing now.",
    _DATA_PACKET,
    lwb4="nothing",
    lwaftr=f"{_HOLD}; a DHCPv6 relay",
    beside="a central DHCP server that can be asked",
    options={"mechanism": Failover.DATA_PACKET, "provisioning": Provisioning.DHCP},
)
RUNS = (NONE, PCP_OWN_POOLS, PCP_ONE_POOL, DHCP, DATA_PACKET, KEA)
