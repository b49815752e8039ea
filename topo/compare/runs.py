"""What is compared. A further mechanism, or another way to provision, is one more entry here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ryu_lw4o6.core.settings import Failover
from topo.failover.plan import FailoverLab
from topo.plan import subscribers

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


RUNS = (
    Run(
        "No mechanism",
        "The backup drops packets that it has no binding for.",
        Claims(),
        lwb4="nothing",
        lwaftr="nothing",
        beside="nothing",
        options={"mechanism": Failover.NONE},
    ),
    Run(
        "ICMPv6 trigger",
        "The backup answers with ICMPv6 type 1 code 5, and the lwB4 makes a new binding: here over "
        "REST, in the place of PCP or DHCPv4 over DHCPv6.",
        Claims(
            "the same or different",
            "PCP: perhaps another address, nothing from outside; DHCP: can be the same",
            "ICMP in lwB4 and lwAFTR",
        ),
        lwb4="react to the ICMPv6 error: provision again, renumber",
        lwaftr="the ICMPv6 error, with a rate limit",
        beside="nothing",
        options={"mechanism": Failover.ICMPV6},
    ),
    Run(
        "Data-packet trigger",
        "The backup asks the supporting system, PostgreSQL, whether the lwB4 may use this address "
        "and port set, and makes the binding.",
        Claims(
            "must be the same",
            "the same address, also for connections from outside",
            "an interface to the supporting system",
        ),
        lwb4="nothing",
        lwaftr="hold the packet, ask, make the binding, send the packet on",
        beside="a supporting system that knows all bindings",
        options={"mechanism": Failover.DATA_PACKET},
    ),
)
