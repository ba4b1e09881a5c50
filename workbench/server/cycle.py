"""A request and its answer, which goes out in one piece."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from workbench.server.errors import FAULT
from workbench.server.protocol import JSON, encode

if TYPE_CHECKING:
    from workbench.server.app import Headers, Response, Scope
    from workbench.server.clients import Application
    from workbench.server.connection import Connection

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_CLOSE = (b"connection", b"close")
_OK = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b\r\n%b"

_log = logging.getLogger(__name__)


class Whole:
    """A request that came whole, and its answer, where no task is made for it."""

    __slots__ = ("_connection", "answered", "disconnected", "keep_alive")

    more_body = False

    def __init__(self, connection: Connection, keep_alive: bool) -> None:
        self._connection = connection
        self.keep_alive = keep_alive
        self.answered = False
        self.disconnected = False

    def lost(self) -> None:
        """The client is gone."""
        self.disconnected = True
        direct = self._connection.direct
        if direct is not None:
            direct.give_up(self.answer)

    def answer(self, response: Response) -> None:
        """Sends the answer."""
        self.answered = True
        if self.disconnected:
            return
        connection = self._connection
        if self.keep_alive and response.status == 200:
            more = _lines(response.headers) if response.headers else b""
            connection.transport.write(_OK % (response.content_type, len(response.body), more, response.body))
        else:
            connection.transport.write(
                whole_answer(response.status, response.all_headers(), response.body, close=not self.keep_alive)
            )
            if not self.keep_alive:
                connection.close()
        connection.on_answered()


class Cycle:
    """A request and its answer, by a task: the body is read as it comes, and the answer goes out in one piece."""

    def __init__(
        self, connection: Connection, scope: Scope, body: list[bytes], *, whole: bool, keep_alive: bool, waits: bool
    ) -> None:
        """``body``: what has come of it, all where it is ``whole``. ``waits``: the client sends it when it is told."""
        self._connection = connection
        self._scope = scope
        self._body = body
        self.unread = sum(map(len, body))
        """Bytes that have come and were not read yet."""
        self.more_body = not whole
        self.keep_alive = keep_alive
        self._waits = waits
        self._came = asyncio.Event()
        if body or whole:
            self._came.set()
        self.answered = False
        self.disconnected = False
        self._head: Any = None
        self.task: asyncio.Task[None] | None = None
        """That answers it, once that has begun."""

    async def run(self, app: Application) -> None:
        """Has ``app`` answer."""
        try:
            await app(self._scope, self.receive, self.send)
        except Exception:
            _log.exception("%s %s could not be answered", self._scope["method"], self._scope["path"])
        if not self.answered and not self.disconnected:
            self.keep_alive = False
            self._answer(500, *error_answer(FAULT))

    def add(self, body: bytes) -> None:
        """More of the body has come."""
        self._body.append(body)
        self.unread += len(body)
        self._came.set()

    def complete(self) -> None:
        """All of the body has come."""
        self.more_body = False
        self._came.set()

    def lost(self) -> None:
        """The client is gone. Where it was still sending, whoever reads that finds out."""
        self.disconnected = True
        self._came.set()
        if self.task is not None and not self.more_body:
            self.task.cancel()
            self.task = None  # what it is cancelled with holds this, and so all that the request held

    async def receive(self) -> Any:
        """What has come of the body, at least something."""
        connection = self._connection
        if self._waits and not connection.transport.is_closing():
            connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._waits = False
        if not self.disconnected and not self.answered:
            if self.more_body:  # else it is others that the client is held up for
                connection.resume_reading()
            await self._came.wait()
            self._came.clear()
        if self.disconnected or self.answered:
            return {"type": "http.disconnect"}
        parts, self._body, self.unread = self._body, [], 0
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Any) -> None:
        """Sends the answer, when its body is there: all of it."""
        if message["type"] == "http.response.start":
            self._head = message
            return
        await self._connection.writable()
        if not self.disconnected:
            self._answer(self._head["status"], self._head["headers"], message["body"])

    def _answer(self, status: int, headers: Headers, body: bytes) -> None:
        connection = self._connection
        if _CLOSE in headers:
            self.keep_alive = False
        if self._scope["method"] == "HEAD":
            body = b""
        connection.transport.write(whole_answer(status, headers, body, close=not self.keep_alive))
        self.answered = True
        self._waits = False
        self._came.set()
        if not self.keep_alive:
            connection.close()
        connection.on_answered()


def whole_answer(status: int, headers: Headers, body: bytes, *, close: bool) -> bytes:
    """A whole answer. ``headers`` are in lower case, and the length of ``body`` among them."""
    said = (*headers, _CLOSE) if close and _CLOSE not in headers else headers
    return b"".join((_STATUS_LINES[status], _lines(said), b"\r\n", body))


def _lines(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    if lines.count(b"\n") != len(headers):
        raise RuntimeError("a header of the answer has more than one line")
    return lines


def error_answer(message: str) -> tuple[Headers, bytes]:
    """Headers and body that tell of an error, as the protocol has it."""
    body = encode({"error": message})
    return [(b"content-type", JSON), (b"content-length", b"%d" % len(body))], body
