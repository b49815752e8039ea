"""DHCPv4-over-DHCPv6 clients, as small as they can be: real sockets, real messages."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from ryu_lw4o6.core import dhcpv4, dhcpv6
from ryu_lw4o6.core.dhcpv4 import Kind, Message, Option

WANTED = bytes([51, 54, 58, 59, 109, 159])
_XIDS = itertools.count(0x1000)


class Client:
    """An lwB4 at ``address``. Make it inside its namespace."""

    def __init__(
        self, address: str, server: str, *, wanted: bytes = WANTED, port: int = 546
    ) -> None:
        self.address = IPv6Address(address)
        self.server = server
        self.client_id = b"\xff\0\0\0\1\0\3\0\1" + self.address.packed[-6:]
        self.wanted = wanted
        self.socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        host, _, interface = address.partition("%")
        index = socket.if_nametoindex(interface) if interface else 0
        self.socket.bind((host, port, 0, index))
        self.answered_from: str | None = None

    def send(
        self,
        kind: Kind,
        options: Mapping[Any, bytes] | None = None,
        *,
        xid: int | None = None,
        **fields: Any,
    ) -> int:
        """Send a DHCPv4 message, and return its transaction id."""
        xid = next(_XIDS) if xid is None else xid
        base: dict[int, bytes] = {
            Option.MESSAGE_TYPE: bytes([kind]),
            Option.CLIENT_ID: self.client_id,
        }
        if self.wanted:
            base[Option.PARAMETER_REQUEST_LIST] = self.wanted
        fields = {"chaddr": b"\2" + self.address.packed[-5:]} | fields
        message = Message(dhcpv4.REQUEST, xid, base | dict(options or {}), **fields)
        query = dhcpv6.dhcpv4_query(message.pack())
        self.socket.sendto(query.pack(), (self.server, dhcpv6.SERVER_PORT))
        return xid

    def receive(self, xid: int, timeout: float = 5.0) -> Message | None:
        """The answer to a transaction; None if there is none in time."""
        self.socket.settimeout(timeout)
        while True:
            try:
                data, source = self.socket.recvfrom(65535)
            except TimeoutError:
                return None
            message = dhcpv6.parse(data)
            assert isinstance(message, dhcpv6.Message)
            answer = Message.parse(message.dhcpv4 or b"")
            if answer.xid == xid:
                self.answered_from = source[0]
                return answer

    def ask(
        self,
        kind: Kind,
        options: Mapping[Any, bytes] | None = None,
        *,
        timeout: float = 5.0,
        **fields: Any,
    ) -> Message | None:
        return self.receive(self.send(kind, options, **fields), timeout)

    def bind(self) -> Message:
        """DISCOVER, OFFER, REQUEST, ACK."""
        xid = self.send(Kind.DISCOVER)
        offer = self.receive(xid)
        assert offer is not None, "no offer"
        assert offer.kind == Kind.OFFER
        ack = self.receive(self.send(Kind.REQUEST, accept(offer), xid=xid))
        assert ack is not None, "no answer to the request"
        return ack

    def close(self) -> None:
        self.socket.close()


def accept(offer: Message) -> dict[int, bytes]:
    """The options of a DHCPREQUEST for what was offered (RFC 2131 table 5, RFC 7618 section 6)."""
    options = {
        Option.REQUESTED_ADDRESS: offer.yiaddr.packed,
        Option.SERVER_ID: offer.options[Option.SERVER_ID],
    }
    return options | port_params(offer)


def port_params(message: Message) -> dict[int, bytes]:
    value = message.options.get(Option.PORT_PARAMS)
    return {} if value is None else {Option.PORT_PARAMS: value}


def held(message: Message) -> tuple[IPv4Address, int]:
    """The address and PSID that a message gives."""
    port_set = message.port_set
    return message.yiaddr, 0 if port_set is None else port_set.psid
