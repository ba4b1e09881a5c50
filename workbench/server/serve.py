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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from workbench.server import platforms
from workbench.server.app import App, Response, Route, Scope
from workbench.server.connection import Connection
from workbench.server.devices import Device, choose
from workbench.server.errors import PackageMissing, ServerError
from workbench.server.protocol import encode
from workbench.server.repository import Loader, Repository, find_models
from workbench.server.session import available_providers
from workbench.server.settings import ENDPOINTS, Settings

if TYPE_CHECKING:
    import ssl

    from workbench.server.api_keys import ApiKeys
    from workbench.server.grpc_service import Service
    from workbench.server.observe import Observer
    from workbench.server.tls import Pem
    from workbench.server.workers import Place

    Guards = tuple[ApiKeys | None, ssl.SSLContext | None, Pem | None]

Files = Mapping[str, Mapping[str, Path]]
"""Model files by name and version."""

KEEP_ALIVE_S = 75
"""Longer than load balancers usually keep idle connections (60 s), so that the client's end closes first."""

BACKLOG = 2048


class Server(uvicorn.Server):
    """uvicorn's server with our signals: unready at once, requests in flight finished, and exit status 0."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: App,
        listener: socket.socket,
        settings: Settings,
        pem: Pem | None = None,
        place: Place | None = None,
    ) -> None:
        """Serve ``app`` on ``listener``, and over gRPC where the settings say so; over TLS where there is ``pem``; as
        one of several workers where there is a ``place``."""
        super().__init__(config)
        app.in_flight = lambda: len(self.server_state.tasks)
        self._app = app
        self._listener = listener
        self._settings = settings
        self._pem = pem
        self._place = place
        self._grpc: Service | None = None

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


def serve_folder(settings: Settings) -> None:
    """Serve every model below ``settings.models``; as :func:`serve_files` else."""
    serve_files(find_models(settings.models), settings, settings.models)


def serve_files(files: Files, settings: Settings, folder: Path | None = None) -> None:
    """Serve model files by name and version, which lie in ``folder`` where clients may load others of it.

    Returns after SIGTERM or SIGINT, when nothing is in flight any more. Raises ServerError where a model cannot be
    loaded or a port cannot be had, SystemExit where workers end and no other can start.
    """
    device = choose(settings.device, available_providers(), fallback=settings.device_fallback)
    with contextlib.ExitStack() as open_:
        # The ports first: a taken one is known before a large model has been loaded.
        listener = open_.enter_context(_listen(settings.host, settings.port, "WORKBENCH_PORT"))
        if settings.grpc_port >= 0:
            _import_grpc()
            grpc_listener = open_.enter_context(_listen(settings.host, settings.grpc_port, "WORKBENCH_GRPC_PORT"))
            if settings.workers > 1:
                settings = _with_shared_grpc_port(settings, grpc_listener, open_)
            grpc_listener.close()
        guards = _guards(settings)
        if settings.workers == 1:
            _serve(files, settings, folder, device, listener, guards)
        else:
            _serve_with_workers(files, settings, folder, device, listener, guards)


def _with_shared_grpc_port(settings: Settings, listener: socket.socket, open_: contextlib.ExitStack) -> Settings:
    """The settings with the port that is free on ``listener``, kept for the workers: all of them bind it."""
    address, family = listener.getsockname(), listener.family
    listener.close()
    kept = open_.enter_context(socket.socket(family))
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    kept.bind(address)
    return dataclasses.replace(settings, grpc_port=address[1])


def _serve_with_workers(
    files: Files, settings: Settings, folder: Path | None, device: Device, listener: socket.socket, guards: Guards
) -> None:
    from workbench.server.workers import UNUSABLE, Parent

    if settings.repository:
        raise ServerError(
            f"WORKBENCH_REPOSITORY=1 does not go with {settings.workers} workers: each has its own models.",
            "Set WORKBENCH_WORKERS=1, or WORKBENCH_REPOSITORY=0.",
        )

    def work(place: Place) -> int:
        own = dataclasses.replace(settings, ready_fd=place.ready)
        try:
            _serve(files, own, folder, device, listener, guards, place)
        except ServerError as error:
            _log(str(error))
            return UNUSABLE
        return 0

    def ready() -> None:
        _log(f"{settings.workers} workers with {settings.threads} threads each are ready")
        host, port = listener.getsockname()[:2]
        _tell_ready(settings.ready_fd, host, {"port": port} | _grpc_port(settings.grpc_port))

    # What is imported by now is shared with the workers as long as nobody writes to it, which a collection would do.
    gc.freeze()
    gc.enable()
    # The parent's listener is closed first of all: nobody is to wait for one that only waits for its workers.
    stop = listener.close
    if status := Parent(settings.workers, work, grace=settings.grace, ready=ready, stop=stop, log=_log).run():
        raise SystemExit(status)


def _serve(
    files: Files,
    settings: Settings,
    folder: Path | None,
    device: Device,
    listener: socket.socket,
    guards: Guards,
    place: Place | None = None,
) -> None:
    """Serve in this process, which is one of several workers where it has a ``place`` among them."""
    keys, secure, pem = guards
    with contextlib.ExitStack() as open_:
        observer = follow = None
        if settings.access_log or any(map(os.environ.get, ENDPOINTS)):
            from workbench.server.observe import observing

            observer = open_.enter_context(observing(settings.access_log, settings.access_log_file, os.environ, _log))
        if settings.input_stats:
            from workbench.server.input_stats import absorbing

            follow = open_.enter_context(absorbing())
        loader = Loader(settings.threads, settings.limits, device, _log, follow)
        repository = Repository(loader, loader.load_all(files, settings.traffic), folder)
        app = App(repository, settings.max_body, change_repository=settings.repository)
        app.keys = keys
        if settings.cache_bytes:
            from workbench.server.cache import ResponseCache

            app.cache = ResponseCache(settings.cache_bytes)
        if place is not None:
            from workbench.server.shared import Shared, extras_of

            extras = partial(extras_of, app.cache, observer)
            app.shared = Shared(place.board, place.number, repository, extras)
            if settings.input_stats:
                from workbench.server.shared_stats import SharedStatistics

                app.shared.statistics = SharedStatistics(place.statistics, place.number, repository)
        app.routes["/metrics"] = metrics_route(app, observer)
        app.routes["/openapi.json"] = openapi_route(app)
        platforms.install(app, settings.platform, settings.platform_model)
        connection = type("Connection", (Connection,), {"patience": float(settings.client_patience)})
        config = uvicorn.Config(
            app if observer is None else observer.observed(app),
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
        config.load()
        config.ssl = secure
        # What is loaded stays: collections that walk through it would only show as latency. The little of it that is
        # garbage is not worth a first one, which the start would wait for.
        gc.freeze()
        gc.enable()
        server = Server(config, app, listener, settings, pem, place)
        uvloop.run(server.serve([listener] if place is None else []))


def _guards(settings: Settings) -> Guards:
    """What lets clients in, read before a large model is, TLS once for each protocol; None where all may come."""
    keys = secure = pem = None
    if settings.api_key_file is not None:
        from workbench.server.api_keys import read_keys

        keys = read_keys(settings.api_key_file)
    if settings.tls_cert is not None:
        from workbench.server.tls import read_pem, tls_context

        files = settings.tls_cert, settings.tls_key, settings.tls_client_ca
        secure, pem = tls_context(*files), read_pem(*files)
    return keys, secure, pem


def metrics_route(app: App, observer: Observer | None = None) -> Route:
    """``GET /metrics``, of all workers where there are several. What it takes is loaded when it is first asked: most
    start-ups are waited for, no scrape is."""
    registry = None

    async def scrape(_scope: Scope, _body: bytes) -> Response:
        nonlocal registry
        from workbench.server import metrics

        if app.shared is not None:
            await app.shared.gather()
            of_all = metrics.exposition_of_all(app.shared)
            return Response(metrics.text(of_all), content_type=metrics.CONTENT_TYPE)
        registry = registry or metrics.exposition(app.repository, app.cache, observer)
        return Response(metrics.text(registry), content_type=metrics.CONTENT_TYPE)

    return Route("GET", scrape, operations=lambda words: words.metrics())


def openapi_route(app: App) -> Route:
    """``GET /openapi.json``: all that is answered over HTTP, with the signatures of the models as they are loaded."""

    async def describe(_scope: Scope, _body: bytes) -> Response:
        from workbench.server import openapi

        return Response(encode(openapi.document(app)))

    return Route("GET", describe, operations=lambda words: words.itself())


def _import_grpc() -> None:
    try:
        import google.protobuf  # noqa: F401
        import grpc  # noqa: F401 - both are for workbench.server.grpc_service
    except ModuleNotFoundError as error:
        raise PackageMissing(
            f"gRPC needs {error.name}, which is not here.",
            "Have the image made with grpc: in the recipe's image:, or run pip install 'workbench[grpc]'.",
        ) from None


def _listen(host: str, port: int, variable: str) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ServerError(
            f"Cannot listen on {host}:{port}: {error.strerror or error}.", f"Free the port or set {variable}."
        ) from None


def _announce(ready_fd: int, host: str, ports: Mapping[str, int], app: App, *, secure: bool) -> None:
    names = ", ".join(f"{each.model.name}/{each.model.version}" for each in app.repository)
    grpc = f", gRPC at {host}:{ports['grpc_port']}" if "grpc_port" in ports else ""
    _log(f"serving {names} at {'https' if secure else 'http'}://{host}:{ports['port']}{grpc}")
    _tell_ready(ready_fd, host, ports)


def _grpc_port(port: int) -> dict[str, int]:
    return {"grpc_port": port} if port >= 0 else {}


def _tell_ready(ready_fd: int, host: str, ports: Mapping[str, int]) -> None:
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


def _log(text: str) -> None:
    print(f"workbench.server: {text}", file=sys.stderr, flush=True)  # noqa: T201 - the log of a container is stderr
