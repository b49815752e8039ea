"""May this lwB4 use this address and port set? The question that a packet without a binding asks,
and what follows from the supporting system's answer."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address
from typing import NamedTuple

from ryu_lw4o6.core.binding import Binding, BindingKey, BindingTable
from ryu_lw4o6.core.settings import Instance


class Question(NamedTuple):
    """``lwb4`` has sent a packet to ``br_address`` with an inner source in ``key``. For a packet
    from the Internet, whose destination is in ``key``, both are None."""

    key: BindingKey
    lwb4: IPv6Address | None = None
    br_address: IPv6Address | None = None


class Outcome(enum.StrEnum):
    """What came of a question. All but the first mean that the packet goes no further."""

    ACCEPTED = "accepted"
    UNKNOWN = "unknown"  # the supporting system has no such binding
    EXPIRED = "expired"  # it had one
    OTHER_LWB4 = "other_lwb4"  # the address and port set is somebody else's
    OTHER_BR_ADDRESS = "other_br_address"  # the packet was sent to the wrong lwAFTR address
    NOT_SERVED = "not_served"  # the address or br-address is none that this instance serves
    UNAVAILABLE = "unavailable"  # no answer from the supporting system or the store in time
    OVERLOADED = "overloaded"  # too many questions at once


def decide(question: Question, found: Binding | None, instance: Instance, now: float) -> Outcome:
    """What the supporting system's binding for the question's key means on ``instance``.

    ``now`` is Unix time in seconds.
    """
    if found is None:
        return Outcome.UNKNOWN
    if found.expires_at is not None and found.expires_at <= now:
        return Outcome.EXPIRED
    if not instance.carries(found):
        return Outcome.NOT_SERVED
    if question.lwb4 is not None:
        if question.lwb4 != found.lwb4:
            return Outcome.OTHER_LWB4
        if question.br_address != instance.br_address_of(found):
            return Outcome.OTHER_BR_ADDRESS
    return Outcome.ACCEPTED


def foreseen(
    known: Iterable[Binding], table: BindingTable, instances: Sequence[Instance], now: float
) -> list[Binding]:
    """The bindings of the supporting system that an instance would make if it were asked about
    them, and that nobody has made yet."""
    return [
        binding
        for binding in known
        if binding.key not in table
        and (binding.expires_at is None or binding.expires_at > now)
        and any(i.failover.validates and i.carries(binding) for i in instances)
    ]


class RateLimit:
    """A token bucket: at most ``rate`` a second, and as many at once."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._tokens = float(rate)
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Whether one more may pass at ``now``, in seconds of a clock that never goes back."""
        if self._at is not None:
            self._tokens = min(self._rate, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
