"""Inside the Internet host: an echo server (RFC 862), TCP and UDP on port 7 of an address."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import cast

PORT = 7


class _Udp(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self._transport.sendto(data, address)


async def _tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def serve(address: str) -> None:
    """Answer for ever."""
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(_Udp, (address, PORT))
    server = await asyncio.start_server(_tcp, address, PORT)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
