"""Inside an lwB4's tunnel: send softwire packets with an inner source of one's choice."""

from __future__ import annotations

import socket
import struct
import sys

from ryu_lw4o6.core.ethernet import checksum
from topo.plan import ANYCAST, SERVER

_IPIP = 4


def packet(source: str, port: int) -> bytes:
    """An IPv4 UDP packet from ``source``:``port`` to the Internet host (RFC 791, RFC 768)."""
    payload = b"spoofed"
    udp = struct.pack("!HHHH", port, 53, 8 + len(payload), 0) + payload
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0,
        socket.inet_aton(source), SERVER.packed,
    )  # fmt: skip
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + udp


def main() -> None:
    """Usage: lwB4 IPv4-source port count."""
    lwb4, source, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, _IPIP) as raw:
        raw.bind((lwb4, 0))
        for _ in range(count):
            raw.sendto(packet(source, port), (str(ANYCAST), 0))


if __name__ == "__main__":
    main()
