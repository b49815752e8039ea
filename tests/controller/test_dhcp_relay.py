"""What the relay agent sends, byte by byte, and to whom (RFC 8415 section 19)."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, IPv6Network

import pytest

from ryu_lw4o6.core import dhcpv4, dhcpv6
from ryu_lw4o6.core.dhcp_relay import Drop
from ryu_lw4o6.core.dhcpv4 import Message
from ryu_lw4o6.core.dhcpv6 import Kind, Relayed
from ryu_lw4o6.provisioning import dhcp_relay
from ryu_lw4o6.provisioning.dhcp_relay import DhcpRelay
from ryu_lw4o6.provisioning.dhcp_sockets import Ear, Origin
from tests.fuzz.dhcp_relay import INSTANCE, SETTINGS, alter
from tests.rules.samples import ANYCAST, SECOND_BR

OWN, SERVER = IPv6Address("2001:db8:1::1"), IPv6Address("2001:db8:9::67")
LWB4, ACCESS = IPv6Address("2001:db8:b4::1"), IPv6Address("2001:db8:a::1")
LINK_LOCAL = IPv6Address("fe80::b4")
SOLICIT = bytes.fromhex("01 123456 0008 0002 0000")
REPLY = bytes.fromhex("07 123456")


@dataclass(frozen=True)
class Sent:
    by: IPv6Address
    data: bytes
    to: IPv6Address
    port: int
    scope: int = 0


class Wire(Ear):
    def __init__(self, address: IPv6Address, sent: list[Sent]) -> None:
        super().__init__(address)
        self._sent = sent

    def send(self, data: bytes, address: IPv6Address, port: int, scope: int = 0) -> bool:
        self._sent.append(Sent(self.address, data, address, port, scope))
        return True


class Bench:
    def __init__(self) -> None:
        settings = replace(SETTINGS, access_relays=(IPv6Network("2001:db8:a::/64"),))
        self.relay = DhcpRelay(replace(INSTANCE, dhcp=settings), alter, lambda: None)
        self.sent: list[Sent] = []
        self.ears = {address: Wire(address, self.sent) for address in self.relay._ears}
        self.group = Wire(dhcpv6.ALL_RELAYS_AND_SERVERS, self.sent)
        self.relay._group = self.group
        self.relay._own = self.relay._upstream = self.ears[OWN]

    def hear(
        self, data: bytes, source: IPv6Address, at: IPv6Address = ANYCAST, scope: int = 0
    ) -> Sent | None:
        """What is sent because of a datagram."""
        before = len(self.sent)
        ear = self.ears.get(at, self.group)
        self.relay.receive(data, Origin((str(source), 546, 0, scope)), ear)
        assert len(self.sent) <= before + 1
        return self.sent[-1] if len(self.sent) > before else None

    def answer(self, path: list[Relayed], message: bytes) -> Sent | None:
        for relayed in reversed(path):
            options = ((dhcpv6.Option.INTERFACE_ID, b"lwaftr1"), (9, message))
            message = Relayed(13, relayed.hop_count, relayed.link, relayed.peer, options).pack()
        return self.hear(message, SERVER, OWN)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def forwarded(sent: Sent | None) -> list[Relayed]:
    assert sent is not None
    assert (sent.by, sent.to, sent.port) == (OWN, SERVER, 547)
    return dhcpv6.unwrap(sent.data)[0]


def test_relay_forward_to_the_byte(bench: Bench) -> None:
    sent = bench.hear(SOLICIT, LWB4)
    expected = (
        bytes.fromhex("0c 00")  # RELAY-FORW, hop count 0
        + OWN.packed  # the link: an address of ours, and not the anycast one
        + LWB4.packed  # the peer
        + bytes.fromhex("0012 0007") + b"lwaftr1"  # Interface-ID
        + bytes.fromhex("0009 000a") + SOLICIT
    )  # fmt: skip
    assert sent == Sent(OWN, expected, SERVER, 547)


@pytest.mark.parametrize("asked", [ANYCAST, SECOND_BR, OWN])
def test_the_answer_comes_from_the_address_that_was_asked(bench: Bench, asked: IPv6Address) -> None:
    path = forwarded(bench.hear(SOLICIT, LWB4, asked))
    assert bench.answer(path, REPLY) == Sent(asked, REPLY, LWB4, 546)


def test_clients_on_the_link(bench: Bench) -> None:
    """Of two with the same transaction, each gets its own answer, by its own interface."""
    other = IPv6Address("fe80::b5")
    group = dhcpv6.ALL_RELAYS_AND_SERVERS
    paths = [forwarded(bench.hear(SOLICIT, who, group, 7)) for who in (LINK_LOCAL, other)]
    assert [path[0].link for path in paths] == [OWN, OWN]
    for path, who in zip(paths, (LINK_LOCAL, other), strict=True):
        assert bench.answer(path, REPLY) == Sent(group, REPLY, who, 546, 7)
    path = forwarded(bench.hear(SOLICIT, LWB4, group))
    assert bench.answer(path, REPLY) == Sent(OWN, REPLY, LWB4, 546)


@pytest.mark.parametrize("asked", [ANYCAST, SECOND_BR])
def test_who_asks_for_the_br_address_is_told(bench: Bench, asked: IPv6Address) -> None:
    """A client must discard an offer without it (RFC 8539 section 7.1), and Kea has none."""
    inform = Message(dhcpv4.REQUEST, 9, {53: b"\x08"}).pack()
    answer = dhcpv6.dhcpv4_response(Message(dhcpv4.REPLY, 9, {53: b"\x05"}).pack())
    for wanted, more in ((b"\0\x59\0\x5a", ((90, asked.packed),)), (b"\x5a\0", ())):
        query = dhcpv6.Message(Kind.DHCPV4_QUERY, 0, ((6, wanted), (87, inform)))
        path = forwarded(bench.hear(query.pack(), LWB4, asked))
        sent = bench.answer(path, answer.pack())
        assert sent is not None
        message = dhcpv6.parse(sent.data)
        assert isinstance(message, dhcpv6.Message)
        assert [code for code, _ in message.options] == [87, *(code for code, _ in more)]
        assert message.options[1:] == more


def test_no_softwire_begins_at_the_lwaftr_itself(bench: Bench) -> None:
    """Whose own link an lwB4 may be on, and name another address of it (RFC 8539)."""
    for named, drop in ((OWN, Drop.SOFTWIRE_ADDRESS), (OWN + 1, None)):
        discover = Message(dhcpv4.REQUEST, 9, {53: b"\1", 109: named.packed})
        sent = bench.hear(dhcpv6.dhcpv4_query(discover.pack()).pack(), OWN + 2)
        assert (sent is None) == (drop is not None)
    assert bench.relay.dropped == {Drop.SOFTWIRE_ADDRESS: 1}


def test_a_relay_in_front(bench: Bench) -> None:
    """It has named the link; the answer goes to its port, with its RELAY-REPL inside."""
    first = Relayed(12, 0, ACCESS, LINK_LOCAL, ((18, b"port 7"), (9, SOLICIT)))
    path = forwarded(bench.hear(first.pack(), ACCESS))
    assert [(r.hop_count, r.link, r.peer) for r in path] == [
        (1, IPv6Address("::"), ACCESS), (0, ACCESS, LINK_LOCAL),
    ]  # fmt: skip
    sent = bench.answer(path, REPLY)
    assert sent is not None
    assert (sent.by, sent.to, sent.port) == (ANYCAST, ACCESS, 547)
    relays, message = dhcpv6.unwrap(sent.data)
    assert [(r.kind, r.peer) for r in relays] == [(13, LINK_LOCAL)]
    assert message.pack() == REPLY


def test_a_relay_that_nobody_knows(bench: Bench) -> None:
    forged = Relayed(12, 0, OWN, LWB4, ((9, SOLICIT),)).pack()
    assert bench.hear(forged, LWB4 + 1) is None
    assert bench.relay.dropped == {Drop.UNTRUSTED_RELAY: 1}


def test_message_types_of_the_future_are_relayed(bench: Bench) -> None:
    """RFC 7283 section 4, and back: whatever they hold, which need not be options."""
    future = bytes.fromhex("c8 000001 ff")
    assert forwarded(bench.hear(future, LWB4))[0].message == future


@pytest.mark.parametrize("first", ["0a 000000", "c9 000002 ff", "07 654321"])
def test_a_server_may_speak_first(bench: Bench, first: str) -> None:
    """RECONFIGURE (RFC 8415 section 18.3.11), or whatever it may be (section 19.2)."""
    path = [Relayed(12, 0, OWN, LWB4, ((9, b""),))]
    assert bench.answer(path, bytes.fromhex(first)) == Sent(OWN, bytes.fromhex(first), LWB4, 546)
    link = [Relayed(12, 0, OWN, LINK_LOCAL, ((9, b""),))]
    sent = bench.answer(link, bytes.fromhex(first))
    assert sent is not None
    assert (sent.by, sent.to) == (dhcpv6.ALL_RELAYS_AND_SERVERS, LINK_LOCAL)


def test_dhcpv4_is_answered_as_long_as_there_is_room(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the question to say which lwB4 may have what."""
    inform = dhcpv6.dhcpv4_query(Message(dhcpv4.REQUEST, 9, {53: b"\x08"}).pack()).pack()
    reply = dhcpv6.dhcpv4_response(Message(dhcpv4.REPLY, 9, {53: b"\x05"}).pack()).pack()
    monkeypatch.setattr(dhcp_relay, "MOST_EXCHANGES", 2)
    paths = [forwarded(bench.hear(inform, LWB4 + n)) for n in range(3)]
    assert bench.answer(paths[0], reply) is None
    assert bench.answer(paths[1], reply)
    assert bench.answer(paths[2], reply)
    monkeypatch.setattr(dhcp_relay, "EXCHANGE_SECONDS", -1.0)
    assert bench.answer(paths[2], reply) is None
    assert bench.relay.dropped == {Drop.UNASKED: 2}


def test_nobody_has_the_server_to_himself(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.5)
    sent = [bench.hear(SOLICIT, LWB4) for _ in range(25)]
    assert len([s for s in sent if s]) == dhcp_relay.MOST_PER_CLIENT
    assert bench.hear(SOLICIT, LWB4 + 1) is not None
    assert bench.relay.dropped == {Drop.TOO_OFTEN: 5}
    monkeypatch.setattr(time, "monotonic", lambda: 101.0)
    assert bench.hear(SOLICIT, LWB4) is not None


def test_what_outgrows_a_message_is_refused(bench: Bench) -> None:
    message = Message(dhcpv4.REQUEST, 1, {53: b"\1", 200: bytes(17000)})
    assert bench.hear(dhcpv6.dhcpv4_query(message.pack()).pack(), LWB4) is None
    assert bench.relay.dropped == {Drop.MALFORMED: 1}


def test_the_server_is_asked_from_one_address_only(bench: Bench) -> None:
    path = forwarded(bench.hear(SOLICIT, LWB4))
    reply = Relayed(Kind.RELAY_REPL, 0, path[0].link, LWB4, ((9, REPLY),)).pack()
    assert bench.hear(reply, SERVER, ANYCAST) is None
    assert bench.hear(reply, LWB4, OWN) is None
    assert bench.relay.dropped == {Drop.NOT_THE_SERVER: 2}
    assert bench.hear(reply, SERVER, OWN) is not None
