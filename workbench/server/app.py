"""The ASGI application: the routes of the Open Inference Protocol over a repository of models.

Written against ASGI itself: a framework's routing, dependency injection and response objects cost several times the
inference of a small model (a FastAPI endpoint answers 4,000 requests/s where this answers 27,000).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import workbench
from workbench.server.errors import RequestError
from workbench.server.model import Model
from workbench.server.protocol import (
    InferResponse,
    decode_inputs,
    decode_request,
    encode,
    encode_outputs,
    requested_outputs,
)
from workbench.server.repository import Repository

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_CONTENT_TYPE = (b"content-type", b"application/json")


class ClientGone(Exception):
    """The client closed its connection before its request was whole."""


class App:
    """The application. ``ready`` is what the readiness routes say; the server clears it on SIGTERM."""

    def __init__(self, repository: Repository, max_body: int) -> None:
        """Serve ``repository``; request bodies of more than ``max_body`` bytes are refused with 413."""
        self.repository = repository
        self.max_body = max_body
        self.ready = True
        # One thread: a second run at the same time would take the first one's cores.
        self._pool = ThreadPoolExecutor(1, "inference")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        try:
            status, body = await self._answer(scope, receive)
        except RequestError as error:
            status, body = error.status, encode({"error": error.message})
        except ClientGone:
            return
        headers = [_CONTENT_TYPE, (b"content-length", b"%d" % len(body))]
        if status == 413:
            # The rest of the body is not read, so the connection is of no further use.
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, bytes]:
        match scope["path"].split("/"):
            case ["", "v2", "models", name, "infer"]:
                model = self._model(scope, "POST", name)
            case ["", "v2", "models", name, "versions", version, "infer"]:
                model = self._model(scope, "POST", name, version)
            case path:
                return self._information(scope, path)
        return 200, await self._infer(model, await self._body(scope, receive))

    def _information(self, scope: Scope, path: list[str]) -> tuple[int, bytes]:
        """Health and metadata."""
        match path:
            case ["", "v2"]:
                _allow(scope, "GET")
                return 200, encode({"name": "workbench", "version": workbench.__version__, "extensions": []})
            case ["", "v2", "health", "live"]:
                _allow(scope, "GET")
                return 200, encode({"live": True})
            case ["", "v2", "health", "ready"]:
                _allow(scope, "GET")
                return (200 if self.ready else 503), encode({"ready": self.ready})
            case ["", "v2", "models", name] | ["", "v2", "models", name, "versions", _]:
                model = self._model(scope, "GET", *path[3::2])
                return 200, encode(model.metadata(self.repository.versions(name)))
            case ["", "v2", "models", _, "ready"] | ["", "v2", "models", _, "versions", _, "ready"]:
                model = self._model(scope, "GET", *path[3:-1:2])
                return (200 if self.ready else 503), encode({"name": model.name, "ready": self.ready})
        raise RequestError(404, f"there is nothing at {scope['path']!r}")

    def _model(self, scope: Scope, method: str, name: str, version: str | None = None) -> Model:
        _allow(scope, method)
        return self.repository.get(name, version)

    async def _infer(self, model: Model, body: bytes | bytearray) -> bytes:
        request = decode_request(body)
        feed = decode_inputs(request, model.inputs)
        names = requested_outputs(request, model.outputs)
        if model.slow:
            loop = asyncio.get_running_loop()
            results = await loop.run_in_executor(self._pool, model.run, feed, names)
        else:
            results = model.run(feed, names)
        outputs = encode_outputs(names, results, model.outputs)
        return encode(InferResponse(model.name, model.version, outputs, request.id))

    async def _body(self, scope: Scope, receive: Receive) -> bytes | bytearray:
        """The request body: whole, and refused with 413 as soon as it is known to be too long."""
        for name, value in scope["headers"]:
            if name == b"content-length" and int(value) > self.max_body:
                self._too_long()
            if name == b"inference-header-content-length":
                raise RequestError(400, "the binary tensor extension is not spoken here; send tensors as JSON")
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            whole: bytes = message.get("body", b"")
            return whole if len(whole) <= self.max_body else self._too_long()
        body = bytearray()
        while message["type"] == "http.request":
            body += message.get("body", b"")
            if len(body) > self.max_body:
                self._too_long()
            if not message.get("more_body"):
                return body
            message = await receive()
        raise ClientGone

    def _too_long(self) -> Any:
        raise RequestError(413, f"the body is longer than the {self.max_body} bytes that WORKBENCH_MAX_BODY allows")


def _allow(scope: Scope, method: str) -> None:
    if scope["method"] != method:
        raise RequestError(405, f"{scope['path']!r} takes {method}, not {scope['method']}")
