"""Announcements as a real router (BIRD) sees them, through a real ExaBGP."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ryu_lw4o6.announce.exabgp import HOLD_SECONDS
from tests.support.bird import Bird
from tests.support.netns import namespace
from tests.support.ovs import run, wait_for
from tests.support.rig import CONFIG, NEXT_HOP4, NEXT_HOP6, Rig

ROUTES = {"2001:db8:ffff::1/128", "2001:db8:ffff::2/128",
          "192.0.2.0/24", "198.18.0.0/30", "203.0.113.0/29"}  # fmt: skip
ANNOUNCE = (
    "run_directory: {directory}\n"
    + CONFIG
    + """\
    announce:
      local_as: 64512
      local_preference: 50
      med: 7
      without_controller: WITHOUT
      peers:
        - {{address: "2001:db8:c::fe", local_address: "2001:db8:c::1", as: 64512}}
"""
)


class Network:
    def __init__(self, rig: Rig, bird: Bird) -> None:
        self.rig = rig
        self.bird = bird

    def announced(self) -> bool:
        return set(self.bird.routes()) == ROUTES

    def withdrawn(self) -> bool:
        return not self.bird.routes()

    def seconds_until(self, condition: str) -> float:
        started = time.monotonic()
        wait_for(condition, getattr(self, condition), 15)
        return time.monotonic() - started

    def exabgp(self) -> int:
        return int((self.rig.ovs.directory / "exabgp-lwaftr1.pid").read_text())

    def peers(self) -> object:
        announcements = self.failover()["announcements"]
        assert isinstance(announcements, dict)
        return announcements["peers"]

    def failover(self) -> dict[str, object]:
        found: dict[str, object] = self.rig.controller.rest("GET", "/v1/failover/lwaftr1")[1]
        return found


CLOCK = """\
import time
from pathlib import Path
clock = time.time
time.time = lambda: clock() + float(Path("{file}").read_text())
"""
"""For every Python program of a machine whose clock is wrong by the seconds in a file."""


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("clock")
    file = directory / "wrong"
    file.write_text("0")
    (directory / "sitecustomize.py").write_text(CLOCK.format(file=file))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(directory))
        yield file


@pytest.fixture(scope="module")
def network(clock: Path) -> Iterator[Network]:
    yield from build("withdraw")


def build(without: str) -> Iterator[Network]:
    rig = Rig(ANNOUNCE.replace("WITHOUT", without))
    try:
        with namespace() as router:
            run("ip", "link", "add", "bgp0", "netns", rig.ovs.name, "type", "veth",
                "peer", "name", "bgp1", "netns", router)  # fmt: skip
            for name, link, address in ((rig.ovs.name, "bgp0", "1"), (router, "bgp1", "fe")):
                run("ip", "-n", name, "addr", "add", f"2001:db8:c::{address}/64", "dev", link,
                    "nodad")  # fmt: skip
                run("ip", "-n", name, "link", "set", link, "up")
            bird = Bird(router, 64512, [("2001:db8:c::1", 64512)])
            network = Network(rig, bird)
            try:
                wait_for("everything is announced", network.announced, 30)
                yield network
            finally:
                bird.stop()
                rig.controller.kill()
                os.kill(network.exabgp(), signal.SIGTERM)
    finally:
        rig.stop()


def test_routes_have_next_hops_and_preference(network: Network) -> None:
    routes = network.bird.routes()
    for prefix in ROUTES:
        assert routes[prefix]["local_pref"] == "50"
        assert routes[prefix]["med"] == "7"
        hop = routes[prefix]["next_hop"].split()[0]
        assert hop == ("2001:db8:1::1" if ":" in prefix else "198.51.100.1")
    found = network.failover()
    assert found["announcements"] == {
        "announced": True, "obstacle": None, "speaker": "running",
        "peers": {"2001:db8:c::fe": "up"},
    }  # fmt: skip


def test_the_clock_is_set(network: Network, clock: Path) -> None:
    log = network.rig.controller.log
    before = log.read_text().count("BGP session with")
    clock.write_text("-3600")
    time.sleep(HOLD_SECONDS + 0.5)  # nothing is to happen, which takes its time
    assert network.announced()
    assert log.read_text().count("BGP session with") == before


def test_drain_and_its_end(network: Network) -> None:
    status, found = network.rig.controller.rest("POST", "/v1/switches/lwaftr1/drain")
    assert (status, found["drained"], found["obstacle"]) == (200, True, "drained")
    assert network.seconds_until("withdrawn") < 2
    # A drained instance is drained after a restart as well.
    network.rig.controller.kill()
    network.rig.controller.start()
    wait_for("it has looked", lambda: network.failover()["obstacle"] == "drained")
    assert network.withdrawn()
    assert network.rig.controller.rest("DELETE", "/v1/switches/lwaftr1/drain")[0] == 200
    wait_for("it is announced", network.announced)


def test_shim_and_addresses_are_taken_off(network: Network) -> None:
    network.rig.ovs("sh", "-c", "ip -6 addr flush dev br0; tc filter del dev eth6 egress")
    network.seconds_until("withdrawn")
    assert network.failover()["obstacle"] == (
        "the softwire shim is gone from eth6 (egress); "
        "br0 has lost 2001:db8:1::1, 2001:db8:ffff::1, 2001:db8:ffff::2"
    )
    network.rig.lw4o6("switch", "up")
    wait_for("it is announced", network.announced)


def test_the_controller_dies_and_comes_back(network: Network) -> None:
    pid = network.exabgp()
    network.rig.controller.kill()
    assert network.seconds_until("withdrawn") < 2
    network.rig.controller.start()
    wait_for("it is announced", network.announced)
    assert network.exabgp() == pid  # the session stayed up, and the new controller knows
    wait_for("it says so", lambda: network.peers() == {"2001:db8:c::fe": "up"})
    assert Path(f"/proc/{pid}").exists()


def test_the_controller_stands_still(network: Network) -> None:
    controller = network.rig.controller
    os.kill(controller.pid, signal.SIGSTOP)
    try:
        network.seconds_until("withdrawn")
    finally:
        os.kill(controller.pid, signal.SIGCONT)
    wait_for("it is announced again", network.announced, 30)


def test_exabgp_dies(network: Network) -> None:
    before = network.exabgp()
    os.kill(before, signal.SIGKILL)
    assert network.seconds_until("withdrawn") < 4
    wait_for("another one is started", network.announced, 20)
    assert network.exabgp() != before


@pytest.mark.parametrize("link", ["eth6", "eth4"])
def test_a_link_goes_down_and_up(network: Network, link: str) -> None:
    network.rig.ovs("ip", "link", "set", link, "down")
    assert network.seconds_until("withdrawn") < 2
    obstacle = network.failover()["obstacle"]
    assert link in str(obstacle)
    network.rig.ovs("ip", "link", "set", link, "up")
    wait_for("it is announced again", network.announced, 20)


@pytest.mark.parametrize(("side", "next_hop"), [("4", NEXT_HOP4), ("6", NEXT_HOP6)])
def test_a_link_that_is_back_is_of_use_when_its_next_hop_answers(
    network: Network, side: str, next_hop: str
) -> None:
    """A router looks for duplicates of its address before it uses it (RFC 4862 section 5.4)."""
    router, address = network.rig.routers[side], f"{next_hop}/{24 if side == '4' else 64}"
    network.rig.ovs("ip", "link", "set", f"eth{side}", "down")
    wait_for("it is withdrawn", network.withdrawn)
    run("ip", "-n", router, "addr", "del", address, "dev", f"wire{side}", check=False)
    network.rig.ovs("ip", "link", "set", f"eth{side}", "up")
    obstacle = f"the next hop {next_hop} does not answer"
    wait_for("that is what keeps it", lambda: network.failover()["obstacle"] == obstacle)
    assert network.withdrawn()
    run("ip", "-n", router, "addr", "add", address, "dev", f"wire{side}", "nodad")
    wait_for("it is announced again", network.announced, 20)


@pytest.mark.parametrize(
    ("side", "address"), [("4", "198.51.100.254/24"), ("6", "2001:db8:1::fe/64")]
)
def test_a_next_hop_falls_silent_and_answers_again(
    network: Network, side: str, address: str
) -> None:
    """The link has its carrier all the time."""
    router = ["-n", network.rig.routers[side], "addr"]
    run("ip", *router, "del", address, "dev", f"wire{side}")
    wait_for("it is withdrawn", network.withdrawn, 30)
    assert network.failover()["obstacle"] == (
        f"the next hop {address.split('/')[0]} does not answer any more"
    )
    run("ip", *router, "add", address, "dev", f"wire{side}", "nodad")
    wait_for("it is announced again", network.announced, 60)


def test_a_port_is_taken_away(network: Network) -> None:
    ovs = network.rig.ovs
    ovs("ovs-vsctl", "del-port", "br0", "softwire0")
    assert network.seconds_until("withdrawn") < 2
    assert network.failover()["obstacle"] == "the switch is waiting for ports"
    network.rig.lw4o6("switch", "up")
    wait_for("it is announced again", network.announced, 20)


def test_the_switch_stands_still(network: Network) -> None:
    pid = network.rig.ovs.switch_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        assert network.seconds_until("withdrawn") < 6
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for("it is announced again", network.announced, 30)


def test_the_switch_dies_and_comes_back(network: Network) -> None:
    network.rig.ovs.kill("ovs-vswitchd")
    assert network.seconds_until("withdrawn") < 2
    network.rig.ovs.start_switch()
    network.rig.lw4o6("switch", "up")
    network.rig.ovs.reconnect("br0")
    wait_for("it is announced again", network.announced, 30)


def test_a_switch_that_does_not_know_the_way_to_lwb4s_is_not_announced(network: Network) -> None:
    """A new Open vSwitch has yet to learn where its IPv6 next hop is, and would drop packets."""
    ovs, router = network.rig.ovs, network.rig.routers["6"]
    run("ip", "-n", router, "addr", "del", f"{NEXT_HOP6}/64", "dev", "wire6")
    ovs.kill("ovs-vswitchd")
    assert network.seconds_until("withdrawn") < 2
    ovs.start_switch()
    network.rig.lw4o6("switch", "up")
    ovs.reconnect("br0")
    obstacle = f"the next hop {NEXT_HOP6} does not answer"
    wait_for("that is what keeps it", lambda: network.failover()["obstacle"] == obstacle, 30)
    assert network.withdrawn()
    run("ip", "-n", router, "addr", "add", f"{NEXT_HOP6}/64", "dev", "wire6", "nodad")
    wait_for("it is announced again", network.announced, 30)


def test_a_controller_that_is_told_to_end_withdraws_and_leaves_nothing(network: Network) -> None:
    pid = network.exabgp()
    network.rig.controller.terminate()
    assert network.seconds_until("withdrawn") < 2
    wait_for("ExaBGP has ended", lambda: not _runs(pid))
    network.rig.controller.start()
    wait_for("it is announced again", network.announced, 20)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def keeping() -> Iterator[Network]:
    yield from build("keep")


def test_routes_can_be_kept_without_a_controller(keeping: Network) -> None:
    pid, before = keeping.exabgp(), keeping.bird.routes()
    keeping.rig.controller.kill()
    time.sleep(1)  # nothing is to happen, which takes its time
    assert keeping.announced()
    keeping.rig.controller.start()
    wait_for("the controller has found it", lambda: _speaks(keeping), 20)
    assert keeping.bird.routes() == before  # not withdrawn for a moment, either
    assert keeping.exabgp() == pid
    keeping.rig.controller.rest("POST", "/v1/switches/lwaftr1/drain")
    assert keeping.seconds_until("withdrawn") < 2


def _speaks(network: Network) -> bool:
    found = network.failover()["announcements"]
    return isinstance(found, dict) and bool(found["announced"])
