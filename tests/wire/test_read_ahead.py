"""A lwAFTR has died, and its subscribers come to this one: once many of a prefix are here, those
who have yet to come have their bindings already.

192.0.2.0/24 (a = 6, k = 6, m = 4): a PSID's first port is 1024 + 16 * PSID.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from scapy.layers.inet import UDP

from ryu_lw4o6.store import Store
from tests.support.ovs import wait_for
from tests.support.postgres import Postgres
from tests.support.rig import Rig, frames
from tests.wire.scenario import Scenario, downstream, forwarded, frame_of, run, tunnelled
from tests.wire.test_data_packet import (
    binding,
    drain,
    from_lwb4,
    out_of,
    passes,
    ports,
    status,
    subscriber,
)
from tests.wire.test_storm import rig_asking, storm

MANY = 10
SHARED = {n: ("192.0.2.2", n) for n in range(1, 61)}
WHOLE = {n: (f"203.0.113.{n - 60}", 0) for n in range(63, 66)}
MADE = "bindings made before they are needed"


@pytest.fixture(scope="module")
def rig(postgres: Postgres) -> Iterator[Rig]:
    rig = rig_asking(postgres, f", read_ahead: {MANY}")
    with contextlib.closing(Store(postgres.url)) as store:
        store.save([binding(n, psid, ipv4) for n, (ipv4, psid) in (SHARED | WHOLE).items()], [])
    yield rig
    rig.stop()


def test_those_who_have_yet_to_come_are_known(rig: Rig) -> None:
    drain(rig)
    packets = [from_lwb4(n, n, src="192.0.2.2") for n in range(1, MANY + 1)]
    for packet in packets:
        rig.wire6.send(frame_of(packet, 6))
    waiting = {frame_of(out_of(packet), 4, out=True) for packet in packets}

    def all_came() -> bool:
        waiting.difference_update(frames(rig.wire4, MANY, 0.3))
        return not waiting

    wait_for("nobody's first packet is lost", all_came)
    wait_for("it is read", lambda: MADE in rig.controller.log.read_text())
    system = rig.controller.rest("GET", "/v1/failover")[1]["supporting_system"]
    assert system["reading"] == []
    made = status(rig)
    assert {key: b["lwb4"] for key, b in made.items() if key.startswith("192.0.2.2/")} == {
        f"{ipv4}/{psid}": subscriber(n) for n, (ipv4, psid) in SHARED.items()
    }
    assert {b["origin"] for key, b in made.items() if key.startswith("192.0.2.2/")} == {"validated"}
    assert not {f"{ipv4}/{psid}" for ipv4, psid in WHOLE.values()} & made.keys()  # nobody came
    wait_for("all is confirmed", lambda: not rig.controller.switch()["backlog"])
    # Who comes now is the switch's business alone, in both directions.
    packet = from_lwb4(40, 40, src="192.0.2.2")
    known = {"from_softwire": 1, "to_internet": 1}
    run(rig, Scenario("out", send6=[packet], out4=[out_of(packet)], counters=known))
    back = downstream(dst="192.0.2.2") / UDP(sport=53, dport=ports(41))
    inside = forwarded(back)
    run(rig, Scenario("back", send4=[back], out6=[tunnelled(inside, subscriber(41))],
                      counters={"from_internet": 1, "to_softwire": 1}))  # fmt: skip


def test_who_is_not_known_is_still_asked_about(rig: Rig, postgres: Postgres) -> None:
    drain(rig)
    assert not passes(rig, from_lwb4(0x999, 41, src="192.0.2.2"))  # somebody else's port set
    new = from_lwb4(0x100, 62, src="192.0.2.2")
    assert not passes(rig, new)
    with contextlib.closing(Store(postgres.url)) as store:
        store.save([binding(0x100, 62, "192.0.2.2")], [])

    def through() -> bool:
        drain(rig)
        return passes(rig, new)

    wait_for("the no is forgotten", through)


def test_what_was_read_ahead_is_followed(rig: Rig, postgres: Postgres) -> None:
    with contextlib.closing(Store(postgres.url)) as store:
        store.save([binding(0x200, 50, "192.0.2.2")], [binding(51, 51, "192.0.2.2").key])

    def followed() -> bool:
        made = status(rig)
        return "192.0.2.2/51" not in made and made["192.0.2.2/50"]["lwb4"] == subscriber(0x200)

    wait_for("the changes are followed", followed)


def test_what_was_not_stored_yet_stays_when_the_controller_dies(
    rig: Rig, postgres: Postgres
) -> None:
    """The switch has flows of bindings that the new controller does not know: they go on, unless
    the supporting system says otherwise."""
    drain(rig)
    assert passes(rig, from_lwb4(44, 44, src="192.0.2.2"))
    before = counted(rig, "192.0.2.2/44")
    assert before >= 1
    rig.controller.kill()
    for file in rig.ovs.directory.glob("bindings.sqlite*"):
        file.unlink()
    with contextlib.closing(Store(postgres.url)) as store:
        store.save([], [binding(45, 45, "192.0.2.2").key])
    rig.controller.start()
    made = status(rig)
    assert made["192.0.2.2/44"]["lwb4"] == subscriber(44)
    assert made["192.0.2.2/44"]["origin"] == "validated"
    assert "192.0.2.2/45" not in made
    assert counted(rig, "192.0.2.2/44") == before  # the flow is the same, and has gone on counting
    flows = "\n".join(rig.ovs.flows("br0"))
    assert subscriber(44) in flows
    assert subscriber(45) not in flows


def counted(rig: Rig, key: str) -> int:
    found = rig.controller.rest("GET", f"/v1/bindings/{key}/counters")[1]
    return int(found["counters"]["lwaftr1"]["upstream"]["packets"])


def test_killed_while_it_reads(rig: Rig, postgres: Postgres) -> None:
    """A part is as much as there is here, so the database dies before it."""
    with contextlib.closing(Store(postgres.url)) as store:
        store.save([binding(n + 0x300, n, "192.0.2.3") for n in range(60)], [])
    rig.controller.kill()
    rig.controller.start()
    wait_for("both next hops are known", rig.neighbours_known)
    first = [frame_of(from_lwb4(n + 0x300, n, src="192.0.2.3"), 6) for n in range(60)]

    def made() -> int:
        return sum(key.startswith("192.0.2.3/") for key in status(rig))

    with storm(rig, first):
        wait_for("some are there", made)
        postgres.kill()
        postgres.start()
        wait_for("everybody is there", lambda: made() == 60, 40)
