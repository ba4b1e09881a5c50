"""Accepting connections from a socket that other workers accept from as well."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

_PAUSE_S = 1.0
"""After an error such as too many open files, as asyncio has it."""


class Acceptor:
    """Accepts one connection in a turn of the loop, so that a worker that has nothing else to do comes first.

    libuv accepts all that wait at once: one of two workers was seen to take all 16 connections of a client, which are
    kept open, and the other had nothing to do.
    """

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.BufferedProtocol],
        secure: ssl.SSLContext | None,
    ) -> None:
        """Begin, on the running loop; over TLS where that is ``secure``."""
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._make_protocol = make_protocol
        self._secure = secure
        self._opening: set[asyncio.Task[None]] = set()
        self._paused: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Accept no more. Whoever is still at the handshake is not waited for: it may take for ever over it."""
        if self._paused is not None:
            self._paused.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _listen(self) -> None:
        self._paused = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was quicker
        except OSError:
            self._loop.remove_reader(self._listener)
            self._paused = self._loop.call_later(_PAUSE_S, self._listen)
            return
        task = self._loop.create_task(self._open(connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        # A client may go away, or speak no TLS; that is its own affair.
        with contextlib.suppress(OSError):
            await self._loop.connect_accepted_socket(self._make_protocol, connection, ssl=self._secure)
