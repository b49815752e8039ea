"""A PCP client on the access network's wire: sends requests, and reads answers to the byte."""

from __future__ import annotations

import struct
import time
from ipaddress import IPv6Address

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from ryu_lw4o6.core.pcp import Response, parse_response
from tests.support.rig import Rig, frames
from tests.wire.scenario import AFTR, LWB4, frame_of, softwire, tunnelled

SERVER, B4 = "192.0.0.1", "192.0.0.2"
NONCE = "0102030405060708090a0b0c"


def mapped(ipv4: str) -> str:
    """An IPv4-mapped IPv6 address, in hexadecimal."""
    return IPv6Address(f"::ffff:{ipv4}").packed.hex()


def map_request(
    lifetime: int = 3600,
    protocol: int = 17,
    internal: int = 4096,
    external: int = 0,
    address: str = "0.0.0.0",
    *,
    client: str = B4,
    nonce: str = NONCE,
    size: int = 0,
    options: str = "",
) -> bytes:
    """MAP (RFC 6887 section 11.1), with PORT_SET (RFC 7753 section 4.1) if ``size`` is given."""
    text = (
        f"02 01 0000 {lifetime:08x} {mapped(client)}"
        f"{nonce} {protocol:02x} 000000 {internal:04x} {external:04x} {mapped(address)}"
    )
    if size:
        text += f"82 00 0005 {size:04x} {internal:04x} 00 000000"
    return bytes.fromhex(text + options)


class Answers:
    """Requests of one rig. ``ask`` checks everything around a response, and gives its bytes with
    the epoch set to 0, since that is the one thing nobody can foretell."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self._started = time.time()

    def send(
        self,
        payload: bytes,
        lwb4: str = LWB4[9],
        source: str = B4,
        sport: int = 40000,
        aftr: str = AFTR,
        **udp: int,
    ) -> None:
        inner = IP(src=source, dst=SERVER) / UDP(sport=sport, dport=5351, **udp) / payload
        self.rig.wire6.send(frame_of(softwire(inner, lwb4, aftr), 6))

    def receive(
        self,
        lwb4: str = LWB4[9],
        source: str = B4,
        sport: int = 40000,
        aftr: str = AFTR,
        timeout: float = 5.0,
    ) -> bytes | None:
        """The next frame is an answer, to this one: its payload; None if there is none."""
        for frame in frames(self.rig.wire6, 1, timeout):
            return self.check(frame, lwb4, source, sport, aftr)
        return None

    def check(self, frame: bytes, lwb4: str, source: str, sport: int, aftr: str = AFTR) -> bytes:
        payload = bytes(Ether(frame)[UDP].payload)
        inner = (
            IP(src=SERVER, dst=source, ttl=64, id=0, flags="DF")
            / UDP(sport=5351, dport=sport)
            / payload
        )
        assert frame.hex(" ") == frame_of(tunnelled(inner, lwb4, aftr), 6, out=True).hex(" ")
        (epoch,) = struct.unpack_from("!I", payload, 8)
        assert 0 <= epoch <= time.time() - self._started + 300
        return payload[:8] + bytes(4) + payload[12:]

    def ask(self, payload: bytes, **client: object) -> bytes:
        self.send(payload, **client)  # type: ignore[arg-type]
        answer = self.receive(**client)  # type: ignore[arg-type]
        assert answer is not None, "no answer"
        return answer

    def granted(self, payload: bytes, **client: object) -> Response:
        """The answer to a request, read."""
        return parse_response(self.ask(payload, **client))
