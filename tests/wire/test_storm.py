"""Many subscribers without a binding send all the time, and some send from addresses that are not
theirs, while a part of the lwAFTR dies (kill -9). In the end everybody has what is his."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest
from scapy.layers.inet import UDP

from ryu_lw4o6.store import Store
from tests.support.ovs import wait_for
from tests.support.postgres import Postgres
from tests.support.rig import CONFIG, Rig
from tests.wire.scenario import frame_of, softwire, upstream
from tests.wire.test_data_packet import binding, drain, from_lwb4, passes, status, subscriber

SUBSCRIBERS = range(0x100, 0x13C)
IMPOSTORS = 20
OTHERS = 0x1000
"""Added to a subscriber's number it is that of an impostor."""
_PAUSE = 0.001


def rig_asking(postgres: Postgres, more: str = "") -> Rig:
    """A lwAFTR that asks an empty PostgreSQL, with ``more`` settings of that."""
    postgres.sql("drop schema public cascade; create schema public")
    return Rig(
        f"supporting_system: {{{{store: '{postgres.url}', remember_no: 1{more}}}}}\n"
        + CONFIG
        + "    failover: data-packet\n"
    )


@pytest.fixture(scope="module")
def rig(postgres: Postgres) -> Iterator[Rig]:
    rig = rig_asking(postgres)
    yield rig
    rig.stop()


def kill_database(rig: Rig, postgres: Postgres) -> None:
    postgres.kill()
    wait_for("questions have no answer", lambda: outcomes(rig)["unavailable"]["count"])
    postgres.start()


def kill_switch(rig: Rig, postgres: Postgres) -> None:
    rig.ovs.kill("ovs-vswitchd")
    rig.ovs.start_switch()
    rig.lw4o6("switch", "up")
    rig.ovs.reconnect("br0")


def kill_controller(rig: Rig, postgres: Postgres) -> None:
    rig.controller.kill()
    rig.controller.start()


@pytest.mark.parametrize(
    ("ipv4", "kill"),
    [("192.0.2.2", kill_database), ("192.0.2.3", kill_switch), ("192.0.2.4", kill_controller)],
)
def test_killed_in_a_storm(
    rig: Rig, postgres: Postgres, ipv4: str, kill: Callable[[Rig, Postgres], None]
) -> None:
    first = SUBSCRIBERS[0]
    with contextlib.closing(Store(postgres.url)) as store:
        store.save([binding(n, n - first, ipv4) for n in SUBSCRIBERS], [])
    packets = [from_lwb4(n, n - first, src=ipv4) for n in SUBSCRIBERS]
    strangers = [from_lwb4(n + OTHERS, n - first, src=ipv4) for n in SUBSCRIBERS[:IMPOSTORS]]
    right = {f"{ipv4}/{n - first}": subscriber(n) for n in SUBSCRIBERS}

    def made() -> dict[str, str]:
        return {key: b["lwb4"] for key, b in status(rig).items() if key.startswith(f"{ipv4}/")}

    with storm(rig, [frame_of(packet, 6) for packet in (*strangers, *packets)]):
        kill(rig, postgres)
        wait_for("everybody has a binding", lambda: made().keys() == right.keys(), 40)
    assert made() == right
    wait_for("all is confirmed", lambda: not rig.controller.switch()["backlog"])
    wait_for("both next hops are known", rig.neighbours_known)
    drain(rig)
    assert passes(rig, packets[0])
    assert passes(rig, packets[-1])
    drain(rig)
    assert not passes(rig, strangers[0])


def outcomes(rig: Rig) -> dict[str, dict[str, int]]:
    found = rig.controller.rest("GET", "/v1/failover/lwaftr1")[1]["validation"]["outcomes"]
    return dict(found)


@contextlib.contextmanager
def storm(rig: Rig, frames: list[bytes], pause: float = _PAUSE) -> Iterator[None]:
    """Somebody sends these frames, again and again."""
    over = threading.Event()

    def send() -> None:
        for frame in itertools.cycle(frames):
            if over.wait(pause):
                return
            with contextlib.suppress(OSError):  # the interface is full
                rig.wire6.send(frame)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_fewer_new_lwb4s_get_in_while_the_switch_cannot_keep_up(rig: Rig) -> None:
    """Whatever it is that waits: here packets of somebody known, while the switch stands still."""
    fewer, usual = "fewer new lwB4s get in", "as many new lwB4s get in as usual"
    before = rig.controller.log.read_text().count(usual)
    known = frame_of(softwire(upstream() / UDP(sport=1072, dport=53)), 6)
    os.kill(rig.ovs.switch_pid, signal.SIGSTOP)
    try:
        with storm(rig, [known] * 500, pause=0):
            wait_for(fewer, lambda: rig.controller.log.read_text().count(fewer) > before, 30)
    finally:
        os.kill(rig.ovs.switch_pid, signal.SIGCONT)
    wait_for(usual, lambda: rig.controller.log.read_text().count(usual) > before, 30)
