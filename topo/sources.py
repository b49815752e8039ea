"""Inside the Internet host: which addresses and TCP ports packets come from, as JSON in a file."""

from __future__ import annotations

import json
import signal
import socket
import struct
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn


def main() -> None:
    """Capture on eth0 until SIGTERM, then write {address: [ports]}."""
    target = Path(sys.argv[1])
    seen: dict[str, set[int]] = {}

    def finish(number: int, frame: FrameType | None) -> NoReturn:
        target.write_text(json.dumps({a: sorted(p) for a, p in seen.items()}))
        sys.exit(0)

    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    raw.bind(("eth0", 0x0800))
    signal.signal(signal.SIGTERM, finish)
    target.write_text("{}")  # ready
    while True:
        packet, address = raw.recvfrom(64)
        if address[2] == socket.PACKET_OUTGOING:
            continue
        header = (packet[14] & 0xF) * 4
        source = socket.inet_ntoa(packet[26:30])
        ports = seen.setdefault(source, set())
        if packet[23] == socket.IPPROTO_TCP:
            ports.add(struct.unpack_from("!H", packet, 14 + header)[0])


if __name__ == "__main__":
    main()
