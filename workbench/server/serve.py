"""A server's life: load, listen, say so, serve, and on SIGTERM finish what is in flight."""

from __future__ import annotations

import asyncio
import contextlib
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

from workbench.server import platforms
from workbench.server.app import App, Response, Route, Scope
from workbench.server.connection import Connection
from workbench.server.devices import choose
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

KEEP_ALIVE_S = 75
"""Longer than load balancers usually keep idle connections (60 s), so that the client's end closes first."""

BACKLOG = 2048


class Server(uvicorn.Server):
    """uvicorn's server with our signals: unready at once, requests in flight finished, and exit status 0."""

    def __init__(
        self, config: uvicorn.Config, app: App, listener: socket.socket, settings: Settings, pem: Pem | None = None
    ) -> None:
        """Serve ``app`` on ``listener``, and over gRPC where the settings say so; over TLS where there is ``pem``."""
        super().__init__(config)
        app.in_flight = lambda: len(self.server_state.tasks)
        self._app = app
        self._listener = listener
        self._settings = settings
        self._pem = pem
        self._grpc: Service | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        settings = self._settings
        ports = {"port": self._listener.getsockname()[1]}
        if settings.grpc_port >= 0:
            from workbench.server.grpc_service import Service

            self._grpc = Service(self._app, float(settings.client_patience))
            ports["grpc_port"] = await self._grpc.start(settings.host, settings.grpc_port, self._pem)
        await super().startup(sockets)
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

    def _stop(self, *_: object) -> None:
        self._app.ready = False
        self.should_exit = True


def serve(
    models: Mapping[str, Path], host: str = "127.0.0.1", port: int = 8000, threads: int = 1, grpc_port: int = -1
) -> None:
    """Serve the model files of ``models`` by name, each as version 1, until SIGTERM or SIGINT; over gRPC as well where
    ``grpc_port`` is not negative.

    Raises ServerError where a model cannot be loaded or a port cannot be had.
    """
    files = {name: {"1": path} for name, path in models.items()}
    serve_files(files, Settings(host=host, port=port, threads=threads, grpc_port=grpc_port))


def serve_folder(settings: Settings) -> None:
    """Serve every model below ``settings.models``; as :func:`serve` else."""
    serve_files(find_models(settings.models), settings, settings.models)


def serve_files(files: Mapping[str, Mapping[str, Path]], settings: Settings, folder: Path | None = None) -> None:
    """Serve model files by name and version, which lie in ``folder`` where clients may load others of it.

    Returns after SIGTERM or SIGINT, when nothing is in flight any more.
    """
    device = choose(settings.device, available_providers(), fallback=settings.device_fallback)
    with contextlib.ExitStack() as open_:
        # The ports first: a taken one is known before a large model has been loaded.
        listener = open_.enter_context(_listen(settings.host, settings.port, "WORKBENCH_PORT"))
        if settings.grpc_port >= 0:
            _import_grpc()
            _listen(settings.host, settings.grpc_port, "WORKBENCH_GRPC_PORT").close()
        keys, secure, pem = _guards(settings)
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
        # What is loaded stays: collections that walk through it would only show as latency.
        gc.collect()
        gc.freeze()
        uvloop.run(Server(config, app, listener, settings, pem).serve([listener]))


def _guards(settings: Settings) -> tuple[ApiKeys | None, ssl.SSLContext | None, Pem | None]:
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
    """``GET /metrics``. What it takes is loaded when it is first asked: most start-ups are waited for, no scrape is."""
    registry = None

    async def scrape(_scope: Scope, _body: bytes) -> Response:
        nonlocal registry
        from workbench.server import metrics

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
