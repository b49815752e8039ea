"""How much of what the controller is shown, and the meters that see to it."""

from __future__ import annotations

from openflow_rules import encode
from openflow_rules.tables import Punt
from ryu_lw4o6.core.settings import Instance
from ryu_lw4o6.dialogue import Dialogue

_PER_SECOND = {
    Punt.ARP: 100,
    Punt.PCP: 10_000,
    Punt.FRAGMENT: 5_000,
    Punt.AWAITED: 5_000,
    Punt.SLOW_SOFTWIRE: 10_000,
}
_ASKED_IPV4_PER_SECOND = 2_000
"""Packets from the Internet that the supporting system is asked about. After a failover every
subscriber is unknown, and must not wait behind the Internet's port scans."""
_ABOUT_ITSELF = (Punt.TO_LWAFTR, Punt.FRAGMENT_TO_LWAFTR)
"""What anybody can send to the lwAFTR itself has half of the ICMPv4 errors at most: the others are
about subscribers' packets, whose path MTUs depend on them."""
_QUESTION = "the question about meters"


def rates(instance: Instance) -> dict[Punt, int]:
    """Packets per second, for every reason to show one."""
    wanted = dict.fromkeys(Punt, instance.icmp.rate) | _PER_SECOND
    wanted |= dict.fromkeys(_ABOUT_ITSELF, max(1, instance.icmp.rate // 4))
    wanted[Punt.UNKNOWN_LWB4] = instance.unknown_rate
    if instance.failover.validates:
        wanted[Punt.UNKNOWN_IPV4] = _ASKED_IPV4_PER_SECOND
    return wanted


def corrections(dialogue: Dialogue, instance: Instance) -> list[bytes]:
    """Messages for the meters that are not as they should be: the others go on counting. Raises
    SessionError."""
    found = dict(dialogue.entries(encode.meter_rates_request, encode.meter_rates, _QUESTION))
    return [
        encode.set_meter(punt, rate, exists=punt in found)
        for punt, rate in rates(instance).items()
        if found.get(punt) != rate
    ]


def read(dialogue: Dialogue) -> dict[int, encode.MeterStats]:
    """What each has counted, by its number. Raises SessionError."""
    return dict(dialogue.entries(encode.meter_stats_request, encode.meter_stats, _QUESTION))
