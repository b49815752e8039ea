"""Other programs of the same protocols: Kea's DHCPv6, ISC's dhcrelay, tshark."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from ryu_lw4o6.core import dhcpv6
from ryu_lw4o6.core.dhcpv4 import Kind, Option
from ryu_lw4o6.core.s46 import PortSet, Softwire
from tests.provisioning.dhcp_rig import A6K6, ANYCAST, DUID, OWN, DhcpRig
from tests.provisioning.test_dhcp import binding_of
from tests.support.lwb4 import Client, accept
from tests.support.netns import inside, namespace
from tests.support.ovs import run, wait_for


def ask_dhcpv6(client: Client, *options: tuple[int, bytes]) -> dhcpv6.Message | None:
    """The answer to an INFORMATION-REQUEST (RFC 8415 section 18.2.6)."""
    request = dhcpv6.Message(dhcpv6.Kind.INFORMATION_REQUEST, 0xABCDEF, ((8, b"\0\0"), *options))
    client.socket.settimeout(5)
    client.socket.sendto(request.pack(), (client.server, 547))
    try:
        answer = dhcpv6.parse(client.socket.recv(65535))
    except TimeoutError:
        return None
    assert isinstance(answer, dhcpv6.Message)
    assert answer.word == request.word
    return answer


def test_a_softwire_is_told_by_dhcpv6(rig: DhcpRig) -> None:
    """RFC 7598: the static binding of the file, and where to send DHCPv4."""
    client = rig.client("2001:db8:b4:8::1")
    duid = (dhcpv6.Option.CLIENT_ID, bytes.fromhex(DUID.replace(":", "")))
    wanted = (dhcpv6.Option.ORO, b"\0\x58\0\x60")
    answer = ask_dhcpv6(client, duid, wanted)
    assert answer is not None
    assert answer.kind == dhcpv6.Kind.REPLY
    assert answer.dhcp4o6_servers == [IPv6Address(ANYCAST)]
    assert answer.softwires == [
        Softwire(
            (IPv6Address(ANYCAST),), IPv4Address("192.0.2.0"),
            IPv6Network("2001:db8:b4::fffe/128"), PortSet(A6K6, 0),
        )
    ]  # fmt: skip


@contextlib.contextmanager
def capture(rig: DhcpRig, file: Path) -> Iterator[None]:
    """What passes the lwAFTR's IPv6 NIC."""
    process = rig.ovs.popen(
        "tcpdump", "-U", "-ni", "eth6", "-w", str(file), "udp port 547 or udp port 546",
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for("tcpdump listens", lambda: file.exists() and file.stat().st_size > 0)
        yield
    finally:
        process.terminate()
        process.wait(10)


def dissected(file: Path, *options: str) -> list[str]:
    done = run("tshark", "-n", "-r", str(file), *options)
    return done.stdout.splitlines()


def test_tshark_has_nothing_to_say_against_our_messages(rig: DhcpRig, tmp_path: Path) -> None:
    client = rig.client("2001:db8:b4:8::2")
    file = tmp_path / "dhcp.pcap"
    with capture(rig, file):
        client.bind()
        client.ask(Kind.REQUEST, ciaddr=IPv4Address("198.51.100.9"))
        assert ask_dhcpv6(client, (6, b"\0\x58")) is not None

        def all_there() -> bool:
            return len(dissected(file)) >= 16

        wait_for("it is all in the file", all_there)
    kinds = dissected(file, "-T", "fields", "-e", "dhcpv6.msgtype")
    assert kinds.count("20") == 3
    assert kinds.count("12,20") == 3
    assert kinds.count("13,21") == 3
    assert kinds.count("21") == 3
    complaints = dissected(file, "-Y", "_ws.malformed || _ws.expert.severity >= 0x400000")
    assert complaints == []


@pytest.fixture
def access(rig: DhcpRig) -> Iterator[tuple[str, str]]:
    """An access network behind the router, with ISC's dhcrelay in it: (its namespace, that of the
    lwB4, which is on a link with the relay)."""
    with namespace() as relay, namespace() as home, contextlib.ExitStack() as exits:
        for name in (relay, home, rig.router):
            for setting in ("all.accept_dad=0", "default.accept_dad=0", "all.forwarding=1"):
                run("ip", "netns", "exec", name, "sysctl", "-qw", f"net.ipv6.conf.{setting}")
        for near, device, far, peer in (
            (rig.router, "acc", relay, "upper"),
            (relay, "lower", home, "wan"),
        ):
            run("ip", "link", "add", device, "netns", near, "type", "veth", "peer", "name", peer,
                "netns", far)  # fmt: skip
            for name, end in ((near, device), (far, peer)):
                run("ip", "-n", name, "link", "set", end, "up")
        exits.callback(run, "ip", "-n", rig.router, "link", "del", "acc", check=False)
        for name, device, address in (
            (rig.router, "acc", "2001:db8:ac::fe/64"), (relay, "upper", "2001:db8:ac::1/64"),
            (relay, "lower", "2001:db8:a::1/64"), (home, "wan", "2001:db8:a::b4/64"),
        ):  # fmt: skip
            run("ip", "-n", name, "addr", "add", address, "dev", device, "nodad")
        run("ip", "-n", rig.router, "-6", "route", "replace", "2001:db8:a::/64", "via",
            "2001:db8:ac::1")  # fmt: skip
        run("ip", "-n", relay, "-6", "route", "add", "default", "via", "2001:db8:ac::fe")
        run("ip", "-n", home, "-6", "route", "add", "default", "via", "2001:db8:a::1")
        with inside(relay):
            process = subprocess.Popen(
                ["dhcrelay", "-6", "-d", "-l", "lower", "-u", f"{OWN}%upper"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        exits.callback(process.wait, 10)
        exits.callback(process.kill)
        wait_for(
            "dhcrelay listens",
            lambda: ":547" in run("ip", "netns", "exec", relay, "ss", "-Hlnu").stdout,
        )
        yield relay, home


def test_an_access_relay_in_front(rig: DhcpRig, access: tuple[str, str]) -> None:
    """dhcrelay makes RELAY-FORW of what the lwB4 sends to its link, hop count 0; ours is the next
    relay, and the answer goes back the same way."""
    _, home = access
    with inside(home):
        client = Client("2001:db8:a::b4", "ff02::1:2")
        link = socket.if_nametoindex("wan")
    client.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, link)
    before = rig.dropped()
    try:
        ack = client.bind()
    finally:
        client.close()
    assert ack.kind == Kind.ACK
    binding = binding_of(rig, client)
    assert binding is not None
    assert binding["ipv4"] == str(ack.yiaddr)
    assert rig.dropped() == before


def test_an_lwb4_on_our_own_link(rig: DhcpRig) -> None:
    """It sends from its link-local address to everybody on the link, and names its softwire's."""
    with inside(rig.router):
        index = socket.if_nametoindex("wire6")
        run("ip", "addr", "replace", "fe80::b4/64", "dev", "wire6", "nodad")
        client = Client("fe80::b4%wire6", "ff02::1:2")
    client.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    named = IPv6Address("2001:db8:1::b4")
    source = {Option.SOFTWIRE_SOURCE: named.packed}
    try:
        xid = client.send(Kind.DISCOVER, source)
        offer = client.receive(xid)
        assert offer is not None
        ack = client.ask(Kind.REQUEST, accept(offer) | source, xid=xid)
    finally:
        client.close()
    assert ack is not None
    assert (ack.kind, ack.softwire_source) == (Kind.ACK, named)
    assert str(client.answered_from).startswith("fe80::")
    status, body = rig.controller.rest("GET", f"/v1/lookup?lwb4={named}")
    assert (status, body["total"]) == (200, 1)
