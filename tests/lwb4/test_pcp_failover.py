"""The lab's lwB4 at a real lwAFTR with a PCP server: the ICMPv6-trigger failover, whole.

The lwAFTR forgets its bindings, as a backup that never had them. PSID offset 0, length 6: 1024
contiguous ports to each lwB4.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.lwb4.test_agent import Socket
from tests.support.lab_lwb4 import AFTR, GATEWAY_MAC, WAN_MAC, Lwb4
from tests.support.ovs import run, wait_for
from tests.support.rig import NIC4, ROUTER4, Rig, frames

CONFIG = """\
store: sqlite:///{{directory}}/bindings.sqlite
prefixes:
  - {{{{prefix: {prefix}, psid_offset: 0, psid_length: 6}}}}
instances:
  - name: lwaftr1
    datapath_id: 1
    bridge: br0
    aftr_addresses: ["2001:db8:ffff::1"]
    ipv6: {{{{port: eth6, address: "2001:db8:1::1/64", next_hop: "2001:db8:1::fe", mtu: 1540}}}}
    ipv4: {{{{port: eth4, address: 198.51.100.1/24, next_hop: 198.51.100.254}}}}
    pcp: {{{{}}}}
"""
POOL, OTHER_POOL = "192.0.2.0/30", "203.0.113.0/30"


class Lwaftr(Rig):
    """The router on its IPv6 side is the access router of an lwB4."""

    def __init__(self) -> None:
        super().__init__(CONFIG.format(prefix=POOL))
        try:
            for end, name in ((self.router, "wire6"), (self.ovs.name, "eth6")):
                run("ip", "-n", end, "link", "set", name, "mtu", "1540")
            run("ip", "-n", self.router, "-6", "route", "add", f"{AFTR}/128", "via",
                "2001:db8:1::1")  # fmt: skip
        except BaseException:
            self.stop()
            raise

    def replace(self, pool: str = POOL) -> None:
        """Another lwAFTR in its place, which has never heard of any binding."""
        self.controller.kill()
        for file in self.ovs.directory.glob("bindings.sqlite*"):
            file.unlink()
        text = CONFIG.format(prefix=pool).format(directory=self.ovs.directory)
        self.controller.config.write_text(text)
        self.controller.start()
        wait_for("both next hops are known", self.neighbours_known)

    def bindings(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.controller.rest("GET", "/v1/bindings")[1]["bindings"]
        return found

    def from_internet(self, packet: Packet) -> None:
        self.wire4.send(bytes(Ether(src=ROUTER4, dst=NIC4) / packet))


@pytest.fixture
def network() -> Iterator[tuple[Lwaftr, Lwb4]]:
    with contextlib.ExitStack() as stack:
        lwaftr = Lwaftr()
        stack.callback(lwaftr.stop)
        lwb4 = Lwb4(lwaftr.router)
        stack.callback(lwb4.stop)
        lwb4.start("pcp")
        wait_for("it is bound", lambda: lwb4.status()["state"] == "bound")
        yield lwaftr, lwb4


def arrived(lwaftr: Rig, text: bytes, timeout: float) -> Packet | None:
    """The packet with this payload that reaches the Internet."""
    for frame in frames(lwaftr.wire4, 100, timeout):
        packet = Ether(frame).payload
        if UDP in packet and bytes(packet[UDP].payload) == text:
            return packet
    return None


def crosses(lwaftr: Rig, sender: Socket, text: bytes) -> Packet:
    """Send, until it gets through: what arrives in the Internet."""
    found: list[Packet] = []

    def through() -> bool:
        sender.send(text)
        packet = arrived(lwaftr, text, 0.3)
        if packet is not None:
            found.append(packet)
        return packet is not None

    wait_for("packets get through", through)
    return found[0]


def test_from_provisioning_to_failover_with_the_same_pool(
    network: tuple[Lwaftr, Lwb4],
) -> None:
    lwaftr, lwb4 = network
    (binding,) = lwaftr.bindings()
    status = lwb4.status()
    assert (binding["lwb4"], binding["origin"]) == (lwb4.lwb4, "pcp")
    assert status["ipv4"] == binding["ipv4"]
    sender = Socket(lwb4)
    before = crosses(lwaftr, sender, b"before")
    assert before.src == status["ipv4"]
    lwaftr.replace()
    assert lwaftr.bindings() == []
    after = crosses(lwaftr, sender, b"after")
    # The lwAFTR's own error made it, and the connection goes on.
    assert lwb4.counters["icmpv6_accepted"] == 1
    assert (after.src, after[UDP].sport) == (before.src, before[UDP].sport)
    lwaftr.from_internet(
        IP(src=after.dst, dst=after.src) / UDP(sport=53, dport=after[UDP].sport) / b"back"
    )
    assert sender.receive() == b"back"
    assert lwb4.events("address_changed") == []


def test_failover_to_another_pool(network: tuple[Lwaftr, Lwb4]) -> None:
    lwaftr, lwb4 = network
    sender = Socket(lwb4)
    old = crosses(lwaftr, sender, b"before")
    lwaftr.replace(OTHER_POOL)
    new = crosses(lwaftr, sender, b"after")
    assert new.src.startswith("203.0.113.")
    (event,) = lwb4.events("address_changed")
    assert event["old"].startswith(f"{old.src}:")
    assert event["lease"].startswith(f"{new.src}:")


def test_forged_errors_at_a_real_lwaftr(network: tuple[Lwaftr, Lwb4]) -> None:
    """Somebody in the access network sends errors in the lwAFTR's name."""
    lwaftr, lwb4 = network
    sent = crosses(lwaftr, Socket(lwb4), b"x")
    guess = IPv6(src=lwb4.lwb4, dst=AFTR, nh=4) / IP(src=sent.src, dst="198.18.0.1")
    guess = guess / UDP(sport=sent[UDP].sport, dport=443)
    for quote, verdict in ((guess, "stale"), (guess.payload, "malformed")):
        error = ICMPv6DestUnreach(code=5) / Raw(bytes(quote))
        packet = Ether(src=GATEWAY_MAC, dst=WAN_MAC) / IPv6(src=AFTR, dst=lwb4.lwb4) / error
        lwb4.wan.send(bytes(packet))
        wait_for(verdict, lambda v=verdict: lwb4.counters.get(f"icmpv6_{v}") == 1)  # type: ignore[misc]
    assert "restarts" not in lwb4.counters
    assert lwb4.counters["sent"] == 1


def test_a_clean_stop_removes_the_binding(network: tuple[Lwaftr, Lwb4]) -> None:
    lwaftr, lwb4 = network
    assert len(lwaftr.bindings()) == 1
    lwb4.terminate()
    wait_for("the binding is gone", lambda: lwaftr.bindings() == [])
