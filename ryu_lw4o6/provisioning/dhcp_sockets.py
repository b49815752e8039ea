"""The UDP sockets of a DHCPv6 relay agent: one for each of the lwAFTR's addresses, so that an lwB4
is answered from the address it asked, and one for the multicast group on the bridge's LOCAL port.

Neither addresses nor the bridge need to be there: the relay starts before the switch, and outlives
it.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

from eventlet.green import socket
from ryu.lib import hub

from ryu_lw4o6.core.dhcpv6 import ALL_RELAYS_AND_SERVERS, SERVER_PORT
from ryu_lw4o6.fatal import fatal

LOG = logging.getLogger(__name__)

_IPV6_FREEBIND = 78
_RECEIVE_BUFFER = 8 << 20
_RETRY_SECONDS = 1.0
_AT_ONCE = 32
"""Datagrams after which others get their turn."""
_MOST_BYTES = 65535

Receive = Callable[[bytes, "Origin", "Ear"], None]
"""Takes a datagram, where it came from, and the ear that heard it. Must not wait."""


class Origin:
    """Where a datagram came from. ``scope`` is the interface of a link-local address, else 0."""

    __slots__ = ("address", "port", "scope")

    def __init__(self, sockaddr: tuple[str, int, int, int]) -> None:
        host, self.port, _, self.scope = sockaddr
        # Four times as fast as from text.
        self.address = IPv6Address(socket.inet_pton(socket.AF_INET6, host.partition("%")[0]))


class Ear:
    """A socket at one of the relay's addresses. ``address`` is what clients send to."""

    def __init__(self, address: IPv6Address, interface: str | None = None) -> None:
        self.address = address
        self._interface = interface
        self._index = 0
        self._socket: Any = None
        self._trouble: str | None = None

    @property
    def open(self) -> bool:
        return self._socket is not None

    @property
    def scope(self) -> int:
        """The index of the interface that it listens on, 0 for any."""
        return self._index

    def send(self, data: bytes, address: IPv6Address, port: int, scope: int = 0) -> bool:
        """Whether the datagram was sent. Never waits."""
        sock = self._socket
        if sock is None:
            return False
        host = socket.inet_ntop(socket.AF_INET6, address.packed)
        try:
            # The socket beneath: full buffers are a loss, as they would be on the wire.
            sock.fd.sendto(data, (host, port, 0, scope))
        except OSError:
            return False
        return True

    def run(self, receive: Receive) -> None:
        """Listen for ever."""
        hub.spawn(fatal(self._listen), receive)
        while True:
            self._look()
            hub.sleep(_RETRY_SECONDS)

    def _look(self) -> None:
        """Open the socket, or a new one when the interface is another than before."""
        index = 0
        if self._interface is not None:
            try:
                index = socket.if_nametoindex(self._interface)
            except OSError:
                self._close()
                return
        if self._socket is not None and index == self._index:
            return
        self._close()
        try:
            self._socket, self._index = _bound(self.address, index), index
        except OSError as error:
            if str(error) != self._trouble:
                LOG.error("DHCP relay: no socket at %s: %s", self.address, error.strerror)
            self._trouble = str(error)
        else:
            self._trouble = None

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _listen(self, receive: Receive) -> None:
        while True:
            sock = self._socket
            if sock is None:
                hub.sleep(_RETRY_SECONDS / 10)
                continue
            try:
                take = sock.recvfrom  # which waits
                for _ in range(_AT_ONCE):
                    data, source = take(_MOST_BYTES)
                    receive(data, Origin(source), self)
                    take = sock.fd.recvfrom
            except BlockingIOError:
                pass
            except OSError:
                if sock is self._socket:
                    self._close()
            hub.sleep(0)


def _bound(address: IPv6Address, index: int) -> Any:
    """A socket for an address, or for a group on the interface with this index."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        sock.bind((str(address), SERVER_PORT, 0, index))
        if address == ALL_RELAYS_AND_SERVERS:
            group = address.packed + struct.pack("@I", index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
    except OSError:
        sock.close()
        raise
    return sock
