"""The ASGI application: the routes of the Open Inference Protocol over a repository of models.

Written against ASGI itself: a framework's routing, dependency injection and response objects cost several times the
inference of a small model (a FastAPI endpoint answers 4,000 requests/s where this answers 27,000).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

import workbench
from workbench.server.batcher import Batcher, Done, Request, awaited
from workbench.server.errors import RequestError
from workbench.server.exchange import current
from workbench.server.protocol import BINARY, HEADER_LENGTH, JSON, Asked, answer, encode
from workbench.server.repository import Repository, Served, Traffic
from workbench.server.tensors import Array, size_in_memory

if TYPE_CHECKING:
    from workbench.server.api_keys import ApiKeys
    from workbench.server.cache import ResponseCache
    from workbench.server.observe import Observer
    from workbench.server.shared import Shared

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_LITTLE = 64 << 10

EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]

OPEN = frozenset({"/v2/health/live", "/v2/health/ready"})
"""Addresses that need no API key: probes have none."""


class ClientGone(Exception):
    """The client closed its connection before its request was whole."""


@dataclass(slots=True)
class Response:
    """What is answered."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def all_headers(self) -> Headers:
        """Those of the body with the others."""
        return [(b"content-type", self.content_type), (b"content-length", b"%d" % len(self.body)), *self.headers]


@dataclass(slots=True)
class Route:
    """An address of its own beside those of the protocol: ``answer`` gets the scope and the request's body.

    ``method``: what it takes, several with spaces between. ``refusal``: how it says what went wrong, where not as the
    protocol does. ``operations``: it in OpenAPI's words, by method, made with the module that has
    them (workbench.server.openapi), which is loaded when somebody asks. ``open``: those of its methods that tell
    of the server's health, and need no API key.
    """

    method: str
    answer: Callable[[Scope, bytes], Awaitable[Response]]
    refusal: Callable[[RequestError], Response] | None = None
    operations: Callable[[Any], Mapping[str, Any]] | None = None
    open: str = ""


class App:
    """The application. ``ready`` is what the readiness routes say; the server clears it on SIGTERM.

    ``routes`` are addresses beside those of the protocol, such as a platform's own.
    """

    def __init__(
        self, repository: Repository, max_body: int, *, max_bodies: int = 0, change_repository: bool = False
    ) -> None:
        """Serve ``repository``; request bodies of more than ``max_body`` bytes are refused with 413, and with 429 what
        would make more than ``max_bodies`` (default: eight such) that are held at once. ``change_repository``: clients
        may load and unload models."""
        self.repository = repository
        self.max_body = max_body
        self.ready = True
        self.routes: dict[str, Route] = {}
        self.keys: ApiKeys | None = None
        """Of which a request needs one, but for what tells of health."""
        self.cache: ResponseCache | None = None
        """What was answered, where that may be answered again."""
        self.observer: Observer | None = None
        """Who watches requests."""
        self.in_flight: Callable[[], int] = lambda: 0
        """How many requests have been taken and not been answered yet; 0 where nobody counts them."""
        self.shared: Shared | None = None
        """The numbers of all workers, where there are several."""
        self._max_bodies = max_bodies or 8 * max_body
        self._held = 0
        self._shadowed = 0
        """Bytes of what shadows wait for."""
        self.change_repository = change_repository

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body = Body(self, scope, receive)
        try:
            try:
                if self.keys is not None:
                    self._admit(scope, self.keys)
                found = await self._answer(scope, body)
            except RequestError as error:
                found = refusal(error)
                await body.discard()
        except ClientGone:
            return
        finally:
            body.release()
        headers = found.all_headers()
        if not body.whole:
            # What is left of it is not read, so the connection is of no further use.
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": found.status, "headers": headers})
        await send({"type": "http.response.body", "body": found.body})

    async def _answer(self, scope: Scope, body: Body) -> Response:
        path = scope["path"]
        if route := self.routes.get(path):
            return await _by_route(route, scope, body)
        match path.split("/"):
            case ["", "v2", "models", name, "infer"]:
                return await self._infer(name, None, scope, body)
            case ["", "v2", "models", name, "versions", version, "infer"]:
                return await self._infer(name, version, scope, body)
            case ["", "v2", "repository", *words]:
                return await self._repository(words, scope, body)
            case ["", "v1", "models", *words]:
                from workbench.server import v1

                return await v1.answer(self, words, scope, body)
            case ["", "v2", "models", *words, "stats" | "drift" as what] if (
                words or what not in self.repository.names()
            ):
                return await self._statistics(what, words, scope, body)
            case words:
                found = self._information(scope, words)
                await body.read()
                return found

    def _admit(self, scope: Scope, keys: ApiKeys) -> None:
        path = scope["path"]
        if path in OPEN or ((route := self.routes.get(path)) is not None and scope["method"] in route.open.split()):
            return
        keys.check(next((value for name, value in scope["headers"] if name == b"authorization"), None))

    def _information(self, scope: Scope, path: list[str]) -> Response:
        """Health and metadata."""
        match path:
            case ["", "v2"]:
                allow(scope, "GET")
                return Response(encode(about()))
            case ["", "v2", "health", "live"]:
                allow(scope, "GET")
                return Response(encode({"live": True}))
            case ["", "v2", "health", "ready"]:
                allow(scope, "GET")
                return Response(encode({"ready": self.ready}), 200 if self.ready else 503)
            case ["", "v2", "models", name] | ["", "v2", "models", name, "versions", _]:
                allow(scope, "GET")
                model = self.repository.look_up(name, *path[5:]).model
                return Response(encode(model.metadata(list(self.repository.served(name).versions))))
            case ["", "v2", "models", name, "ready"] | ["", "v2", "models", name, "versions", _, "ready"]:
                allow(scope, "GET")
                model = self.repository.look_up(name, *path[5:-1]).model
                return Response(encode({"name": model.name, "ready": self.ready}), 200 if self.ready else 503)
            case ["", "v2", "models", name, "config"] | ["", "v2", "models", name, "versions", _, "config"]:
                from workbench.server.model_config import model_config

                allow(scope, "GET")
                return Response(encode(model_config(self.repository.look_up(name, *path[5:-1]).model)))
        raise RequestError(404, f"there is nothing at {scope['path']!r}")

    async def _infer(self, name: str, version: str | None, scope: Scope, body: Body) -> Response:
        allow(scope, "POST")
        header = header_length(scope)
        batcher, served = self.batcher_of(name, version)
        batcher.check_room()
        asked = understood(batcher, await body.read(), header)
        return response(batcher, asked, await self.run(batcher, asked, served))

    def batcher_of(self, name: str, version: str | None) -> tuple[Batcher, Served | None]:
        """Who computes a request, and where no version was named, what it is one of."""
        served = self.repository.served(name)
        return self.repository.get(name, version), None if version else served

    async def run(self, batcher: Batcher, asked: Asked, served: Served | None = None) -> list[Array]:
        """The results of a request: as :meth:`submit`, for who waits."""
        return await awaited(lambda done: self.submit(batcher, asked, served, done, self.in_flight()))

    def submit(
        self, batcher: Batcher, asked: Asked, served: Served | None, done: Done, in_flight: int = 0
    ) -> Request | None:
        """Has a request computed, or answered from the cache, as :meth:`Batcher.submit` does; where it may go to any
        version of ``served``, its shadow gets a copy."""
        try:
            if self.cache is not None:
                return self.cache.submit(batcher, asked, done, in_flight)
            return batcher.submit(asked.feed, asked.outputs, done, asked.timeout, in_flight)
        finally:
            # After the request itself, which is not to wait for the run of a slow shadow.
            if served is not None and served.shadow is not None and served.shadow is not batcher:
                self._shadow(served.shadow, asked)

    def _shadow(self, batcher: Batcher, asked: Asked) -> None:
        """Has computed what nobody sees but the numbers; what goes wrong is among them.

        The request may be answered long before, and its body counted no more. So what shadows hold is counted by
        itself: a copy that would make it more than that of all bodies may be is refused, as by a full queue.
        """
        size = sum(map(size_in_memory, asked.feed.values()))
        if self._shadowed + size > self._max_bodies:
            batcher.meter.fail("full")
            return

        def done(_: object) -> None:
            self._shadowed -= size

        outputs = [name for name in asked.outputs if name in batcher.model.outputs]
        exchange = current.get()
        current.set(None)  # it is no part of the exchange that caused it
        with contextlib.suppress(RequestError):  # a full queue, which the meter has counted
            batcher.submit(asked.feed, outputs, done, asked.timeout)
            self._shadowed += size
        current.set(exchange)

    async def _statistics(self, what: str, words: list[str], scope: Scope, body: Body) -> Response:
        """The protocol's statistics extension, and in the same form what is known of inputs and outputs: of all
        models, of all versions of one, or of one version."""
        allow(scope, "GET")
        match words:
            case []:
                batchers = self.repository.chosen()
            case [name] | [name, "versions", _]:
                batchers = self.repository.chosen(name, *words[2:])
            case _:
                raise RequestError(404, f"there is nothing at {scope['path']!r}")
        await body.read()
        if what == "stats":
            from workbench.server.model_stats import model_stats

            return Response(encode(await model_stats(batchers, self.shared)))
        followed = [(each.model, each.statistics) for each in batchers if each.statistics is not None]
        if not followed:
            raise RequestError(404, "inputs are not followed here; WORKBENCH_INPUT_STATS=1 has it done")
        others = await self.shared.statistics.others() if self.shared and self.shared.statistics else {}
        loop = asyncio.get_running_loop()
        told = [
            {"name": model.name, "version": model.version}
            | await loop.run_in_executor(None, statistics.report, others.get((model.name, model.version), []))
            for model, statistics in followed
        ]
        return Response(encode({"model_drift": told}))

    async def _repository(self, words: list[str], scope: Scope, body: Body) -> Response:
        """The protocol's repository extension (docs/protocol/extension_model_repository.md of Triton)."""
        allow(scope, "POST")
        self.check_changes()
        content = await body.read()
        match words:
            case ["index"]:
                return Response(encode(self.repository.index(ready=_decoded(content, IndexRequest).ready)))
            case ["models", name, "load"]:
                await self.repository.load(name, traffic_of(_decoded(content, LoadRequest).parameters.config))
                return Response(b"{}")
            case ["models", name, "unload"]:
                await self.repository.unload(name)
                return Response(b"{}")
        raise RequestError(404, f"there is nothing at {scope['path']!r}")

    def check_changes(self) -> None:
        """RequestError 403 where clients may not load and unload models."""
        if not self.change_repository:
            raise RequestError(403, "models cannot be loaded and unloaded here; WORKBENCH_REPOSITORY=1 allows it")

    # --- what bodies take

    def hold(self, size: int) -> None:
        """Counts bytes of bodies that are held; RequestError 429 where they become too many."""
        if self._held + size > self._max_bodies:
            raise RequestError(429, "the server holds as many request bodies as it may; try again later", retry_after=1)
        self._held += size

    def too_long(self) -> RequestError:
        """What is said of a body that is longer than it may be."""
        return RequestError(413, f"the body is longer than the {self.max_body} bytes that WORKBENCH_MAX_BODY allows")

    def let_go(self, size: int) -> None:
        """Counts bytes that are held no longer."""
        self._held -= size


class Body:
    """The body of a request; read once, bounded, counted while it is held."""

    __slots__ = ("_announced", "_app", "_begun", "_encoding", "_held", "_receive", "whole")

    def __init__(self, app: App, scope: Scope, receive: Receive) -> None:
        self._app = app
        self._receive = receive
        headers = dict(scope["headers"])
        self._announced: float = math.inf if b"transfer-encoding" in headers else int(headers.get(b"content-length", 0))
        self._encoding = headers.get(b"content-encoding", b"")
        self._held = 0
        self._begun = False
        self.whole = False
        """Whether nothing of the request is left in the connection."""

    async def read(self) -> bytes:
        """All of it: refused with 413 as soon as it is known to be too long."""
        if self._app.max_body < self._announced < math.inf:
            raise self._app.too_long()
        if self._encoding and self._encoding.lower() != b"identity":
            raise RequestError(415, f"a body in {self._encoding.decode('latin-1')!r} is not read here; send it plain")
        self._begun = True
        message = await self._receive()
        came = bytearray()  # no list: a client may send byte by byte, and each by itself takes 40
        while message["type"] == "http.request":
            part = message.get("body", b"")
            self._app.hold(len(part))
            self._held += len(part)
            if self._held > self._app.max_body:
                raise self._app.too_long()
            if not message.get("more_body"):
                self.whole = True
                return bytes(came + part) if came else part
            came += part
            message = await self._receive()
        raise ClientGone

    async def discard(self) -> None:
        """Reads what is left where that is little, so that the connection can be used again."""
        if not self.whole and not self._begun and self._announced <= _LITTLE:
            with contextlib.suppress(RequestError):
                await self.read()

    def release(self) -> None:
        """Lets go of it."""
        self._app.let_go(self._held)


class IndexRequest(msgspec.Struct):
    """The body of a request for the repository's index."""

    ready: bool = False


class LoadParameters(msgspec.Struct, forbid_unknown_fields=True):
    """``config``: how the model is to be loaded, JSON of :class:`Traffic`. Files are not taken from clients."""

    config: str = "{}"


class LoadRequest(msgspec.Struct):
    """The body of a request to load a model."""

    parameters: LoadParameters = msgspec.field(default_factory=LoadParameters)


def about() -> dict[str, Any]:
    """The protocol's server metadata."""
    return {"name": "workbench", "version": workbench.__version__, "extensions": EXTENSIONS}


def traffic_of(config: str) -> Traffic:
    """How a model is to be loaded, from the JSON that a client sends as ``config``; RequestError 400 for another."""
    found: Traffic = _decoded(config.encode(), Traffic)
    return found


def refusal(error: RequestError) -> Response:
    """The protocol's error object, with when to try again."""
    return Response(encode({"error": error.message}), error.status, headers=refusal_headers(error))


def refusal_headers(error: RequestError) -> tuple[tuple[bytes, bytes], ...]:
    """When to try again, and which methods an address takes."""
    headers = () if error.retry_after is None else ((b"retry-after", b"%d" % error.retry_after),)
    if error.status == 401:
        headers = (*headers, (b"www-authenticate", b'Bearer realm="workbench"'))
    return headers if error.allow is None else (*headers, (b"allow", error.allow.encode()))


async def _by_route(route: Route, scope: Scope, body: Body) -> Response:
    try:
        allow(scope, *route.method.split())
        return await route.answer(scope, await body.read())
    except RequestError as error:
        if route.refusal is None:
            raise
        await body.discard()
        return route.refusal(error)


def understood(batcher: Batcher, body: bytes | memoryview, header: int | None) -> Asked:
    """The request in ``body``; RequestError 400, which is counted, where it is not one."""
    try:
        return batcher.model.reader.read(body, header)
    except RequestError:
        batcher.meter.fail("invalid")
        raise


def response(batcher: Batcher, asked: Asked, results: Sequence[Array]) -> Response:
    """The response to an inference."""
    model = batcher.model
    body, length = answer(model.name, model.version, asked, results, model.outputs)
    if length is None:
        return Response(body)
    return Response(body, content_type=BINARY, headers=((HEADER_LENGTH, b"%d" % length),))


def header_length(scope: Mapping[str, Any]) -> int | None:
    """How long the JSON of a request is where binary sections follow it."""
    for name, value in scope["headers"]:
        if name == HEADER_LENGTH:
            if not value.isdigit() or len(value) > 15:
                raise RequestError(400, f"Inference-Header-Content-Length is {value.decode('latin-1')!r}, no length")
            return int(value)
    return None


def _decoded(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, f"the body cannot be read: {error}") from None


def allow(scope: Scope, *methods: str) -> None:
    """RequestError 405 where a request has another method. HEAD is GET whose body the connection leaves out."""
    if scope["method"] not in methods and not (scope["method"] == "HEAD" and "GET" in methods):
        taken = ", ".join((*methods, "HEAD") if "GET" in methods else methods)
        raise RequestError(405, f"{scope['path']!r} takes {taken}, not {scope['method']}", allow=taken)
