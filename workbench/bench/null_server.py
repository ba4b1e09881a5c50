"""The null responder: a server that answers every request with 200 and an empty object, at once.

What a benchmark measures against it is the cost of the client, the kernel's loopback and the event loop alone.
``python -m workbench.bench.null_server FD`` writes its port as one line to the inherited descriptor.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import cast

import uvloop

from workbench.process import die_with_parent

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
_END = b"\r\n\r\n"


class NullProtocol(asyncio.Protocol):
    """Counts the bytes of each request and answers when they are there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._transport = cast("asyncio.Transport", transport)
        self._data = bytearray()

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._data += data
        while (end := self._data.find(_END)) >= 0:
            head = bytes(self._data[:end]).lower()
            length = int(head.partition(b"\ncontent-length:")[2].partition(b"\r\n")[0] or 0)
            if len(self._data) < end + len(_END) + length:
                return
            del self._data[: end + len(_END) + length]
            self._transport.write(_ANSWER)


async def _serve(ready: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(NullProtocol, "127.0.0.1", 0)
    with os.fdopen(ready, "w") as pipe:
        pipe.write(f"{server.sockets[0].getsockname()[1]}\n")
    await server.serve_forever()


if __name__ == "__main__":
    die_with_parent()
    uvloop.run(_serve(int(sys.argv[1])))
