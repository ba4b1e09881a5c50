"""The least that a server on uvloop takes: it finds where a request ends, runs the model, and says always the same.

It understands nothing of what it is asked and answers nothing that helps anybody. What another server takes more is for
that; what this one takes, no server on CPython and uvloop can save.
"""

import asyncio
import os
import re
import sys

import numpy as np
import uvloop

from workbench.server.session import open_session

LENGTH = re.compile(rb"\ncontent-length: (\d+)", re.IGNORECASE)
END = b"\r\n\r\n"

session = open_session(os.environ["MODEL"])
feed = {"x": np.zeros((1, *session.get_inputs()[0].shape[1:]), np.float32)}
answer = b'HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{"outputs":[]}'


class Floor(asyncio.Protocol):
    """A connection; requests come one after the other."""

    transport: asyncio.Transport
    missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if not self.missing:
            head = data.index(END) + len(END)
            length = LENGTH.search(data, 0, head)
            self.missing = head + int(length[1] if length else 0)
        self.missing -= len(data)
        if not self.missing:
            session.run(None, feed)
            self.transport.write(answer)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Floor, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
