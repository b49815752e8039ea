"""The far end of an lwB4's softwire, by hand: what it has sent, and what an lwAFTR may answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import IPv4Address

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from ryu_lw4o6.core import pcp
from tests.support.lab_lwb4 import AFTR, GATEWAY_MAC, WAN_MAC, Lwb4

SERVER = "198.18.0.80"


class Far:
    """``epoch`` is what its PCP server says."""

    def __init__(self, lwb4: Lwb4) -> None:
        self.lwb4 = lwb4
        self.epoch = 1

    def packets(self, seconds: float) -> Iterator[Packet]:
        """IPv6 packets with IPv4 in them that the lwB4 sends, for so long at most."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            frame = self.lwb4.wan.receive(left)
            if frame is None:
                return
            packet = Ether(frame).payload
            if isinstance(packet, IPv6) and packet.nh == 4 and packet.dst == AFTR:
                assert packet.src == self.lwb4.lwb4
                yield packet

    def data(self, count: int = 1, seconds: float = 5.0) -> list[Packet]:
        """The next softwire packets that are not PCP's."""
        found: list[Packet] = []
        for packet in self.packets(seconds):
            if not _is_pcp(packet):
                found.append(packet)
                if len(found) == count:
                    break
        return found

    def request(self, seconds: float = 5.0) -> tuple[pcp.Request, Packet] | None:
        """The next PCP request, and the packet that it came in."""
        for packet in self.packets(seconds):
            if _is_pcp(packet):
                return pcp.parse_request(bytes(packet[UDP].payload)), packet
        return None

    def grant(
        self, address: str = "192.0.2.9", first: int = 2048, ports: int = 1024, lifetime: int = 600,
        seconds: float = 5.0,
    ) -> pcp.Request:  # fmt: skip
        """Wait for a PCP request and grant these ports."""
        found = self.request(seconds)
        assert found is not None, "no PCP request"
        request, packet = found
        assert request.mapping is not None
        mapping = pcp.Mapping(request.mapping.nonce, 0, 0, first, IPv4Address(address))
        options = pcp.Options(port_set=pcp.PortSet(ports, 0))
        response = pcp.Response(
            pcp.Opcode.MAP, pcp.Result.SUCCESS, lifetime, self.epoch, mapping, options
        )
        udp = UDP(sport=pcp.SERVER_PORT, dport=packet[UDP].sport)
        self.send(IP(src="192.0.0.1", dst="192.0.0.2") / udp / response.encode())
        return request

    def send(self, inner: Packet, aftr: str = AFTR) -> None:
        """An IPv4 packet to the lwB4 by its softwire."""
        self._send(IPv6(src=aftr, dst=self.lwb4.lwb4, nh=4, hlim=250) / inner)

    def refuse(self, packet: Packet, aftr: str = AFTR, checksum: int | None = None) -> None:
        """ICMPv6 type 1 code 5 about a softwire packet."""
        error = ICMPv6DestUnreach(code=5, cksum=checksum) / Raw(bytes(packet)[:1232])
        self._send(IPv6(src=aftr, dst=self.lwb4.lwb4) / error)

    def _send(self, packet: Packet) -> None:
        self.lwb4.wan.send(bytes(Ether(src=GATEWAY_MAC, dst=WAN_MAC) / packet))


def _is_pcp(packet: Packet) -> bool:
    inner = packet.payload
    return UDP in inner and inner[UDP].dport == pcp.SERVER_PORT and inner[IP].dst == "192.0.0.1"
