"""Many lwB4s at once, as light as they can be: the PCP state machines of the lab's lwB4 and nothing
around them, their messages on a real wire."""

from __future__ import annotations

import contextlib
import heapq
import random
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address

from bench.rig import AFTR, NIC6, WIRE6
from ryu_lw4o6.core.ethernet import ETH_IPV6, checksum, mac_bytes
from ryu_lw4o6.core.pcp import SERVER_PORT
from tests.support.netns import inside
from topo.lwb4 import pcp
from topo.lwb4.lease import Lease
from topo.lwb4.machine import Bound, Event, Lost, Received, Send, Start, Timer

FIRST = int(IPv6Address("2001:db8:b4::1"))
_ETHERNET = mac_bytes(NIC6) + mac_bytes(WIRE6) + struct.pack("!H", ETH_IPV6)
_AFTR = IPv6Address(AFTR).packed
_B4, _PCP = socket.inet_aton("192.0.0.2"), socket.inet_aton("192.0.0.1")
_PCP_CLIENT = 40_000  # UDP
_INNER = 14 + 40  # where the IPv4 header of a softwire packet begins
_BUFFER = 32 << 20  # bytes


def address(number: int) -> IPv6Address:
    """The tunnel address of lwB4 ``number``, from 0."""
    return IPv6Address(FIRST + number)


@dataclass
class Fleet:
    """``bound_at`` says when each lwB4 was bound last, by ``time.monotonic``."""

    clients: list[pcp.Client]
    transport: Softwires
    leases: dict[int, Lease] = field(default_factory=dict)
    bound_at: dict[int, float] = field(default_factory=dict)
    sent: int = 0
    received: int = 0
    _alarms: list[tuple[float, int]] = field(default_factory=list)

    def start(self, number: int) -> None:
        self._step(number, Start())

    def work(self) -> None:
        """Take what has come in, and let those act whose time has come."""
        for number, payload in self.transport.receive():
            self.received += 1
            if number < len(self.clients):
                self._step(number, Received(payload))
        now = time.monotonic()
        while self._alarms and self._alarms[0][0] <= now:
            _, number = heapq.heappop(self._alarms)
            wake = self.clients[number].wake
            if wake is not None and wake <= now:
                self._step(number, Timer())

    def _step(self, number: int, event: Event) -> None:
        now = time.monotonic()
        client, actions = pcp.step(self.clients[number], event, now, random.random)
        self.clients[number] = client
        for action in actions:
            match action:
                case Send():
                    self.sent += 1
                    self.transport.send(number, action)
                case Bound(lease):
                    self.leases[number] = lease
                    self.bound_at[number] = now
                case Lost():
                    self.leases.pop(number, None)
        if client.wake is not None:
            heapq.heappush(self._alarms, (client.wake, number))


# --- softwire packets -----------------------------------------------------------------------------


class Softwires:
    """A packet socket where the access network begins. PCP messages travel by it as well."""

    def __init__(self, namespace: str, device: str) -> None:
        with inside(namespace):
            self._socket = packet_socket(device)
        self.refused: list[int] = []

    def fileno(self) -> int:
        return self._socket.fileno()

    def data(self, number: int, lease: Lease, payload: bytes) -> None:
        """A UDP packet of the subscriber's, from the first port of the lease."""
        source = lease.ipv4.packed
        inner = udp(source, _SERVER, lease.ports[0][-1], 9, payload)
        self._send(number, inner)

    def send(self, number: int, send: Send) -> None:
        self._send(number, udp(_B4, _PCP, _PCP_CLIENT, SERVER_PORT, send.payload))

    def receive(self) -> Iterable[tuple[int, bytes]]:
        """PCP responses; who was refused is noted in ``refused``."""
        with contextlib.suppress(BlockingIOError):
            while True:
                frame = self._socket.recv(2048)
                if frame[12:14] != b"\x86\xdd":
                    continue
                number = int.from_bytes(frame[38:54], "big") - FIRST
                if frame[20] == 4 and frame[_INNER + 12 : _INNER + 16] == _PCP:
                    yield number, frame[_INNER + 28 :]
                elif frame[20] == 58 and frame[54:56] == b"\x01\x05":
                    self.refused.append(number)

    def _send(self, number: int, inner: bytes) -> None:
        header = struct.pack("!IHBB", 6 << 28, len(inner), 4, 64)
        source = (FIRST + number).to_bytes(16, "big")
        self._socket.send(_ETHERNET + header + source + _AFTR + inner)

    def close(self) -> None:
        self._socket.close()


_SERVER = socket.inet_aton("203.0.113.80")


def packet_socket(device: str) -> socket.socket:
    """One that sees all that comes in by a device of this namespace."""
    packet_ignore_outgoing, force = 23, 33
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    found.setsockopt(263, packet_ignore_outgoing, 1)
    found.setsockopt(socket.SOL_SOCKET, force, _BUFFER)
    found.bind((device, 0))
    found.setblocking(False)
    return found


def udp(source: bytes, destination: bytes, sport: int, dport: int, payload: bytes) -> bytes:
    """An IPv4 packet with UDP (RFC 791, RFC 768), without a UDP checksum."""
    length = 28 + len(payload)
    header = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, 17, 0) + source + destination
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return header + struct.pack("!HHHH", sport, dport, length - 20, 0) + payload


def duplicates(leases: Iterable[Lease]) -> int:
    """How many ports of an address are leased more than once."""
    found: dict[tuple[int, int], int] = {}
    for lease in leases:
        for ports in lease.ports:
            key = int(lease.ipv4), ports.start
            found[key] = found.get(key, 0) + 1
    return sum(count - 1 for count in found.values())


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share of them does not exceed."""
    return sorted(values)[max(0, round(share * len(values)) - 1)]
