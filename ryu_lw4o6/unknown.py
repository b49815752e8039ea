"""Packets without a binding on one switch: held while the supporting system is asked, then sent on
or refused.

The switch shows them up to a rate. Once the answer is no, or when there are too many of the same,
it is told to drop them by itself for a while.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from ryu.lib import hub

from openflow_rules import encode
from openflow_rules.tables import QUIET_SECONDS, Table
from ryu_lw4o6.core import icmp
from ryu_lw4o6.core.binding import BindingKey, BindingTable, is_static
from ryu_lw4o6.core.failover import Outcome, Question
from ryu_lw4o6.core.recent import Recent
from ryu_lw4o6.core.settings import Instance
from ryu_lw4o6.events import Events
from ryu_lw4o6.session import Session
from ryu_lw4o6.validation import Answered

LOG = logging.getLogger(__name__)

HELD_PACKETS = 64
"""The most packets held for one question."""
HELD_BYTES = 64 << 20
"""The most bytes held in all."""
QUESTIONS_PER_LWB4 = 8
BEHIND_SECONDS = 1.5
"""Nobody new is taken up while somebody who was accepted waits for flows for longer: who comes
then would wait in vain. Their next packet finds the switch less busy."""
APPLY_SECONDS = 5.0
"""How long a switch may take for the flows of a binding that was accepted."""
_LATENCIES = 1000
_REMEMBERED = 1_000_000
_ENOUGH_LEFT = 500

Ask = Callable[[Question, Instance, Answered], None]


@dataclass(slots=True)
class _Waiting:
    """A question and what waits for its answer; ``accepted_at`` is None until it is a yes."""

    since: float
    frames: list[bytes] = field(default_factory=list)
    accepted_at: float | None = None


class UnknownTraffic:
    """``refused`` is told (question, outcome, first packet) so that it can answer by ICMP."""

    def __init__(
        self,
        instance: Instance,
        table: BindingTable,
        ask: Ask,
        remember_no: int,
        refused: Callable[[Question, bytes], None],
        events: Events,
    ) -> None:
        self.instance = instance
        self.outcomes: Counter[Outcome] = Counter()
        """Answers to questions."""
        self.packets: Counter[str] = Counter()
        """Packets shown, sent on, and dropped by reason."""
        self._table = table
        self._ask = ask
        self._remember_no = remember_no
        self._refused = refused
        self._events = events
        self._session: Session | None = None
        self._waiting: dict[Question, _Waiting] = {}
        self._by_lwb4: Counter[IPv6Address] = Counter()
        self._held_bytes = 0
        self._behind = False
        self._no = Recent(QUIET_SECONDS, _REMEMBERED)
        self._quieted = Recent(QUIET_SECONDS, _REMEMBERED)
        self._rewritten = Recent(QUIET_SECONDS, _REMEMBERED)
        self._latencies: dict[Outcome, deque[float]] = {}  # until the answer
        self._restored: deque[float] = deque(maxlen=_LATENCIES)  # until the packets went on
        self._accepted: dict[Question, None] = {}
        self._refusals: list[dict[str, Any]] = []
        self._wake = hub.Event()

    def connect(self, session: Session | None) -> None:
        """The switch has a new session, or none. What waits, waits on: its question is answered
        in any case, and its time runs."""
        self._session = session
        self._wake.set()

    # --- a packet ---------------------------------------------------------------------------------

    def packet_in(self, fields: bytes, frame: bytes, *, upstream: bool) -> None:
        """The switch has shown a packet that has no binding. Must not wait."""
        now = time.monotonic()
        self.packets["shown"] += 1
        known = encode.pipeline_fields(fields)
        question = _question(known, frame, upstream=upstream)
        if question is None:
            self.packets["dropped_malformed"] += 1
            return
        waiting = self._waiting.get(question)
        if waiting is not None:
            self._hold(question, waiting, frame, now)
        elif self._behind:
            self.packets["dropped_overload"] += 1
        elif self._no.has(question, now):
            self.packets["dropped_refused"] += 1
        else:
            self._put(question, frame, now, sent_on=known.sent_on)

    def _put(self, question: Question, frame: bytes, now: float, *, sent_on: bool) -> None:
        """A question nobody has asked yet."""
        lwb4 = question.lwb4
        if lwb4 is not None and self._by_lwb4[lwb4] >= QUESTIONS_PER_LWB4:
            self.packets["dropped_overload"] += 1
            self._keep_quiet(lwb4, encode.quiet_lwb4(lwb4.packed, QUIET_SECONDS), now)
            return
        waiting = self._waiting[question] = _Waiting(now)
        if lwb4 is not None:
            self._by_lwb4[lwb4] += 1
        self._hold(question, waiting, frame, now)
        known = self._known(question, sent_on=sent_on)
        if known is None:
            self._ask(question, self.instance, self.answered)
        else:
            self.answered(question, known)

    def _known(self, question: Question, *, sent_on: bool) -> Outcome | None:
        """The answer if there is no need to ask anybody."""
        if not self.instance.serves(question.key.ipv4):
            return Outcome.NOT_SERVED
        binding = self._table.get(question.key)
        if binding is None or not self.instance.carries(binding):
            return None
        if question.lwb4 in (None, binding.lwb4):
            if question.br_address in (None, self.instance.br_address_of(binding)):
                if sent_on and not self._restore(question):
                    return Outcome.UNAVAILABLE
                return Outcome.ACCEPTED  # the packet has missed the flows by a moment
        elif is_static(binding):
            return Outcome.OTHER_LWB4
        return None

    def _restore(self, question: Question) -> bool:
        """A packet was sent on to the flows of its binding, and comes back: they are on their way,
        or somebody has taken them away, and they are sent again. If that has just been done, it
        is of no use."""
        session = self._session
        if session is None or session.pending(question.key):
            return True
        if not self._rewritten.add(question, time.monotonic()):
            return False
        session.touch([question.key])
        return True

    def _hold(self, question: Question, waiting: _Waiting, frame: bytes, now: float) -> None:
        if len(waiting.frames) >= HELD_PACKETS or self._held_bytes + len(frame) > HELD_BYTES:
            self.packets["dropped_overload"] += 1
            message = encode.quiet(question.key, question.lwb4, QUIET_SECONDS)
            self._keep_quiet(question, message, now)
            return
        waiting.frames.append(frame)
        self._held_bytes += len(frame)

    def _keep_quiet(self, what: Hashable, message: bytes, now: float) -> None:
        """The switch need not show more of these for a while."""
        if self._session is not None and self._quieted.add(what, now):
            self._session.send(message)

    def _let_go(self, question: Question) -> list[bytes]:
        """The question is settled: its packets, which are held no longer."""
        frames = self._waiting.pop(question).frames
        self._held_bytes -= sum(map(len, frames))
        if question.lwb4 is not None:
            self._by_lwb4[question.lwb4] -= 1
            if not self._by_lwb4[question.lwb4]:
                del self._by_lwb4[question.lwb4]
        return frames

    # --- its answer -------------------------------------------------------------------------------

    def answered(self, question: Question, outcome: Outcome) -> None:
        """What came of a question. Must not wait."""
        waiting = self._waiting.get(question)
        if waiting is None or waiting.accepted_at is not None:
            return
        now = time.monotonic()
        self.outcomes[outcome] += 1
        self._latencies.setdefault(outcome, deque(maxlen=_LATENCIES)).append(now - waiting.since)
        if outcome is Outcome.ACCEPTED:
            waiting.accepted_at = now
            if not self._accepted:
                self._wake.set()
            self._accepted[question] = None
            return
        self._refusals.append({
            "instance": self.instance.name, "binding": question.key, "lwb4": question.lwb4,
            "reason": outcome, "ms": round((now - waiting.since) * 1e3, 2),
        })  # fmt: skip
        self._wake.set()
        frames = self._let_go(question)
        self.packets["dropped_refused"] += len(frames)
        # What could not be said is asked about again with the next packet.
        if outcome not in (Outcome.UNAVAILABLE, Outcome.OVERLOADED):
            self._no.add(question, now)
            if self._session is not None:
                self._session.send(encode.quiet(question.key, question.lwb4, self._remember_no))
        if frames:
            self._refused(question, frames[0])

    def run(self) -> None:
        """Send on what was accepted as soon as the flows for it are on their way, and tell what was
        refused. For ever."""
        while True:
            self._wake.wait()
            self._wake.clear()
            self._tell_refusals()
            while self._accepted:
                self._send_on(time.monotonic())
                self._tell_refusals()
                if self._accepted:
                    if self._session is None:
                        hub.sleep(0.1)
                    else:
                        self._session.wait_progress(0.1)

    def _tell_refusals(self) -> None:
        refusals, self._refusals = self._refusals, []
        if refusals:
            self._events.add_all("binding-refused", refusals)

    def _send_on(self, now: float) -> None:
        session = self._session
        left = 0
        self._behind = False
        for question in list(self._accepted):
            if left >= _ENOUGH_LEFT:
                return  # those that came later are not there yet, either
            accepted_at = self._waiting[question].accepted_at or now
            if session is not None and session.ports is not None:
                if session.failure(question.key):
                    self._drop(question, "dropped_switch")
                    continue
                if not session.unsent(question.key):
                    self._reinject(session, question)
                    continue
            if now - accepted_at > APPLY_SECONDS:
                self._drop(question, "dropped_switch")
            else:
                left += 1
                self._behind |= now - accepted_at > BEHIND_SECONDS

    def _drop(self, question: Question, reason: str) -> None:
        del self._accepted[question]
        self.packets[reason] += len(self._let_go(question))

    def _reinject(self, session: Session, question: Question) -> None:
        assert session.ports is not None
        del self._accepted[question]
        self._restored.append(time.monotonic() - self._waiting[question].since)
        frames = self._let_go(question)
        tunnel = None
        port, table = session.ports.ipv4, Table.DOWNSTREAM_PORT_SET
        if question.lwb4 is not None and question.br_address is not None:
            tunnel = (question.lwb4.packed, question.br_address.packed)
            port, table = session.ports.softwire, Table.UPSTREAM_PORT_SET
        for frame in frames:
            sent = session.send(encode.send_on(frame, port, table, tunnel))
            self.packets["sent_on" if sent else "dropped_switch"] += 1

    def status(self) -> dict[str, Any]:
        """Counts and latencies, ready for JSON."""
        return {
            "outcomes": {
                str(outcome): {"count": self.outcomes[outcome]}
                | _percentiles(self._latencies.get(outcome, ()))
                for outcome in Outcome
            },
            "restored": _percentiles(self._restored),
            "packets": dict(self.packets),
            "waiting": len(self._waiting),
        }


def _percentiles(seconds: Iterable[float]) -> dict[str, float | None]:
    """Milliseconds since the first packet of a question."""
    last = sorted(seconds)
    if not last:
        return {"p50_ms": None, "p99_ms": None}
    return {
        f"p{percent}_ms": round(last[min(len(last) - 1, len(last) * percent // 100)] * 1e3, 3)
        for percent in (50, 99)
    }


def _question(known: encode.PipelineFields, frame: bytes, *, upstream: bool) -> Question | None:
    """What a packet without a binding asks."""
    packet = icmp.ipv4_packet(frame)
    if packet is None:
        return None
    if not upstream:
        return Question(BindingKey(IPv4Address(packet[16:20]), known.psid))
    softwire = known.softwire
    if softwire is None:
        return None
    return Question(BindingKey(IPv4Address(packet[12:16]), known.psid), *softwire)
