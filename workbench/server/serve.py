"""A server's life: load, listen, say so, serve, and on SIGTERM finish what is in flight."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from workbench.server.app import App, Response, Route, Scope
from workbench.server.connection import Connection
from workbench.server.devices import Device, choose
from workbench.server.errors import ServerError
from workbench.server.repository import Loader, Repository, find_models
from workbench.server.session import available_providers
from workbench.server.settings import Settings

if TYPE_CHECKING:
    from workbench.server.shared import Shared
    from workbench.server.workers import Place

Files = Mapping[str, Mapping[str, Path]]
"""Model files by name and version."""

KEEP_ALIVE_S = 75
"""Longer than load balancers usually keep idle connections (60 s), so that the client's end closes first."""

BACKLOG = 2048


class Server(uvicorn.Server):
    """uvicorn's server with our signals: unready at once, requests in flight finished, and exit status 0."""

    def __init__(self, config: uvicorn.Config, app: App, listener: socket.socket, ready_fd: int) -> None:
        """Serve ``app`` on ``listener``; write the ready line to ``ready_fd`` unless it is negative."""
        super().__init__(config)
        self._app = app
        self._listener = listener
        self._ready_fd = ready_fd
        self._parent = -1
        self._shared: Shared | None = None

    def join(self, parent: int, shared: Shared) -> None:
        """Be one of several workers: tell the others its numbers, and stop when the pipe ``parent`` closes."""
        self._parent = parent
        self._shared = shared

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        if self._shared is not None:
            loop = asyncio.get_running_loop()
            loop.add_reader(self._parent, self._orphaned)
            self._shared.listen(loop)
        _announce(self._ready_fd, self._listener, self._app)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop on SIGTERM and SIGINT. uvicorn's own way ends by raising the signal again: no exit status 0."""
        previous = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _orphaned(self) -> None:
        asyncio.get_running_loop().remove_reader(self._parent)
        self._stop()

    def _stop(self, *_: object) -> None:
        self._app.ready = False
        self.should_exit = True


def serve_folder(settings: Settings) -> None:
    """Serve every model below ``settings.models``; as :func:`serve_files` else."""
    serve_files(find_models(settings.models), settings, settings.models)


def serve_files(files: Files, settings: Settings, folder: Path | None = None) -> None:
    """Serve model files by name and version, which lie in ``folder`` where clients may load others of it.

    Returns after SIGTERM or SIGINT, when nothing is in flight any more. Raises ServerError where a model cannot be
    loaded or the port cannot be had, SystemExit where workers end and no other can start.
    """
    device = choose(settings.device, available_providers(), fallback=settings.device_fallback)
    # The port first: a taken one is known before a large model has been loaded.
    with _listen(settings.host, settings.port) as listener:
        if settings.workers == 1:
            _serve(files, settings, folder, device, listener)
        else:
            _serve_with_workers(files, settings, folder, device, listener)


def _serve_with_workers(
    files: Files, settings: Settings, folder: Path | None, device: Device, listener: socket.socket
) -> None:
    from workbench.server.workers import UNUSABLE, Parent

    if settings.repository:
        raise ServerError(
            f"With {settings.workers} workers models cannot be loaded and unloaded: each has its own.",
            "Set WORKBENCH_WORKERS=1, or WORKBENCH_REPOSITORY=0.",
        )

    def work(place: Place) -> int:
        own = dataclasses.replace(settings, ready_fd=place.ready)
        try:
            _serve(files, own, folder, device, listener, place)
        except ServerError as error:
            _log(str(error))
            return UNUSABLE
        return 0

    def ready() -> None:
        _log(f"{settings.workers} workers, {settings.threads} threads each, are ready")
        _tell_ready(settings.ready_fd, listener)

    # What is imported by now is shared with the workers as long as nobody writes to it, which a collection would do.
    gc.collect()
    gc.freeze()
    # Nobody is to wait for a parent that only waits for its workers: the listener is closed first.
    stop = listener.close
    if status := Parent(settings.workers, work, grace=settings.grace, ready=ready, stop=stop, log=_log).run():
        raise SystemExit(status)


def _serve(
    files: Files,
    settings: Settings,
    folder: Path | None,
    device: Device,
    listener: socket.socket,
    place: Place | None = None,
) -> None:
    """Serve in this process, which is one of several workers where it has a ``place`` among them."""
    loader = Loader(settings.threads, settings.limits, device, _log)
    repository = Repository(loader, loader.load_all(files, settings.traffic), folder)
    app = App(repository, settings.max_body, change_repository=settings.repository)
    shared = None
    if place is not None:
        from workbench.server.shared import Shared

        shared = Shared(place.board, place.number, repository)
    app.routes["/metrics"] = metrics_route(repository, shared)
    connection = type("Connection", (Connection,), {"patience": float(settings.client_patience)})
    config = uvicorn.Config(
        app,
        loop="none",
        http=connection,
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
    # What is loaded stays: collections that walk through it would only show as latency.
    gc.collect()
    gc.freeze()
    server = Server(config, app, listener, settings.ready_fd)
    if place is not None and shared is not None:
        server.join(place.parent, shared)
    uvloop.run(server.serve([listener]))


def metrics_route(repository: Repository, shared: Shared | None = None) -> Route:
    """``GET /metrics``, of all workers where numbers are ``shared``. What it takes is loaded when it is first asked:
    most start-ups are waited for, no scrape is."""
    registry = None

    async def scrape(_scope: Scope, _body: bytes) -> Response:
        nonlocal registry
        from workbench.server import metrics

        if shared is not None:
            await shared.gather()
            return Response(
                metrics.text(metrics.exposition(shared, shared.processes)), content_type=metrics.CONTENT_TYPE
            )
        registry = registry or metrics.exposition(repository)
        return Response(metrics.text(registry), content_type=metrics.CONTENT_TYPE)

    return Route("GET", scrape)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ServerError(
            f"Cannot listen on {host}:{port}: {error.strerror or error}.", "Free the port or set WORKBENCH_PORT."
        ) from None


def _announce(ready_fd: int, listener: socket.socket, app: App) -> None:
    host, port = listener.getsockname()[:2]
    names = ", ".join(f"{each.model.name}/{each.model.version}" for each in app.repository)
    _log(f"serving {names} at http://{host}:{port}")
    _tell_ready(ready_fd, listener)


def _tell_ready(ready_fd: int, listener: socket.socket) -> None:
    if ready_fd < 0:
        return
    host, port = listener.getsockname()[:2]
    line = {"ready": True, "host": host, "port": port, "pid": os.getpid()}
    try:
        with open(ready_fd, "w", encoding="utf-8") as pipe:
            pipe.write(json.dumps(line) + "\n")
    except OSError as error:
        raise ServerError(
            f"WORKBENCH_READY_FD={ready_fd} cannot be written: {error.strerror}.",
            "Pass a descriptor that the server inherits and somebody reads.",
        ) from None


def _log(text: str) -> None:
    print(f"workbench.server: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the log of a container is stderr
