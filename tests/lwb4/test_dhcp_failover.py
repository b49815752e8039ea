"""The lab's lwB4 at a real lwAFTR that relays to a real Kea: the ICMPv6-trigger failover, whole.

192.0.2.0/28 is cut by offset 6, length 6: 63 ranges of 16 ports to each lwB4.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import UDP

from ryu_lw4o6.core.portset import PortParams
from tests.lwb4.test_agent import Socket
from tests.lwb4.test_pcp_failover import crosses
from tests.provisioning.dhcp_rig import LEASE_SECONDS, DhcpRig
from tests.support.lab_lwb4 import AFTR, Lwb4
from tests.support.ovs import wait_for


class Network:
    """``rig`` is the lwAFTR with Kea, ``lwb4`` the lab's."""

    def __init__(self, directory: Path) -> None:
        self.rig = DhcpRig(directory)
        try:
            self.lwb4 = Lwb4(self.rig.router)
        except BaseException:
            self.rig.stop()
            raise

    def start(self) -> None:
        self.lwb4.start("dhcp", "--dhcpv6", AFTR)
        wait_for("it is bound", lambda: self.lwb4.status()["state"] == "bound")

    def forget(self) -> None:
        """Another lwAFTR in its place, which has never heard of any binding."""
        self.rig.controller.kill()
        for file in self.rig.ovs.directory.glob("bindings.sqlite*"):
            file.unlink()
        self.rig.controller.start()
        wait_for("both next hops are known", self.rig.neighbours_known)

    def stop(self) -> None:
        self.lwb4.stop()
        self.rig.stop()


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    network = Network(tmp_path)
    try:
        network.start()
        yield network
    finally:
        network.stop()


def test_from_provisioning_to_failover(network: Network) -> None:
    rig, lwb4 = network.rig, network.lwb4
    status = lwb4.status()
    (binding,) = rig.bindings()
    assert (binding["lwb4"], binding["ipv4"]) == (lwb4.lwb4, status["ipv4"])
    ports = list(PortParams(6, 6).port_ranges(binding["psid"]))
    assert status["ports"] == [f"{r.start}-{r.stop - 1}" for r in ports]
    assert LEASE_SECONDS - 10 < status["seconds_left"] <= LEASE_SECONDS
    # INFORMATION-REQUEST, DISCOVER, REQUEST, and their answers.
    assert status["history"][0]["messages"] == 6
    sender = Socket(lwb4)
    before = crosses(rig, sender, b"before")
    network.forget()
    assert rig.bindings() == []
    after = crosses(rig, sender, b"after")
    # The lwAFTR's own error made it, and the server gave the same again: REQUEST and ACK.
    assert lwb4.counters["icmpv6_accepted"] == 1
    assert lwb4.status()["history"][1]["messages"] == 2
    assert (after.src, after[UDP].sport) == (before.src, before[UDP].sport)
    assert lwb4.events("address_changed") == []
    assert rig.bindings()[0]["lwb4"] == lwb4.lwb4


def test_killed_and_started_again_it_asks_for_its_lease(network: Network) -> None:
    lwb4 = network.lwb4
    sender = Socket(lwb4)
    before = crosses(network.rig, sender, b"before")
    lwb4.kill()
    network.start()
    assert lwb4.status()["history"][0]["messages"] == 2
    after = crosses(network.rig, sender, b"after")
    assert (after.src, after[UDP].sport) == (before.src, before[UDP].sport)


def test_a_lease_that_the_server_has_forgotten_is_given_up(network: Network) -> None:
    """NAK, and all from the beginning."""
    rig, lwb4 = network.rig, network.lwb4
    (lease,) = rig.kea.leases()
    deleted = rig.kea.command(
        {"command": "lease4-del", "arguments": {"ip-address": lease["ip-address"]}}
    )
    assert deleted["result"] == 0
    lwb4.status("provision")
    wait_for("it has begun anew", lambda: len(lwb4.status()["history"]) == 2, 30)
    assert lwb4.status()["state"] == "bound"


def test_a_server_that_is_away_is_waited_for(network: Network) -> None:
    rig, lwb4 = network.rig, network.lwb4
    sender = Socket(lwb4)
    crosses(rig, sender, b"before")
    with rig.kea.frozen():
        lwb4.status("provision")
        assert lwb4.status()["state"] == "rebooting"
        # The lease is still there, and so is the binding.
        crosses(rig, sender, b"meanwhile")
    wait_for("it is bound again", lambda: lwb4.status()["state"] == "bound", 20)


def test_a_clean_stop_releases(network: Network) -> None:
    network.lwb4.terminate()
    wait_for("the binding is gone", lambda: network.rig.bindings() == [])
    states = [lease["state"] for lease in network.rig.kea.leases()]
    assert states in ([], [2])  # reclaimed, if Kea keeps it at all
