"""How questions to the supporting system are merged, batched, limited and answered."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import eventlet
import pytest

from ryu_lw4o6 import validation
from ryu_lw4o6.core.binding import Binding, BindingKey, BindingTable, Origin
from ryu_lw4o6.core.failover import Outcome, Question, RateLimit
from ryu_lw4o6.core.settings import Failover
from ryu_lw4o6.core.settings import SupportingSystem as Settings
from ryu_lw4o6.supporting import SystemUnavailable
from ryu_lw4o6.validation import Validator
from tests.rules.samples import ANYCAST, PREFIXES, binding, instance

INSTANCE = instance(failover=Failover.DATA_PACKET)
DEADLINE = 0.3


class System:
    """Answers from a dictionary, when it may."""

    def __init__(self) -> None:
        self.bindings: dict[BindingKey, Binding] = {}
        self.calls: list[list[BindingKey]] = []
        self.down = False
        self.seconds_per_key = 0.0
        self.seconds_per_call = 0.0
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.told: list[list[BindingKey]] = []

    def find(self, keys: Collection[BindingKey]) -> dict[BindingKey, Binding]:
        self.calls.append(list(keys))
        self.may_answer.wait(10)
        time.sleep(self.seconds_per_call + self.seconds_per_key * len(keys))
        if self.down:
            raise SystemUnavailable("it is down", "Start it")
        return {key: self.bindings[key] for key in keys if key in self.bindings}

    def wait_for_changes(self, seconds: float) -> list[BindingKey] | None:
        if self.told:
            return self.told.pop(0)
        time.sleep(seconds)
        return []

    def changed(self, keys: Collection[BindingKey]) -> list[Binding]:
        if self.down:
            raise SystemUnavailable("it is down", "Start it")
        return list(self.bindings.values())

    def pages(self, network: object = None) -> Iterator[list[Binding]]:
        yield self.changed([])

    def close(self) -> None:
        pass


class Bench:
    def __init__(self) -> None:
        self.system = System()
        self.table = BindingTable(PREFIXES)
        self.adopted: list[list[Binding]] = []
        self.withdrawn: list[BindingKey] = []
        self.answers: list[tuple[Question, Outcome]] = []
        self.misfits: set[BindingKey] = set()
        self.validator = Validator(
            self.system, Settings("elsewhere", DEADLINE, warm=True), self.table, [INSTANCE],
            self.adopt, self.withdraw, lambda: 0,
        )  # fmt: skip
        self.greenlet = eventlet.spawn(self.validator.run)

    def adopt(self, bindings: Iterable[Binding]) -> set[BindingKey]:
        fit = [one for one in bindings if one.key not in self.misfits]
        if fit:
            self.adopted.append(fit)
        for one in fit:
            self.table.replace(one)
        return self.misfits

    def withdraw(self, keys: Iterable[BindingKey]) -> None:
        self.withdrawn += keys
        for key in keys:
            self.table.remove(key)

    def knows(self, *bindings: Binding) -> None:
        self.system.bindings.update({b.key: b for b in bindings})

    def ask(self, *questions: Question) -> None:
        for question in questions:
            self.validator.ask(question, INSTANCE, lambda q, o: self.answers.append((q, o)))

    def wait(self, condition: Callable[[], object], seconds: float = 5) -> None:
        with eventlet.Timeout(seconds):
            while not condition():
                eventlet.sleep(0.005)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.system.may_answer.set()
    bench.greenlet.kill()


def asked_by(one: Binding) -> Question:
    return Question(one.key, one.lwb4, one.br_address or ANYCAST)


ONE = binding("2001:db8:b4::1", "192.0.2.1", 3)
TWO = binding("2001:db8:b4::2", "192.0.2.1", 4)
MANY = [
    Binding(IPv6Address(n + 1), IPv4Address("192.0.2.0") + n // 64, n % 64, ONE.params)
    for n in range(1200)
]


def test_a_yes_is_adopted_before_it_is_told(bench: Bench) -> None:
    bench.knows(ONE)
    before = time.time()
    bench.ask(asked_by(ONE))
    bench.wait(lambda: bench.answers)
    assert bench.answers == [(asked_by(ONE), Outcome.ACCEPTED)]
    made = bench.table.get(ONE.key)
    assert made is not None
    assert made.origin is Origin.VALIDATED
    assert made.expires_at is not None  # names no end, so it is asked about again in an hour
    assert 0.75 * 3600 <= made.expires_at - before < 3605


def test_what_is_made_in_one_storm_is_not_asked_about_again_at_once(bench: Bench) -> None:
    bench.knows(*MANY[:50])
    for one in MANY[:50]:
        bench.answers.clear()
        bench.ask(asked_by(one))
        bench.wait(lambda: bench.answers)
    ends = [b.expires_at for b in bench.table if b.expires_at is not None]
    assert len(set(ends)) == 50
    assert max(ends) - min(ends) > 450  # of the 900 s that they are spread over


def test_a_lease_s_end_is_the_binding_s(bench: Bench) -> None:
    end = time.time() + 77
    bench.knows(replace(ONE, expires_at=end))
    bench.ask(asked_by(ONE))
    bench.wait(lambda: bench.answers)
    found = bench.table.get(ONE.key)
    assert found is not None
    assert found.expires_at == end


def test_questions_about_the_same_are_one_question(bench: Bench) -> None:
    bench.knows(ONE)
    bench.system.may_answer.clear()
    stranger = Question(ONE.key, TWO.lwb4, ANYCAST)
    inbound = Question(ONE.key)
    bench.ask(asked_by(ONE), stranger, inbound)
    bench.wait(lambda: bench.system.calls)
    bench.ask(asked_by(ONE))  # while it is being asked about
    bench.system.may_answer.set()
    bench.wait(lambda: len(bench.answers) == 4)
    assert bench.system.calls == [[ONE.key]]
    assert bench.answers == [
        (asked_by(ONE), Outcome.ACCEPTED),
        (stranger, Outcome.OTHER_LWB4),
        (inbound, Outcome.ACCEPTED),
        (asked_by(ONE), Outcome.ACCEPTED),
    ]


def test_many_questions_are_few_batches(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "BATCH", 500)
    # However slow this machine is, the answers are quick enough.
    bench.validator._overtaking = 5.0
    bench.validator._settings = replace(bench.validator._settings, deadline=20.0)
    bench.knows(*MANY)
    bench.ask(*map(asked_by, MANY))
    bench.wait(lambda: len(bench.answers) == len(MANY))
    assert {outcome for _, outcome in bench.answers} == {Outcome.ACCEPTED}
    assert [len(call) for call in bench.system.calls] == [100, 200, 400, 500]
    assert [len(adopted) for adopted in bench.adopted] == [100, 200, 400, 500]


def test_one_that_takes_its_time_for_each_key_is_asked_about_fewer_at_once(bench: Bench) -> None:
    bench.knows(*MANY)
    bench.system.seconds_per_key = 0.001  # a whole batch in three times the deadline

    def ask_again(question: Question, outcome: Outcome) -> None:
        if outcome is Outcome.UNAVAILABLE:  # with its next packet
            eventlet.spawn_after(0.1, bench.validator.ask, question, INSTANCE, ask_again)

    for one in MANY:
        bench.validator.ask(asked_by(one), INSTANCE, ask_again)
    bench.wait(lambda: len(bench.table) == len(MANY), 20)
    assert max(map(len, bench.system.calls)) * bench.system.seconds_per_key < DEADLINE


def test_one_that_is_far_away_is_asked_about_as_many_at_once(bench: Bench) -> None:
    bench.knows(*MANY)
    bench.system.seconds_per_call = DEADLINE / 2
    bench.ask(*map(asked_by, MANY[:100]))
    bench.wait(lambda: len(bench.answers) == 100)
    bench.ask(*map(asked_by, MANY[100:200]))
    bench.wait(lambda: len(bench.answers) == 200)
    assert {outcome for _, outcome in bench.answers} == {Outcome.ACCEPTED}
    assert [len(call) for call in bench.system.calls] == [100, 100]


def test_who_asks_one_that_is_too_slow_is_answered_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More ask than are answered in time, though no call hangs: nobody waits for ever."""
    monkeypatch.setattr(validation, "BATCH", 1)
    monkeypatch.setattr(validation, "AT_ONCE", 100)
    bench = Bench()
    bench.knows(*MANY)
    bench.system.seconds_per_call = DEADLINE / 3
    started = time.monotonic()
    bench.ask(*map(asked_by, MANY[:100]))
    bench.wait(lambda: len(bench.answers) == 100, 20)
    assert time.monotonic() - started < 2 * DEADLINE + 0.5
    outcomes = Counter(outcome for _, outcome in bench.answers)
    assert outcomes[Outcome.ACCEPTED] >= 2
    assert outcomes[Outcome.ACCEPTED] + outcomes[Outcome.UNAVAILABLE] == 100
    bench.greenlet.kill()


@pytest.mark.parametrize(
    ("known", "question", "outcome"),
    [
        (None, asked_by(ONE), Outcome.UNKNOWN),
        (replace(ONE, expires_at=1.0), asked_by(ONE), Outcome.EXPIRED),
        (TWO, Question(TWO.key, ONE.lwb4, ANYCAST), Outcome.OTHER_LWB4),
        (ONE, Question(ONE.key, ONE.lwb4, IPv6Address("2001:db8:ffff::2")),
         Outcome.OTHER_BR_ADDRESS),
        (replace(ONE, br_address=IPv6Address("2001:db8:eeee::1")), asked_by(ONE),
         Outcome.NOT_SERVED),
        (ONE, Question(ONE.key), Outcome.ACCEPTED),
    ],
)  # fmt: skip
def test_answers(bench: Bench, known: Binding | None, question: Question, outcome: Outcome) -> None:
    if known is not None:
        bench.knows(known)
    bench.ask(question)
    bench.wait(lambda: bench.answers)
    assert bench.answers == [(question, outcome)]
    assert bool(bench.adopted) == (outcome is Outcome.ACCEPTED)


def test_a_no_to_one_does_not_keep_the_owner_out(bench: Bench) -> None:
    """The second question comes while the first one's answer is being acted upon."""
    bench.knows(ONE)
    bench.system.may_answer.clear()
    bench.ask(Question(ONE.key, TWO.lwb4, ANYCAST))
    bench.wait(lambda: bench.system.calls)
    bench.ask(asked_by(ONE))
    bench.system.may_answer.set()
    bench.wait(lambda: len(bench.answers) == 2)
    assert bench.answers[1] == (asked_by(ONE), Outcome.ACCEPTED)
    assert ONE.key in bench.table


def test_down_is_answered_and_not_adopted(bench: Bench) -> None:
    bench.knows(ONE)
    bench.system.down = True
    bench.ask(asked_by(ONE))
    bench.wait(lambda: bench.answers)
    assert bench.answers == [(asked_by(ONE), Outcome.UNAVAILABLE)]
    assert ONE.key not in bench.table
    assert bench.validator.status()["state"] == "unavailable"
    assert "it is down. Start it" in bench.validator.status()["last_error"]
    bench.system.down = False
    bench.ask(asked_by(ONE))
    bench.wait(lambda: len(bench.answers) == 2)
    assert bench.answers[1] == (asked_by(ONE), Outcome.ACCEPTED)
    assert bench.validator.status()["state"] == "available"


def test_slow_is_answered_within_the_deadline_however_many_ask(bench: Bench) -> None:
    bench.knows(*MANY)
    bench.system.may_answer.clear()
    started = time.monotonic()
    for n in range(40):  # more than may hang at once
        bench.ask(asked_by(MANY[n]))
        eventlet.sleep(0.01)
    bench.wait(lambda: len(bench.answers) == 40)
    assert time.monotonic() - started < 2 * DEADLINE + 0.5
    assert {outcome for _, outcome in bench.answers} == {Outcome.UNAVAILABLE}
    assert len(bench.system.calls) == validation.AT_ONCE
    assert bench.adopted == []  # late answers are not believed
    bench.system.may_answer.set()
    bench.ask(asked_by(ONE))
    bench.knows(ONE)
    bench.wait(lambda: len(bench.answers) == 41)
    assert bench.answers[-1] == (asked_by(ONE), Outcome.ACCEPTED)


def test_what_does_not_fit_is_not_accepted(bench: Bench) -> None:
    bench.knows(ONE, TWO)
    bench.misfits = {ONE.key}
    bench.ask(asked_by(ONE), Question(ONE.key, TWO.lwb4, ANYCAST), asked_by(TWO))
    bench.wait(lambda: len(bench.answers) == 3)
    assert [outcome for _, outcome in bench.answers] == [
        Outcome.NOT_SERVED, Outcome.OTHER_LWB4, Outcome.ACCEPTED,
    ]  # fmt: skip


def test_too_many_questions_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "MOST_QUESTIONS", 2)
    bench.system.may_answer.clear()
    bench.ask(*map(asked_by, MANY[:3]))
    assert bench.answers == [(asked_by(MANY[2]), Outcome.OVERLOADED)]


def test_bindings_are_asked_about_again(bench: Bench) -> None:
    bench.knows(ONE, TWO)
    bench.ask(asked_by(ONE), asked_by(TWO))
    bench.wait(lambda: len(bench.answers) == 2)
    moved = replace(ONE, lwb4=IPv6Address("2001:db8:b4::99"))
    bench.system.bindings = {ONE.key: moved}
    bench.validator.recheck([ONE.key, TWO.key])
    bench.wait(lambda: bench.withdrawn)
    assert bench.withdrawn == [TWO.key]
    found = bench.table.get(ONE.key)
    assert found is not None
    assert found.lwb4 == moved.lwb4
    # One that somebody has deleted meanwhile is not brought back.
    bench.table.remove(ONE.key)
    bench.validator.recheck([ONE.key])
    bench.wait(lambda: len(bench.system.calls) == 3)
    eventlet.sleep(0.05)
    assert ONE.key not in bench.table


def test_what_a_switch_has_is_confirmed_or_not(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench.knows(*MANY[:150], replace(MANY[150], expires_at=time.time() - 1))
    bench.validator.confirm([binding.key for binding in MANY[:200]])
    assert {binding.key for binding in bench.table} == {binding.key for binding in MANY[:150]}
    assert {binding.origin for binding in bench.table} == {Origin.VALIDATED}
    assert bench.answers == []
    assert caplog.messages == [
        "supporting system: it knows 150 of 200 bindings that only a switch had"
    ]


@pytest.mark.parametrize("hangs", [False, True])
def test_what_cannot_be_confirmed_is_not_waited_for(bench: Bench, hangs: bool) -> None:
    bench.knows(*MANY)
    if hangs:
        bench.system.may_answer.clear()
    else:
        bench.system.down = True
    started = time.monotonic()
    bench.validator.confirm([binding.key for binding in MANY])
    assert time.monotonic() - started < DEADLINE + 0.5
    assert len(bench.system.calls) == 1
    assert len(bench.table) == 0


def test_nothing_is_withdrawn_because_nobody_answers(bench: Bench) -> None:
    bench.knows(ONE)
    bench.ask(asked_by(ONE))
    bench.wait(lambda: bench.answers)
    bench.system.down = True
    bench.validator.recheck([ONE.key])
    bench.wait(lambda: bench.validator.status()["state"] == "unavailable")
    assert ONE.key in bench.table


def test_what_it_tells_before_it_fails_is_followed_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "WATCH_SECONDS", 0.01)
    bench.table.replace(replace(ONE, origin=Origin.VALIDATED))
    moved = replace(ONE, lwb4=TWO.lwb4)
    bench.knows(moved)
    bench.system.told, bench.system.down = [[ONE.key]], True
    watching = eventlet.spawn(bench.validator.watch)
    bench.wait(lambda: bench.validator.status()["state"] == "unavailable")
    bench.system.down = False
    bench.wait(lambda: bench.table.by_lwb4(TWO.lwb4))
    watching.kill()


@pytest.mark.parametrize("hangs", [False, True])
def test_what_could_not_be_asked_again_is_asked_again_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr(validation, "WATCH_SECONDS", 0.05)
    bench.knows(*MANY[:5])
    bench.ask(*map(asked_by, MANY[:5]))
    bench.wait(lambda: len(bench.answers) == 5)
    bench.system.bindings.clear()
    if hangs:
        bench.system.may_answer.clear()
    else:
        bench.system.down = True
    for one in MANY[:5]:  # more than may hang at once
        bench.validator.recheck([one.key])
        eventlet.sleep(0.02)
    bench.wait(lambda: bench.validator.status()["state"] == "unavailable")
    eventlet.sleep(2 * DEADLINE)
    assert bench.withdrawn == []
    bench.system.may_answer.set()
    bench.system.down = False
    bench.wait(lambda: len(bench.withdrawn) == 5)


def test_a_rate_is_kept() -> None:
    limit = RateLimit(10)
    assert sum(limit.take(0.0) for _ in range(100)) == 10
    assert sum(limit.take(0.05) for _ in range(100)) == 0
    assert sum(limit.take(0.5) for _ in range(100)) == 5
    assert sum(limit.take(100.0) for _ in range(100)) == 10
