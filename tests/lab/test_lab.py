"""The lab as people use it: up, twice; broken, and up again; down, and nothing is left."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from ryu_lw4o6.vswitchd import revalidators
from tests.lab.commands import NAME, lab, left
from topo.build import OPTIONS, RUN, Builder
from topo.cli import main
from topo.nodes import wait_for
from topo.plan import SERVER, Lab


@pytest.fixture
def built() -> Iterator[Builder]:
    # What is left of a lab that could not be built is in nobody's way.
    (RUN / NAME).mkdir(parents=True, exist_ok=True)
    (RUN / NAME / OPTIONS).write_text(json.dumps(Lab(NAME).options()))
    try:
        done = lab("up")
        assert done.returncode == 0, done.stdout + done.stderr
        yield Builder(Lab(NAME))
    finally:
        lab("down")


def test_from_up_to_down(built: Builder) -> None:
    again = lab("up")
    assert "the lab is up already" in again.stdout
    status = lab("status")
    assert status.returncode == 0
    bound = "host2          lwB4 2001:db8:b4:2::1: 192.0.2.1 PSID 4 applied (lwaftr1)"
    assert bound in status.stdout
    fetch = ["curl", "-sSf", "-m", "10", f"http://{SERVER}/"]
    assert "IPv4 Internet" in lab("shell", "host2", *fetch).stdout
    assert lab("shell", "host1", *fetch).returncode != 0  # it has no binding
    body = '{"lwb4": "2001:db8:b4:1::1", "ipv4": "192.0.2.1", "psid": 3}'
    assert lab("rest", "POST", "/v1/bindings?wait=applied", body).returncode == 0
    assert "IPv4 Internet" in lab("shell", "host1", *fetch).stdout
    assert lab("shell", "host9", "true").stderr.startswith("lw4o6-lab: there is no node host9; ")
    switch = built.run("lwaftr1", "lw4o6", "switch", "status", str(built.lwaftr.config))
    assert "port eth6        up, receive buffer 16384 KiB" in switch.stdout
    assert "softwire shim    attached" in switch.stdout
    assert switch.returncode == 0  # all is as it should be
    waiting = [
        os.getpriority(os.PRIO_PROCESS, t)
        for t in revalidators(built.lwaftr.pid("ovs-vswitchd") or 0)
    ]
    assert set(waiting) == {10}
    assert lab("down").stdout == f"lab {NAME} is down\n"
    assert left() == []
    assert lab("down").stdout == f"lab {NAME} is not there\n"
    assert f"the lab is not up; run lw4o6-lab --name {NAME} up" in lab("status").stderr


def test_what_is_no_name_and_does_not_go_together() -> None:
    for name in ("", "..", "a/b", "a b", "x" * 41):
        with pytest.raises(SystemExit):
            main(["--name", name, "status"])
    done = lab("up", "--mode", "active-active")
    assert done.returncode == 1
    assert done.stderr == "lw4o6-lab: --mode goes with --failover\n"


def test_a_broken_lab_is_built_anew(built: Builder) -> None:
    built.lwaftr.kill("ryu-manager", "ovs-vswitchd")
    done = lab("up")
    assert done.returncode == 0
    assert "removing what is left of an older lab" in done.stdout
    wait_for("it works", built.lwaftr.ready)


def test_a_large_packet_crosses_whole(built: Builder) -> None:
    """1500 bytes of IPv4 fit into the access network's 1540, and 1501 do not leave the host."""
    ping = ["ping", "-c", "1", "-W", "3", "-M", "do", str(SERVER)]
    assert lab("shell", "host2", *ping, "-s", "1472").returncode == 0
    assert "message too long" in lab("shell", "host2", *ping, "-s", "1473").stderr.lower()
