"""The lab's lwB4 as it is run, in namespaces, with real packets; the lwAFTR is played by hand."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Address, IPv6Address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from ryu_lw4o6.core import pcp
from ryu_lw4o6.core.portset import PortParams
from tests.lwb4.far import SERVER, Far
from tests.support.controller import BIN
from tests.support.lab_lwb4 import AFTR, HOST, Lwb4, lwb4
from tests.support.netns import inside
from tests.support.ovs import run, wait_for
from topo.lwb4.kernel import Kernel
from topo.lwb4.lease import Lease
from topo.lwb4.softwire import Softwire

PORTS = range(2048, 3072)


@pytest.fixture
def rig() -> Iterator[Lwb4]:
    with lwb4() as built:
        yield built


@pytest.fixture
def far(rig: Lwb4) -> Far:
    """An lwB4 that has 192.0.2.9, ports 2048 to 3071, by PCP."""
    far = Far(rig)
    rig.start("pcp")
    far.grant()
    rig.wait_until_bound("192.0.2.9")
    return far


class Socket:
    """A UDP socket of the LAN host."""

    def __init__(self, rig: Lwb4, port: int = 0) -> None:
        with inside(rig.host):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.settimeout(5)
        self._socket.bind((HOST, port))

    def send(self, text: bytes = b"x", port: int = 53) -> None:
        self._socket.sendto(text, (SERVER, port))

    def receive(self) -> bytes:
        return self._socket.recv(2000)


def one(far: Far, sender: Socket, text: bytes = b"x") -> Packet:
    """What comes out of the softwire when the host sends one packet."""
    sender.send(text)
    (packet,) = far.data()
    assert bytes(packet[UDP].payload) == text
    return packet


def requests(far: Far) -> int:
    """How many PCP requests there are in a moment."""
    return sum(far.request(0.3) is not None for _ in range(2))


def counted(rig: Lwb4, verdict: str) -> int:
    return rig.counters.get(f"icmpv6_{verdict}", 0)


def test_bound_by_pcp_and_translated(rig: Lwb4, far: Far) -> None:
    status = rig.status()
    assert (status["state"], status["ports"]) == ("bound", ["2048-3071"])
    packet = one(far, Socket(rig))
    # RFC 2473 section 3, and nothing else between the two headers.
    assert bytes(packet)[:8] == bytes.fromhex("60000000") + len(packet.payload).to_bytes(
        2, "big"
    ) + bytes([4, packet.hlim])
    inner = packet.payload
    assert (inner.src, inner.dst) == ("192.0.2.9", SERVER)
    assert inner[UDP].sport in PORTS


def test_an_answer_reaches_the_host(rig: Lwb4, far: Far) -> None:
    sender = Socket(rig)
    port = one(far, sender).payload[UDP].sport
    back = IP(src=SERVER, dst="192.0.2.9") / UDP(sport=53, dport=port)
    far.send(back / b"forged", aftr="2001:db8:bad::1")  # from who is not the lwAFTR
    far.send(back / b"answer")
    assert sender.receive() == b"answer"


def test_an_error_of_the_lwaftr_restarts_provisioning(rig: Lwb4, far: Far) -> None:
    sender = Socket(rig)
    packet = one(far, sender)
    far.refuse(packet)
    request = far.grant()
    # It asks for what it has.
    assert request.mapping is not None
    assert request.mapping.external_address == IPv4Address("192.0.2.9")
    assert request.mapping.external_port == 2048
    wait_for("it is bound again", lambda: len(rig.events("bound")) == 2)
    # The address is the same, and the connection goes on by the same port.
    assert one(far, sender).payload[UDP].sport == packet.payload[UDP].sport
    assert rig.counters["restarts"] == 1
    assert rig.events("address_changed") == []


def test_when_the_address_changes_connections_are_translated_anew(rig: Lwb4, far: Far) -> None:
    sender = Socket(rig)
    far.refuse(one(far, sender))
    far.grant(address="203.0.113.7", first=4096)
    rig.wait_until_bound("203.0.113.7")
    (event,) = rig.events("address_changed")
    assert (event["old"], event["lease"]) == ("192.0.2.9:2048-3071", "203.0.113.7:4096-5119")
    # The same socket of the host, by the new address: nothing is left of the old one.
    packet = one(far, sender)
    assert packet.payload.src == "203.0.113.7"
    assert packet.payload[UDP].sport in range(4096, 5120)
    # What is sent to the old one is nobody's.
    far.send(IP(src=SERVER, dst="192.0.2.9") / UDP(sport=53, dport=2048) / b"late")
    far.send(IP(src=SERVER, dst="203.0.113.7") / UDP(sport=53, dport=packet[UDP].sport) / b"ok")
    assert sender.receive() == b"ok"


def test_forged_errors_do_nothing_but_count(rig: Lwb4, far: Far) -> None:
    sender = Socket(rig)
    packet = one(far, sender)
    other = packet.copy()
    other.payload[UDP].sport = 2047 if packet[UDP].sport != 2047 else 1
    never_sent = packet.copy()
    never_sent.payload[UDP].dport = 54
    elsewhere = packet.copy()
    elsewhere[IPv6].src = "2001:db8:b4:2::1"
    private = packet.copy()
    private[IP].src = HOST
    del private[IP].chksum
    for quote, source, verdict in (
        (packet, "2001:db8:bad::1", "wrong_source"),
        (elsewhere, AFTR, "wrong_softwire"),
        (private, AFTR, "wrong_address"),
        (other, AFTR, "wrong_port"),
        (never_sent, AFTR, "stale"),
        (Raw(bytes(packet)[:60]), AFTR, "malformed"),
    ):
        far.refuse(quote, source)
        wait_for(verdict, partial(counted, rig, verdict))
    far.refuse(packet, checksum=0x1234)  # which the kernel drops
    assert requests(far) == 0
    assert "icmpv6_accepted" not in rig.counters
    # None of them is held against the true one, which is accepted once.
    far.refuse(packet)
    far.grant()
    far.refuse(packet)
    wait_for("replayed", lambda: counted(rig, "replayed") == 1)
    assert requests(far) == 0
    assert rig.counters["icmpv6_accepted"] == 1


def test_errors_by_the_dozen_restart_it_once(rig: Lwb4, far: Far) -> None:
    sender = Socket(rig)
    burst = [one(far, sender, b"%d" % number) for number in range(20)]
    for packet in burst:
        far.refuse(packet)
    far.grant()
    wait_for("all are judged", lambda: counted(rig, "held_down") == 19)
    assert rig.counters["icmpv6_accepted"] == 1


@pytest.mark.parametrize(
    ("protocol", "inner"),
    [
        ("tcp", TCP(sport=2048, dport=80, flags="S")),
        ("icmp", ICMP(type=8, id=2048)),
    ],
)
def test_flows_of_all_kinds_are_known(rig: Lwb4, far: Far, protocol: str, inner: Packet) -> None:
    if protocol == "icmp":
        host = rig.on_host("ping", "-c", "1", "-W", "1", SERVER)
    else:
        host = rig.on_host("curl", "-sS", "-m", "2", f"http://{SERVER}/")
    (packet,) = far.data()
    assert packet.payload.haslayer(type(inner))
    far.refuse(packet)
    wait_for("it is accepted", lambda: counted(rig, "accepted") == 1)
    host.kill()
    host.communicate()


def test_killed_and_started_again_it_goes_on(rig: Lwb4, far: Far) -> None:
    sender = Socket(rig)
    port = one(far, sender).payload[UDP].sport
    rig.kill()
    assert one(far, sender).payload[UDP].sport == port  # the kernel goes on alone
    rig.start("pcp")
    first, again = rig.events("bound")[0], far.grant()
    assert first["lease"] == "192.0.2.9:2048-3071"
    assert again.mapping is not None
    assert again.mapping.external_address == IPv4Address("192.0.2.9")
    assert rig.events("resumed")[0]["lease"] == "192.0.2.9:2048-3071"
    wait_for("it is bound again", lambda: len(rig.events("bound")) == 2)
    assert one(far, sender).payload[UDP].sport == port
    assert rig.events("address_changed") == []


def test_a_clean_stop_gives_the_lease_back_and_closes_the_door(rig: Lwb4, far: Far) -> None:
    rig.terminate()
    found = far.request()
    assert found is not None
    request, _ = found
    assert request.lifetime == 0
    ping = rig.on_host("ping", "-c", "2", "-i", "0.2", "-W", "1", SERVER)
    assert "Destination Net Unreachable" in ping.communicate()[0]
    assert far.data(seconds=0.3) == []


def test_nothing_leaves_before_it_is_bound(rig: Lwb4) -> None:
    far = Far(rig)
    rig.start("pcp")
    assert rig.status()["state"] == "requesting"
    Socket(rig).send()
    assert far.data(seconds=0.5) == []


def test_a_lease_that_ends_is_not_used(rig: Lwb4) -> None:
    far = Far(rig)
    rig.start("pcp")
    far.grant(lifetime=2)
    rig.wait_until_bound("192.0.2.9")
    wait_for("it is over", lambda: rig.status()["ipv4"] is None)
    assert rig.events("lease_lost")[0]["reason"] == "expired"
    Socket(rig).send()
    assert far.data(seconds=0.3) == []


def test_an_announcement_of_a_new_epoch_maps_again(rig: Lwb4, far: Far) -> None:
    far.epoch = 1
    announcement = UDP(sport=pcp.SERVER_PORT, dport=pcp.CLIENT_PORT) / pcp.announcement(5000)
    far.send(IP(src="192.0.0.9", dst="192.0.0.2") / announcement)  # not the server's address
    assert requests(far) == 0
    far.send(IP(src="192.0.0.1", dst="192.0.0.2") / announcement)
    far.grant(seconds=8)  # after up to 5 s
    wait_for(
        "it is bound again", lambda: len(rig.events("bound")) + len(rig.events("renewed")) == 2
    )
    assert rig.counters["pcp_server_lost_state"] == 1


def test_without_a_server_dhcp_asks_on_the_link(rig: Lwb4) -> None:
    """INFORMATION-REQUEST to All_DHCP_Relay_Agents_and_Servers (RFC 8415 section 7.1)."""
    rig.start("dhcp")
    deadline = time.monotonic() + 5
    while (frame := rig.wan.receive(1)) is not None and time.monotonic() < deadline:
        packet = Ether(frame).payload
        if UDP in packet and packet[UDP].dport == 547:
            assert (packet.src, packet.dst) == (rig.lwb4, "ff02::1:2")
            assert bytes(packet[UDP].payload)[0] == 11
            assert rig.status()["state"] == "asking for servers"
            return
    raise AssertionError("nobody was asked")


def test_one_agent_for_a_directory(rig: Lwb4) -> None:
    rig.start("pcp")
    command = [str(BIN / "lw4o6-lwb4"), "run", str(rig.directory), "--provisioning", "pcp",
               "--lwb4", rig.lwb4, "--aftr", AFTR, "--translator", rig.nat]  # fmt: skip
    done = run("nsenter", f"--net=/run/netns/{rig.tun}", *command, check=False)
    assert done.returncode == 1
    assert done.stderr == f"lw4o6-lwb4: one runs in {rig.directory} already\n"
    done = run(*command, "--ports", "0", check=False)
    assert done.returncode == 2
    assert "--ports: 0 is not between 1 and 65535" in done.stderr


def test_a_second_command_is_answered(rig: Lwb4, far: Far) -> None:
    assert "error" in rig.status("what?")
    rig.status("provision")
    far.grant()


# --- the translator, without an agent ---


def kernel(rig: Lwb4) -> Kernel:
    softwire = Softwire(IPv6Address(rig.lwb4), IPv6Address(AFTR))
    made = Kernel(softwire, rig.tun, rig.nat)
    made.prepare()
    made.prepare()  # again: it stays as it is
    return made


def test_every_port_of_a_port_set_is_used_and_no_other(rig: Lwb4) -> None:
    lease = Lease.of(IPv4Address("192.0.2.1"), PortParams(6, 8), 7)
    owned = {port for ports in lease.ports for port in ports}
    assert len(owned) == 63 * 4
    kernel(rig).apply(None, lease)
    far = Far(rig)
    seen: set[int] = set()
    for _ in range(400):  # what finds its range used up is lost, and the next one gets another
        if seen == owned:
            break
        Socket(rig).send()
        for packet in far.data(seconds=0.05):
            assert packet.payload.src == "192.0.2.1"
            seen.add(packet.payload[UDP].sport)
    assert seen == owned


def test_a_whole_address_keeps_the_hosts_ports(rig: Lwb4) -> None:
    kernel(rig).apply(None, Lease.of(IPv4Address("203.0.113.1")))
    far = Far(rig)
    packet = one(far, Socket(rig, 40000))
    assert (packet.payload.src, packet.payload[UDP].sport) == ("203.0.113.1", 40000)
