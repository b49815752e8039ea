"""The failover lab as people use it: an lwAFTR fails in every way there is, and comes back."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.commands import Ping, lab, left, up
from topo.failover.build import FailoverBuilder
from topo.failover.faults import How
from topo.plan import ANYCAST, SERVER


@pytest.fixture(scope="module")
def built() -> Iterator[FailoverBuilder]:
    """Data-packet trigger, active/backup, each lwAFTR with its own store."""
    try:
        yield up()
    finally:
        lab("down")
    assert left() == []


def test_up_is_safe_to_repeat_and_status_shows_it_all(built: FailoverBuilder) -> None:
    assert "the lab is up already" in lab("up", "--failover").stdout
    other = lab("up", "--failover", "--mechanism", "icmpv6")
    assert other.stderr == (
        "lw4o6-lab: lw4o6-test is up as another lab; first run: lw4o6-lab --name lw4o6-test down\n"
    )
    assert built.run("host1", "ping", "-c", "1", "-W", "3", str(SERVER)).returncode == 0
    status = lab("status")
    assert status.returncode == 0, status.stdout
    assert f"access         {ANYCAST}/128 by lwaftr1\n" in status.stdout
    assert "database       PostgreSQL runs" in status.stdout
    assert re.search(r"exabgp pid \d+, announced\n", status.stdout)
    assert "2001:db8:b4:1::1: 192.0.2.1 PSID 3 applied (lwaftr1)" in status.stdout
    found = lab("rest", "--lwaftr", "lwaftr2", "GET", "/v1/failover/lwaftr2")
    assert '"mechanism": "data-packet"' in found.stdout
    assert lab("rest", "--lwaftr", "lwaftr3", "GET", "/v1").returncode == 1


@pytest.mark.parametrize("how", How)
def test_traffic_goes_on_through_the_backup_and_returns(built: FailoverBuilder, how: How) -> None:
    pings = [Ping(built, sub.host) for sub in built.lab.subscribers]
    done = lab("fail", "primary", "--how", how)
    assert done.stdout == f"primary ({how}): packets for {ANYCAST} go to lwaftr2\n", done.stderr
    assert built.ways("border", built.prefixes("border")[0]) == ["lwaftr2"]
    for sub in built.lab.subscribers:
        built.run(sub.host, "ping", "-c", "1", "-W", "3", str(SERVER))
    done = lab("recover", "primary")
    assert done.stdout == f"primary is back: packets for {ANYCAST} go to lwaftr1\n", done.stderr
    if how is How.LINK:  # what routers do when a link is back takes them two seconds
        built.run("host1", "ping", "-c", "20", "-i", "0.1", "-W", "3", str(SERVER))
    lost = [ping.lost() for ping in pings]
    # Hundredths of a second; a drained lwAFTR loses nothing.
    assert max(lost) <= (0 if how is How.DRAIN else 100), lost
    assert built.lwaftr.announced()


def test_the_backup_may_fail_as_well(built: FailoverBuilder) -> None:
    ping = Ping(built, "host1")
    assert lab("fail", "backup", "--how", "switch").returncode == 0
    assert lab("fail", "backup", "--how", "kill").returncode == 0  # what is left of it
    assert built.anycast_ways == ["lwaftr1"]
    assert lab("recover", "backup").returncode == 0
    assert lab("recover", "backup").returncode == 0  # safe to repeat
    assert ping.lost() == 0


def test_a_process_that_has_got_the_number_of_a_dead_one_is_left_alone(
    built: FailoverBuilder, tmp_path: Path
) -> None:
    (tmp_path / "pid").write_text(str(os.getpid()))
    assert built.running("lwaftr1", tmp_path / "pid") is None
    assert built.lwaftr.pid("ryu-manager")


def test_what_was_provisioned_while_the_primary_was_away_is_known_when_it_returns(
    built: FailoverBuilder,
) -> None:
    """Found again, since the supporting system is asked; and with the lwB4 it has now."""
    assert lab("fail", "primary", "--how", "kill").returncode == 0
    for sub in built.lab.subscribers:
        built.run(sub.host, "ping", "-c", "1", "-W", "3", str(SERVER))
    assert lab("recover", "primary").returncode == 0
    for sub in built.lab.subscribers:
        built.run(sub.host, "ping", "-c", "1", "-W", "3", str(SERVER))
    for lwaftr in built.lwaftrs.values():
        bindings = lwaftr.rest("GET", "/v1/bindings")[1]["bindings"]
        assert {(b["lwb4"], b["ipv4"], b["psid"]) for b in bindings} == {
            (str(sub.lwb4), str(sub.ipv4), sub.psid) for sub in built.lab.subscribers
        }
