"""What all connections have in common."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.server.app import Scope
    from workbench.server.connection import Connection
    from workbench.server.cycle import Cycle
    from workbench.server.direct import Direct

    Application = Callable[[Scope, Any, Any], Awaitable[None]]

KEEP_ALIVE_S = 75.0
"""Longer than load balancers usually keep idle connections (60 s), so that the client's end closes first."""


READ_SIZE = 256_000
"""Most bytes that are read at once, as uvloop does."""


class Clients:
    """Who answers clients, how long they may take, and all that is in flight."""

    def __init__(
        self,
        app: Application,
        direct: Direct | None = None,
        *,
        patience: float = 30.0,
        keep_alive: float = KEEP_ALIVE_S,
    ) -> None:
        """``app`` answers, and ``direct`` what it can of requests that came whole. A client may take ``patience``
        seconds to send a request or to take an answer, and be idle for ``keep_alive`` between them."""
        self.app = app
        self.direct = direct
        self.patience = patience
        self.keep_alive = keep_alive
        if direct is not None:
            direct.idle = self._tell
        self.buffer = memoryview(bytearray(READ_SIZE))
        """Where all connections read to: what has come is taken from there before anything else is read."""
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.answered = 0
        """How many requests were."""
        self._changed: asyncio.Event | None = None

    def run(self, cycle: Cycle) -> None:
        """Answers a request in a task."""
        task = cycle.task = asyncio.get_running_loop().create_task(cycle.run(self.app))
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def made(self, connection: Connection) -> None:
        """A connection is there."""
        self.connections.add(connection)
        if self._changed is not None:  # it was being opened when the others were told
            asyncio.get_running_loop().call_soon(connection.shutdown)

    def lost(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        self._tell()

    async def finish(self, seconds: float) -> int:
        """Closes idle connections at once, and others as soon as they are answered. How many were cut off because that
        took longer than ``seconds``."""
        self._changed = asyncio.Event()
        for connection in [*self.connections]:
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.connections or self.tasks or (self.direct is not None and self.direct.inferences):
                    self._changed.clear()
                    await self._changed.wait()
        left = len(self.connections)
        self.cut_off()
        return left

    def cut_off(self) -> None:
        """Ends all that is in flight."""
        for connection in [*self.connections]:
            connection.transport.abort()
        for task in self.tasks:
            task.cancel()
        if self.direct is not None:
            self.direct.cut_off()
            self._tell()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self._tell()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed.set()
