"""lwB4s that are provisioned by DHCPv4 over DHCPv6, by a real Kea through a real lwAFTR."""

from __future__ import annotations

import itertools
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP

from ryu_lw4o6.core.binding import BindingKey
from ryu_lw4o6.core.dhcp_relay import Drop
from ryu_lw4o6.core.dhcpv4 import Kind, Message, Option
from ryu_lw4o6.core.leases import Leases
from ryu_lw4o6.core.s46 import PortSet
from tests.provisioning.dhcp_rig import (
    A6K6,
    ANYCAST,
    LEASE_SECONDS,
    OWN,
    SECOND_AFTR,
    SHARED,
    DhcpRig,
)
from tests.support.lwb4 import Client, accept, held, port_params
from tests.support.ovs import wait_for
from tests.support.rig import frames
from tests.wire.scenario import frame_of, softwire

_NUMBERS = itertools.count(1)
LEASES = Leases([SHARED])
FOREIGN = IPv4Address("198.51.100.200")


@pytest.fixture
def lwb4(rig: DhcpRig) -> Client:
    return rig.client(f"2001:db8:b4::{next(_NUMBERS):x}")


@pytest.fixture
def other(rig: DhcpRig) -> Client:
    return rig.client(f"2001:db8:b4::{next(_NUMBERS):x}")


def binding_of(rig: DhcpRig, lwb4: Client) -> dict[str, Any] | None:
    """The one binding of an lwB4."""
    status, body = rig.controller.rest("GET", f"/v1/lookup?lwb4={lwb4.address}")
    assert status == 200
    assert len(body["bindings"]) <= 1
    return next(iter(body["bindings"]), None)


def seconds_left(binding: dict[str, Any] | None) -> float:
    assert binding is not None
    end = datetime.fromisoformat(binding["expires_at"])
    return (end - datetime.now(end.tzinfo)).total_seconds()


def lease_of(rig: DhcpRig, message: Message) -> dict[str, Any] | None:
    """Kea's lease for what a message gives."""
    leased = LEASES.to_server(BindingKey(*held(message)))
    return next((x for x in rig.kea.leases() if x["ip-address"] == str(leased)), None)


def asking(message: Message) -> dict[int, bytes]:
    """The requested address of what a message gives, with its port set."""
    return {Option.REQUESTED_ADDRESS: message.yiaddr.packed, **port_params(message)}


# --- leases -------------------------------------------------------------------------------------


def test_a_lease_is_a_binding(rig: DhcpRig, lwb4: Client) -> None:
    ack = lwb4.bind()
    assert ack.kind == Kind.ACK
    assert lwb4.answered_from == ANYCAST
    ipv4, psid = held(ack)
    assert ack.port_set == PortSet(A6K6, psid)
    assert ack.seconds(Option.LEASE_TIME) == LEASE_SECONDS
    assert ack.options[Option.CLIENT_ID] == lwb4.client_id
    assert ack.softwire_source == lwb4.address
    hidden = {Option.SUBNET_MASK, Option.ROUTER, Option.RELAY_AGENT}
    assert not hidden & set(ack.options)
    binding = binding_of(rig, lwb4)
    assert binding is not None
    assert (binding["ipv4"], binding["psid"]) == (str(ipv4), psid)
    assert (binding["origin"], binding["br_address"]) == ("dhcp", None)
    assert binding["state"]["lwaftr1"]["state"] == "applied"
    assert LEASE_SECONDS - 10 < seconds_left(binding) <= LEASE_SECONDS
    lease = lease_of(rig, ack)
    assert lease is not None
    assert lwb4.address.packed.hex() in str(lease["user-context"]).lower()


def test_the_first_packet_passes(rig: DhcpRig, lwb4: Client) -> None:
    """The switch has the flows before the lwB4 has its acknowledgement."""
    ack = lwb4.bind()
    ipv4, psid = held(ack)
    port = 1024 + psid * 16
    packet = IP(src=str(ipv4), dst="198.51.100.200") / UDP(sport=port, dport=53)
    rig.wire6.send(frame_of(softwire(packet, str(lwb4.address)), 6))
    (frame,) = frames(rig.wire4, 1)
    assert IP(frame[14:]).src == str(ipv4)


def test_lwb4s_share_an_address(rig: DhcpRig) -> None:
    """Kea leases one stand-in after the other: 63 port sets are left of the first address."""
    clients = [rig.client(f"2001:db8:b4:1::{n:x}") for n in range(70)]
    given = [held(client.bind()) for client in clients]
    assert len(set(given)) == 70
    by_address: dict[IPv4Address, set[int]] = {}
    for ipv4, psid in given:
        by_address.setdefault(ipv4, set()).add(psid)
    assert len(by_address) <= 3
    # The file has bound this one to somebody: it is not leased.
    assert (IPv4Address("192.0.2.0"), 0) not in given


def test_the_address_asked_is_the_one_that_answers(rig: DhcpRig) -> None:
    for server, br_address in ((OWN, None), (SECOND_AFTR, SECOND_AFTR)):
        client = rig.client(f"2001:db8:b4::{next(_NUMBERS):x}", server)
        client.bind()
        assert client.answered_from == server
        binding = binding_of(rig, client)
        assert binding is not None
        assert binding["br_address"] == br_address


def test_another_softwire_address_of_the_same_prefix(rig: DhcpRig, lwb4: Client) -> None:
    """RFC 8539."""
    named = IPv6Address(int(lwb4.address) + 0x1000)
    source = {Option.SOFTWIRE_SOURCE: named.packed}
    xid = lwb4.send(Kind.DISCOVER, source)
    offer = lwb4.receive(xid)
    assert offer is not None
    ack = lwb4.ask(Kind.REQUEST, accept(offer) | source, xid=xid)
    assert ack is not None
    assert (ack.kind, ack.softwire_source) == (Kind.ACK, named)
    assert binding_of(rig, lwb4) is None
    status, body = rig.controller.rest("GET", f"/v1/lookup?lwb4={named}")
    assert (status, body["total"]) == (200, 1)


# --- and how they go on -------------------------------------------------------------------------


@pytest.mark.parametrize("repeats", [True, False], ids=["option 159", "address alone"])
@pytest.mark.parametrize("way", ["renew", "init-reboot"])
def test_a_lease_is_prolonged(rig: DhcpRig, lwb4: Client, way: str, repeats: bool) -> None:
    ack = lwb4.bind()
    first = seconds_left(binding_of(rig, lwb4))
    wait_for("a second has passed", lambda: seconds_left(binding_of(rig, lwb4)) < first - 1.1)
    options = port_params(ack) if repeats else {}
    if way == "renew":
        again = lwb4.ask(Kind.REQUEST, options, ciaddr=ack.yiaddr)
    else:
        again = lwb4.ask(Kind.REQUEST, options | {Option.REQUESTED_ADDRESS: ack.yiaddr.packed})
    assert again is not None
    assert (again.kind, held(again)) == (Kind.ACK, held(ack))
    assert again.ciaddr == (ack.yiaddr if way == "renew" else IPv4Address(0))
    assert seconds_left(binding_of(rig, lwb4)) > first - 1


def test_an_offer_is_accepted_without_option_159(lwb4: Client) -> None:
    xid = lwb4.send(Kind.DISCOVER)
    offer = lwb4.receive(xid)
    assert offer is not None
    options = accept(offer)
    del options[Option.PORT_PARAMS]
    ack = lwb4.ask(Kind.REQUEST, options, xid=xid)
    assert ack is not None
    assert (ack.kind, held(ack)) == (Kind.ACK, held(offer))


def test_an_lwb4_that_forgot_everything_has_the_same_again(rig: DhcpRig, lwb4: Client) -> None:
    before = held(lwb4.bind())
    lwb4.client_id = b"\0something else"
    assert held(lwb4.bind()) == before
    assert binding_of(rig, lwb4) is not None


@pytest.mark.parametrize("repeats", [True, False], ids=["option 159", "server identifier"])
def test_release(rig: DhcpRig, lwb4: Client, repeats: bool) -> None:
    ack = lwb4.bind()
    options = {Option.SERVER_ID: ack.options[Option.SERVER_ID]}
    lwb4.send(Kind.RELEASE, options | (port_params(ack) if repeats else {}), ciaddr=ack.yiaddr)
    wait_for("the binding is gone", lambda: binding_of(rig, lwb4) is None)
    wait_for("Kea's lease is gone", lambda: (lease_of(rig, ack) or {"state": 2})["state"] == 2)


def test_decline(rig: DhcpRig, lwb4: Client) -> None:
    ack = lwb4.bind()
    lwb4.send(Kind.DECLINE, asking(ack) | {Option.SERVER_ID: ack.options[Option.SERVER_ID]})
    wait_for("the binding is gone", lambda: binding_of(rig, lwb4) is None)
    wait_for("Kea has heard it", lambda: (lease_of(rig, ack) or {"state": 0})["state"] == 1)
    assert held(lwb4.bind()) != held(ack)


def test_information_is_no_lease(rig: DhcpRig, lwb4: Client) -> None:
    answer = lwb4.ask(Kind.INFORM, ciaddr=FOREIGN)
    assert answer is not None
    assert (answer.kind, answer.yiaddr) == (Kind.ACK, IPv4Address(0))
    assert binding_of(rig, lwb4) is None


# --- and what is not given ----------------------------------------------------------------------


def test_what_another_has_is_refused(rig: DhcpRig, lwb4: Client, other: Client) -> None:
    ack, others = lwb4.bind(), other.bind()
    renewal = lwb4.ask(Kind.REQUEST, port_params(others), ciaddr=others.yiaddr)
    reboot = lwb4.ask(Kind.REQUEST, asking(others))
    selecting = lwb4.ask(Kind.REQUEST, accept(others))
    for answer in (renewal, reboot, selecting):
        assert answer is not None
        assert answer.kind == Kind.NAK
        assert answer.options[Option.CLIENT_ID] == lwb4.client_id
    for client, given in ((lwb4, ack), (other, others)):
        binding = binding_of(rig, client)
        assert binding is not None
        assert (binding["ipv4"], binding["psid"]) == (str(given.yiaddr), held(given)[1])


def test_addresses_of_elsewhere_are_refused(lwb4: Client) -> None:
    lwb4.bind()
    for address in (FOREIGN, IPv4Address("10.64.0.9")):
        renewal = lwb4.ask(Kind.REQUEST, ciaddr=address)
        reboot = lwb4.ask(Kind.REQUEST, {Option.REQUESTED_ADDRESS: address.packed})
        assert renewal is not None
        assert reboot is not None
        assert (renewal.kind, reboot.kind) == (Kind.NAK, Kind.NAK)


def test_nobody_acts_for_another(rig: DhcpRig, lwb4: Client, other: Client) -> None:
    """Neither the client identifier, nor relay agent information, nor a hardware address makes an
    lwB4 another one."""
    ack = other.bind()
    lwb4.client_id = other.client_id
    mine = lwb4.bind()
    assert held(mine) != held(ack)
    agent = {Option.RELAY_AGENT: b"\2\x10" + other.address.packed}
    server = {Option.SERVER_ID: ack.options[Option.SERVER_ID]}
    lwb4.send(Kind.RELEASE, port_params(ack) | server | agent, ciaddr=ack.yiaddr)
    lwb4.send(Kind.DECLINE, asking(ack) | server | agent)
    forged = {Option.SOFTWIRE_SOURCE: IPv6Address("2001:db8:b5::1").packed}
    before = rig.dropped()
    assert lwb4.ask(Kind.DISCOVER, forged, timeout=0.5) is None
    assert (rig.dropped() - before)[Drop.SOFTWIRE_ADDRESS] == 1
    assert lwb4.bind().kind == Kind.ACK  # whatever came before has been dealt with
    assert binding_of(rig, other) is not None
    lease = lease_of(rig, ack)
    assert lease is not None
    assert lease["state"] == 0


def test_shared_addresses_are_for_those_who_know_them(rig: DhcpRig) -> None:
    """RFC 7618 section 6."""
    client = rig.client(f"2001:db8:b4::{next(_NUMBERS):x}", wanted=b"\x33\x36")
    before = rig.dropped()
    assert client.ask(Kind.DISCOVER, timeout=0.5) is None
    assert (rig.dropped() - before)[Drop.NO_PORT_SETS] == 1


def test_what_nobody_has_is_refused_to_who_never_had_it(lwb4: Client) -> None:
    ack = lwb4.bind()
    free = {Option.PORT_PARAMS: PortSet(A6K6, 61).pack()}
    address = IPv4Address("192.0.2.14")
    renewal = lwb4.ask(Kind.REQUEST, free, ciaddr=address)
    assert renewal is not None
    assert renewal.kind == Kind.NAK
    again = lwb4.ask(Kind.REQUEST, port_params(ack), ciaddr=ack.yiaddr)
    assert again is not None
    assert (again.kind, held(again)) == (Kind.ACK, held(ack))
