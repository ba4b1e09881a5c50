"""The app in a browser on this machine: ``workbench --serve``.

textual-serve starts an app for each page and passes its picture and keys through a websocket. By itself it lets any
page of any site open that socket, and the app starts commands. So here

- it listens on 127.0.0.1 only;
- everything lies under a path that nobody can guess, made anew each time, as the token of a Jupyter server is;
- a request must name this machine as its host (another site's name that was made to point here does not) and must
  come from the page itself;
- the page may load and run nothing but its own files, and no other page may frame it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shlex
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from aiohttp import web
from textual_serve.server import Server

from screens.html import el, written
from screens.output import say
from screens.settings import load_settings, settings_file
from screens.words import safe
from workbench.assets import asset
from workbench.errors import UsageError
from workbench.project import project_of

HOST = "127.0.0.1"
PORT = 8765
_HOSTS = frozenset({HOST, "localhost", "::1"})
_APP = (sys.executable, "-P", "-m", "screens.served")
_PATIENCE = 3.0
"""Seconds that an app has to end before it is made to."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self'; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses what does not come from this machine's own page."""
    origin = request.headers.get("Origin")
    if urlsplit(f"//{request.host}").hostname not in _HOSTS or origin not in (None, f"http://{request.host}"):
        raise web.HTTPForbidden(text="This page is for the browser of this machine only.\n")
    return await handler(request)


async def seal(request: web.Request, answer: web.StreamResponse) -> None:
    """Every answer carries :data:`HEADERS`; what is downloaded is no page of ours, whatever is in it."""
    answer.headers.update(HEADERS)
    if request.path.startswith("/download/"):
        answer.headers["Content-Security-Policy"] += "; sandbox"


class AppServer(Server):
    """Serves the app of the project in this folder. ``path`` is the secret part of its address."""

    def __init__(self, project: Path) -> None:
        # The command goes through a shell: it has constant words only, and the shell becomes the app.
        super().__init__(f"exec {shlex.join(_APP)}", host=HOST)
        self.path = f"/{secrets.token_urlsafe(24)}"
        self._project = project
        self._pages: set[asyncio.Task[object]] = set()

    async def application(self) -> web.Application:
        """The application; only a download, which has a secret name of its own, lies outside of the secret path."""
        guarded = web.Application(middlewares=[guard])
        guarded.on_response_prepare.append(seal)
        guarded.add_routes([web.get("/download/{key}", self.handle_download)])
        guarded.add_subapp(self.path, await self._make_app())
        return guarded

    async def on_startup(self, app: web.Application) -> None:
        """Without the banner."""

    async def on_shutdown(self, app: web.Application) -> None:  # noqa: ARG002
        """Ends the pages, and with each its app."""
        for page in self._pages:
            page.cancel()
        if self._pages:
            await asyncio.wait(self._pages, timeout=_PATIENCE)

    async def handle_index(self, request: web.Request) -> web.Response:
        """The page. textual-serve's own fetches its font from the net."""
        return web.Response(text=page(self._project, request.host, self.path), content_type="text/html")

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """An app, for as long as its page is open."""
        task = asyncio.current_task()
        assert task is not None
        self._pages.add(task)
        try:
            return await super().handle_websocket(request)
        finally:
            self._pages.discard(task)


def page(project: Path, host: str, path: str) -> str:
    """The page that the app is shown on; it lies at ``path``/ of ``host``."""
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("title", f"workbench  {safe(project.name)}"),
        el("link", rel="icon", href="data:,"),
        el("link", rel="stylesheet", href="static/css/xterm.css"),
        el("style", asset("browser.css").read_text(encoding="utf-8")),
        el("script", src="static/js/textual.js"),
    )
    # Its font is that of the terminal, so that it is there when the terminal measures its letters.
    ended = el("p", "The app has ended; runs go on. ", el("a", "Open it again", href="."), class_="ended")
    terminal = el(
        "div",
        id="terminal",
        class_="textual-terminal",
        data_session_websocket_url=f"ws://{host}{path}/ws",
        data_font_size="16",
    )
    return written(el("html", head, el("body", el("p", "workbench", class_="begins"), ended, terminal), lang="en"))


def serve(port: int = PORT) -> None:
    """Serves the app of this folder's project until Ctrl-C. Raises UsageError where the port cannot be had."""
    load_settings(settings_file())  # what is wrong with them is told here, not in a page that stays empty
    try:
        listening = socket.create_server((HOST, port))
    except OSError as error:
        raise UsageError(
            f"Port {port} of {HOST} cannot be had: {os.strerror(error.errno or 0)}.",  # create_server adds the address
            "Take another, or any free one: workbench --serve --port 0",
        ) from None
    project = project_of(Path.cwd() / "here")
    with listening, contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(AppServer(project), listening, project))


async def _serve(server: AppServer, listening: socket.socket, project: Path) -> None:
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)
    # No log of requests: their paths are secret.
    runner = web.AppRunner(await server.application(), access_log=None, shutdown_timeout=_PATIENCE)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        say(f"The app of {safe(project)} is at this address, for the browser of this machine only.", sys.stderr)
        say("Ctrl-C ends it; runs go on.", sys.stderr)
        say(f"http://{HOST}:{listening.getsockname()[1]}{server.path}/", sys.stdout)
        sys.stdout.flush()
        await ended.wait()
    finally:
        await runner.cleanup()
        await asyncio.to_thread(_end_apps)


def _end_apps() -> None:
    """Ends what apps there still are; a command that one has started outlives it no longer than in a terminal."""
    apps = psutil.Process().children()
    for app in apps:
        with contextlib.suppress(psutil.NoSuchProcess):
            app.terminate()
    for app in psutil.wait_procs(apps, timeout=_PATIENCE)[1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            app.kill()
