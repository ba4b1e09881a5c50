"""Serve models as the settings say: take the ports, load, put the application together, in one process or several."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import gc
import os
import socket
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.server import platforms
from workbench.server.app import App
from workbench.server.devices import Device, choose
from workbench.server.errors import NotHere, ServerError
from workbench.server.life import BACKLOG, Server, log, tell_ready
from workbench.server.repository import Loader, Repository, find_models
from workbench.server.routes import metrics_route, openapi_route
from workbench.server.session import available_providers
from workbench.server.settings import ENDPOINTS, Settings

if TYPE_CHECKING:
    import ssl

    from workbench.server.api_keys import ApiKeys
    from workbench.server.tls import Pem
    from workbench.server.workers import Place

    Guards = tuple[ApiKeys | None, ssl.SSLContext | None, Pem | None]

Files = Mapping[str, Mapping[str, Path]]
"""Model files by name and version."""


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
            log(str(error))
            return UNUSABLE
        return 0

    def ready() -> None:
        log(f"{settings.workers} workers with {settings.threads} threads each are ready")
        host, port = listener.getsockname()[:2]
        tell_ready(settings.ready_fd, host, {"port": port} | _grpc_port(settings.grpc_port))

    # What is imported by now is shared with the workers as long as nobody writes to it, which a collection would do.
    gc.freeze()
    gc.enable()
    # The parent's listener is closed first of all: nobody is to wait for one that only waits for its workers.
    stop = listener.close
    if status := Parent(settings.workers, work, grace=settings.grace, ready=ready, stop=stop, log=log).run():
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
        app = _application(files, settings, folder, device, open_)
        app.keys = keys
        if place is not None:
            _share(app, place, followed=settings.input_stats)
        app.routes["/metrics"] = metrics_route(app)
        app.routes["/openapi.json"] = openapi_route(app)
        platforms.install(app, settings.platform, settings.platform_model)
        server = Server(app, listener, settings, secure, pem, place)
        # What is loaded stays: collections that walk through it would only show as latency. The little of it that is
        # garbage is not worth a first one, which the start would wait for.
        gc.freeze()
        gc.enable()
        server.run()


def _application(
    files: Files, settings: Settings, folder: Path | None, device: Device, open_: contextlib.ExitStack
) -> App:
    """The application over loaded models, with what watches it and what it keeps; ``open_`` closes that."""
    observer = follow = None
    if settings.access_log or any(map(os.environ.get, ENDPOINTS)):
        from workbench.server.observe import observing

        observer = open_.enter_context(observing(settings.access_log, settings.access_log_file, os.environ, log))
    if settings.input_stats:
        from workbench.server.input_stats import absorbing

        follow = open_.enter_context(absorbing())
    loader = Loader(settings.threads, settings.limits, device, log, follow)
    repository = Repository(loader, loader.load_all(files, settings.traffic), folder)
    app = App(repository, settings.max_body, change_repository=settings.repository)
    app.observer = observer
    if settings.cache_bytes:
        from workbench.server.cache import ResponseCache

        app.cache = ResponseCache(settings.cache_bytes)
    return app


def _share(app: App, place: Place, *, followed: bool) -> None:
    """Has the numbers of a worker be those of all; where inputs are ``followed``, their statistics too."""
    from workbench.server.shared import Shared, extras_of

    app.shared = Shared(place.board, place.number, app.repository, partial(extras_of, app.cache, app.observer))
    if followed:
        from workbench.server.shared_stats import SharedStatistics

        app.shared.statistics = SharedStatistics(place.statistics, place.number, app.repository)


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


def _import_grpc() -> None:
    try:
        import google.protobuf  # noqa: F401
        import grpc  # noqa: F401 - both are for workbench.server.grpc_service
    except ModuleNotFoundError as error:
        raise NotHere(
            f"gRPC needs {error.name}, which is not here.",
            "Have the image made with grpc: in the recipe's image:, or run pip install 'workbench[grpc]'.",
        ) from None


def _listen(host: str, port: int, variable: str) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        # create_server adds the address to the words of the system.
        told = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error
        other = error.errno in (errno.EADDRINUSE, errno.EACCES)
        cure = f"Free the port or set {variable}." if other else "Set WORKBENCH_HOST to an address of this machine."
        raise ServerError(f"Cannot listen on {host}:{port}: {told}.", cure) from None


def _grpc_port(port: int) -> dict[str, int]:
    return {"grpc_port": port} if port >= 0 else {}
