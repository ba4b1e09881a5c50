"""A server's life: listen, say so, serve, and on SIGTERM finish what is in flight."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import uvloop

from workbench.server.app import App
from workbench.server.clients import Clients
from workbench.server.connection import Connection
from workbench.server.direct import Direct
from workbench.server.errors import ServerError
from workbench.server.settings import Settings

if TYPE_CHECKING:
    import ssl

    from workbench.server.acceptor import Acceptor
    from workbench.server.grpc_service import Service
    from workbench.server.tls import Pem
    from workbench.server.workers import Place

BACKLOG = 2048

CUT_OFF = signal.SIGUSR1
"""At which a worker ends what is in flight."""


class Server:
    """Serves an application over HTTP, and over gRPC where the settings say so, until it is told to stop."""

    def __init__(
        self,
        app: App,
        listener: socket.socket,
        settings: Settings,
        secure: ssl.SSLContext | None = None,
        pem: Pem | None = None,
        place: Place | None = None,
    ) -> None:
        """Serve ``app`` on ``listener``; over TLS where there are ``secure`` and ``pem``; as one of several workers
        where there is a ``place``."""
        direct = Direct(app)
        observed = app if app.observer is None else app.observer.observed(app)
        self._clients = Clients(observed, direct, patience=float(settings.client_patience))
        app.in_flight = lambda: len(self._clients.tasks) + len(direct.inferences)
        self._app = app
        self._listener = listener
        self._settings = settings
        self._secure = secure
        self._pem = pem
        self._place = place
        self._stopping: asyncio.Event | None = None
        self._over_grpc: Service | None = None
        self._cutting_off: asyncio.Task[None] | None = None

    def run(self) -> None:
        """Serves until SIGTERM or SIGINT: unready at once, requests in flight finished. A second one ends those too.

        A worker does that at :data:`CUT_OFF` only, which its parent sends: what is sent to all processes at once, as
        by Ctrl-C or systemd, arrives twice, for the parent tells of it as well.
        """
        handlers = {signal.SIGTERM: self._stop, signal.SIGINT: self._stop}
        if self._place is not None:
            handlers[CUT_OFF] = self._cut_off
        previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            uvloop.run(self._serve())
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    async def _serve(self) -> None:
        settings, ports = self._settings, {"port": self._listener.getsockname()[1]}
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        if settings.grpc_port >= 0:
            from workbench.server.grpc_service import Service

            self._over_grpc = Service(self._app, float(settings.client_patience), share_port=self._place is not None)
            ports["grpc_port"] = await self._over_grpc.start(settings.host, settings.grpc_port, self._pem)
        accepting = await self._accept()
        _announce(settings.ready_fd, self._listener.getsockname()[0], ports, self._app, secure=self._secure is not None)
        await self._stopping.wait()
        accepting.close()
        ends = [self._finish()]
        if self._over_grpc is not None:
            ends.append(self._over_grpc.stop(settings.grace))
        await asyncio.gather(*ends)
        await self._app.repository.close()

    async def _accept(self) -> asyncio.Server | Acceptor:
        """Accepts connections; of several workers each takes its own from the listener that all share."""

        def connection() -> Connection:
            return Connection(self._clients)

        if self._place is None or self._app.shared is None:
            return await self._loop.create_server(connection, sock=self._listener, ssl=self._secure, backlog=BACKLOG)
        from workbench.server.acceptor import Acceptor

        self._loop.add_reader(self._place.parent, self._orphaned)
        self._app.shared.listen(self._loop)
        return Acceptor(self._listener, connection, self._secure)

    async def _finish(self) -> None:
        if left := await self._clients.finish(self._settings.grace):
            log(f"connections cut off with requests in flight after {self._settings.grace} s: {left}")

    def _orphaned(self) -> None:
        assert self._place is not None
        self._loop.remove_reader(self._place.parent)
        self._stop()

    def _stop(self, *_: object) -> None:
        self._app.ready = False
        if self._stopping is None:
            os._exit(0)  # nothing has been taken yet
        if not self._stopping.is_set():
            self._loop.call_soon_threadsafe(self._stopping.set)
        elif self._place is None:
            self._cut_off()

    def _cut_off(self, *_: object) -> None:
        """Has nothing in flight waited for any longer."""

        def end() -> None:
            self._clients.cut_off()
            if self._over_grpc is not None:
                self._cutting_off = self._loop.create_task(self._over_grpc.stop(0))

        self._loop.call_soon_threadsafe(end)


def _announce(ready_fd: int, host: str, ports: Mapping[str, int], app: App, *, secure: bool) -> None:
    names = ", ".join(f"{each.model.name}/{each.model.version}" for each in app.repository)
    grpc = f", gRPC at {host}:{ports['grpc_port']}" if "grpc_port" in ports else ""
    log(f"serving {names} at {'https' if secure else 'http'}://{host}:{ports['port']}{grpc}")
    tell_ready(ready_fd, host, ports)


def tell_ready(ready_fd: int, host: str, ports: Mapping[str, int]) -> None:
    """Writes where it listens to ``ready_fd``, a line of JSON, where that is no negative number."""
    if ready_fd < 0:
        return
    line = {"ready": True, "host": host, **ports, "pid": os.getpid()}
    try:
        with open(ready_fd, "w", encoding="utf-8") as pipe:
            pipe.write(json.dumps(line) + "\n")
    except OSError as error:
        raise ServerError(
            f"WORKBENCH_READY_FD={ready_fd} cannot be written: {error.strerror}.",
            "Pass a descriptor that the server inherits and somebody reads.",
        ) from None


def log(text: str) -> None:
    """Writes a line to the log of the server."""
    print(f"workbench.server: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the log of a container is stderr
