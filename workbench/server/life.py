"""A server's life: listen, say so, serve, and on SIGTERM finish what is in flight."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from workbench.server.app import App
from workbench.server.connection import Connection
from workbench.server.direct import Direct
from workbench.server.errors import ServerError
from workbench.server.settings import Settings

if TYPE_CHECKING:
    import ssl

    from workbench.server.grpc_service import Service
    from workbench.server.tls import Pem
    from workbench.server.workers import Place

KEEP_ALIVE_S = 75
"""Longer than load balancers usually keep idle connections (60 s), so that the client's end closes first."""

BACKLOG = 2048


class Server(uvicorn.Server):
    """uvicorn's server with our signals: unready at once, requests in flight finished, and exit status 0."""

    def __init__(
        self,
        app: App,
        listener: socket.socket,
        settings: Settings,
        secure: ssl.SSLContext | None = None,
        pem: Pem | None = None,
        place: Place | None = None,
    ) -> None:
        """Serve ``app`` on ``listener``, and over gRPC where the settings say so; over TLS where there are ``secure``
        and ``pem``; as one of several workers where there is a ``place``."""
        direct = Direct(app)
        own = {"patience": float(settings.client_patience), "direct": direct}
        config = uvicorn.Config(
            app if app.observer is None else app.observer.observed(app),
            loop="none",
            http=type("Connection", (Connection,), own),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=settings.grace,
            backlog=BACKLOG,
        )
        config.load()
        config.ssl = secure
        super().__init__(config)
        app.in_flight = lambda: len(self.server_state.tasks) + direct.waiting
        self._app = app
        self._listener = listener
        self._settings = settings
        self._pem = pem
        self._place = place
        self._grpc: Service | None = None

    def run_on_uvloop(self) -> None:
        """Serves until it is told to stop and nothing is in flight any more. A worker takes its connections from the
        listener that all of them share."""
        uvloop.run(self.serve([self._listener] if self._place is None else []))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        settings = self._settings
        ports = {"port": self._listener.getsockname()[1]}
        if settings.grpc_port >= 0:
            from workbench.server.grpc_service import Service

            shared = self._place is not None
            self._grpc = Service(self._app, float(settings.client_patience), share_port=shared)
            ports["grpc_port"] = await self._grpc.start(settings.host, settings.grpc_port, self._pem)
        await super().startup(sockets)
        if self._place is not None and self._app.shared is not None:
            from workbench.server.acceptor import Acceptor

            loop = asyncio.get_running_loop()
            loop.add_reader(self._place.parent, self._orphaned)
            self._app.shared.listen(loop)
            # uvicorn closes it as its own servers.
            self.servers.append(Acceptor(self._listener, self._protocol, self.config.ssl))  # type: ignore[arg-type]
        secure = self.config.ssl is not None
        _announce(settings.ready_fd, self._listener.getsockname()[0], ports, self._app, secure=secure)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests, and finish those in flight."""
        over_grpc = [self._grpc.stop(self._settings.grace)] if self._grpc is not None else []
        await asyncio.gather(super().shutdown(sockets), *over_grpc)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop on SIGTERM and SIGINT. uvicorn's own way ends by raising the signal again: no exit status 0."""
        previous = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _protocol(self) -> asyncio.Protocol:
        """That of a new connection, as uvicorn makes it."""
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    def _orphaned(self) -> None:
        assert self._place is not None
        asyncio.get_running_loop().remove_reader(self._place.parent)
        self._stop()

    def _stop(self, *_: object) -> None:
        self._app.ready = False
        self.should_exit = True


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
