"""One HTTP connection: uvicorn's, with bounds on how long a client may take and how much it may send before a body.

What runs for each request is written out here in place of uvicorn's own: of a small inference HTTP is the larger part.
An inference that arrives whole is handed over without a task (workbench.server.direct). And a head that arrived before,
byte for byte, is not parsed again: clients mostly send the same one, over and over.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from workbench.server.errors import RequestError
from workbench.server.protocol import encode

if TYPE_CHECKING:
    from workbench.server.app import Response
    from workbench.server.direct import Direct, Target

MAX_HEAD = 64 << 10
"""Most bytes of a request's address and headers."""

MAX_UNREAD = 256 << 10
"""Bytes of a body that may wait to be read before the client is held up; uvloop reads no more at once."""


MAX_PIECES = 32
"""Of a body that is waited for: one that comes in more of them is read by its task, piece by piece."""

MAX_KEPT_HEAD = 2 << 10
"""Bytes of a head that is kept to know it again."""

_CLOSE = (b"connection", b"close")
_END = b"\r\n\r\n"
_PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b"


class Whole:
    """A request that came whole, and its answer, where no task is made for it."""

    __slots__ = ("_connection", "disconnected", "keep_alive", "response_complete")

    more_body = False

    def __init__(self, connection: Connection, keep_alive: bool) -> None:
        self._connection = connection
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False

    def lost(self) -> None:
        """The client is gone."""
        self.disconnected = True

    def answer(self, response: Response) -> None:
        """Sends the answer."""
        self.response_complete = True
        if self.disconnected:
            return
        connection = self._connection
        if self.keep_alive and response.status == 200 and not response.headers:
            body = response.body
            connection.transport.write(_PLAIN % (response.content_type, len(body), body))
        else:
            connection.transport.write(
                _answer(response.status, response.all_headers(), response.body, close=not self.keep_alive)
            )
            if not self.keep_alive:
                connection.transport.close()
        connection.on_response_complete()


class Cycle(RequestResponseCycle):
    """A request and its answer: the body is kept as it came, and an answer that is whole goes out in one piece."""

    body: list[bytes]  # type: ignore[assignment]
    unread = 0
    _head: Any = None

    async def receive(self) -> Any:
        """What has come of the body, at least something."""
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        if not self.disconnected and not self.response_complete:
            self.flow.resume_reading()
            await self.message_event.wait()
            self.message_event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        parts, self.body, self.unread = self.body, [], 0
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Any) -> None:
        """Sends the answer: at once where its body comes whole, as uvicorn does where it comes in parts."""
        if message["type"] == "http.response.start" and not self.response_started:
            self._head = message
            return
        head, self._head = self._head, None
        if head is None or message.get("more_body") or self.scope["method"] == "HEAD":
            if head is not None:
                await super().send(head)
            await super().send(message)
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        if _CLOSE in head["headers"]:
            self.keep_alive = False
        self.transport.write(_answer(head["status"], head["headers"], message["body"], close=not self.keep_alive))
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def lost(self) -> None:
        """The client is gone."""
        self.disconnected = True
        self.message_event.set()


def _answer(status: int, headers: list[tuple[bytes, bytes]], body: bytes, *, close: bool) -> bytes:
    """A whole answer. ``headers`` are in lower case, and the length of ``body`` among them."""
    lines = [STATUS_LINE[status]]
    for name, value in headers:
        lines.append(b"%b: %b\r\n" % (name, value))
    if close and _CLOSE not in headers:
        lines.append(b"connection: close\r\n")
    text = b"".join(lines)
    if text.count(b"\n") != len(lines):
        raise RuntimeError("a header of the answer has more than one line")
    return b"".join((text, b"\r\n", body))


class Connection(HttpToolsProtocol):
    """Closes on a client that takes longer than :attr:`patience` to send a request or to take an answer."""

    patience: float = 30.0
    direct: Direct | None = None
    """Who answers what it can of requests that came whole."""
    cycle: Cycle | Whole  # type: ignore[assignment]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._arriving = False
        self._head = 0
        self._fresh = False
        """Whether a head has arrived whose request nobody has been handed yet."""
        self._keep_alive = False
        self._body: list[bytes] = []
        self._held = 0
        self._target: Target | None = None
        """What that request asks for, where it can be answered without a task."""
        self._taken: tuple[Target, int] | None = None
        """Of the last request that came whole: what it asked for, bytes of its body."""
        self._earlier: list[Cycle | Whole] = []
        """Requests that were not answered yet when the next one came."""
        self._idle_since = 0.0
        self._address = b"", "", b"", b""
        """The last request's: as it came, path, path as it came, query. On one connection it is mostly the same."""
        self._slow: asyncio.TimerHandle | None = None
        self._full: asyncio.TimerHandle | None = None

    # --- the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._slow = self.loop.call_later(self.patience, self._cut_off)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        for timer in (self._slow, self._full):
            if timer is not None:
                timer.cancel()
        self._unset_keepalive_if_required()
        self.connections.discard(self)
        self._let_go()
        for cycle in self._unanswered():
            cycle.lost()
        self.flow.resume_writing()
        self.parser = None  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        head, direct = b"", self.direct
        if direct is not None and not self._arriving and self._is_free():
            head = data[: data.find(_END) + len(_END)]
            known = direct.heads.get(head)
            if known is not None and len(head) + known[1] == len(data):
                self._begin(direct, known[0], data[len(head) :], keep_alive=True)
                if self._slow is not None:
                    self._arrived()
                return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._fresh = False
            self._let_go()
            self.send_400_response("Invalid HTTP request received.")
            return
        except httptools.HttpParserUpgrade:
            pass  # there is nothing else to speak here
        if self._fresh and not self._is_worth_waiting():
            self._hand_over(whole=False)
        # Most requests arrive whole, and for them no timer is made.
        if self._arriving:
            if self._slow is None:
                self._slow = self.loop.call_later(self.patience, self._cut_off)
        elif self._slow is not None:
            self._arrived()
        # What was taken is all that came: by its length, the head ends where the parser says too.
        taken = self._taken
        if taken and direct and 0 < len(head) <= MAX_KEPT_HEAD and len(head) + taken[1] == len(data):
            direct.keep(head, taken)

    def _arrived(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def shutdown(self) -> None:
        """Closes as soon as what has begun is answered: also a request whose body is still waited for."""
        if self._fresh:
            self._keep_alive = False
        else:
            super().shutdown()

    def on_response_complete(self) -> None:
        """Goes on with the next request. While clients are at it no timer is made for each answer: the one there is
        looks again when it runs out."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._wait_for_more(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Closes where nothing has come since the last answer for as long as it may be."""
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if self._arriving or not self.cycle.response_complete:
            self._wait_for_more(self.timeout_keep_alive)
        elif left > 0:
            self._wait_for_more(left)
        else:
            super().timeout_keep_alive_handler()

    def _wait_for_more(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._full = self.loop.call_later(self.patience, self._cut_off)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._full is not None:
            self._full.cancel()
            self._full = None

    # --- the parser

    def on_message_begin(self) -> None:
        self._arriving = True
        self._taken = None
        self._head = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._more_head(len(url))
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._more_head(len(name) + len(value))
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        scope, parser = self.scope, self.parser
        version = parser.get_http_version()
        if self.url != self._address[0]:
            self._address = self.url, *_parts(self.url)
        scope["method"] = parser.get_method().decode("ascii")
        scope["http_version"] = version
        _, scope["path"], scope["raw_path"], scope["query_string"] = self._address
        self._keep_alive = version != "1.0" and parser.should_keep_alive()
        self._target = None if self.direct is None else self.direct.target(self.scope)
        self._fresh = True

    def on_body(self, body: bytes) -> None:
        if self._fresh:
            self._body.append(body)
            return
        cycle = self.cycle
        if cycle.response_complete or isinstance(cycle, Whole):
            return
        cycle.body.append(body)
        cycle.unread += len(body)
        if cycle.unread > MAX_UNREAD:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._arriving = False
        if self._fresh:
            self._hand_over(whole=True)
        elif isinstance(self.cycle, Cycle) and not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def _is_free(self) -> bool:
        """Whether the next request can be answered at once: those before are, and the client has taken the answers."""
        return (self.cycle is None or self.cycle.response_complete) and not self.flow.write_paused

    def _is_worth_waiting(self) -> bool:
        """Whether what is missing of the request is waited for: many clients send the body by itself, and of a longer
        one the first part comes alone. What has come is counted among the bodies that are held."""
        direct, target = self.direct, self._target
        if direct is None or target is None or not target.length <= direct.patient_for or self.expect_100_continue:
            return False
        if len(self._body) > MAX_PIECES or not self._is_free():
            return False
        came = sum(map(len, self._body))
        try:
            direct.app.hold(came - self._held)
        except RequestError:
            return False
        self._held = came
        return True

    def _let_go(self) -> list[bytes]:
        """What has come of a body that was waited for, which is counted no longer."""
        if self._held and self.direct is not None:
            self.direct.app.let_go(self._held)
            self._held = 0
        body, self._body = self._body, []
        return body

    def _hand_over(self, *, whole: bool) -> None:
        """Has the request answered whose head, and of whose body some, has arrived."""
        self._fresh = False
        body = self._let_go()
        if whole and self.direct is not None and self._target is not None and self._is_free():
            content = body[0] if len(body) == 1 else b"".join(body)
            if self._keep_alive:
                self._taken = self._target, len(content)
            self._begin(self.direct, self._target, content, keep_alive=self._keep_alive)
            return
        before, state = self.cycle, self.server_state
        cycle = self.cycle = Cycle(
            self.scope,
            self.transport,
            self.flow,
            self.logger,
            self.access_logger,
            False,
            state.default_headers,
            asyncio.Event(),
            self.expect_100_continue,
            self._keep_alive,
            self.on_response_complete,
        )
        cycle.body = body
        cycle.unread = sum(map(len, body))
        cycle.more_body = not whole
        if body or whole:
            cycle.message_event.set()
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))
            self._earlier = [*(each for each in self._earlier if not each.response_complete), before]

    def _begin(self, direct: Direct, target: Target, body: bytes, *, keep_alive: bool) -> None:
        cycle = self.cycle = Whole(self, keep_alive)
        direct.begin(target, body, cycle.answer)

    def send_400_response(self, msg: str) -> None:
        """As the protocol has errors, not as plain text; what came whole before it is answered first, and alone."""
        unanswered = self._unanswered()
        if unanswered and not unanswered[0].more_body:
            unanswered[0].keep_alive = False
            self.pipeline.clear()
            self._arriving = False
            return
        for cycle in unanswered:
            cycle.lost()
        body = encode({"error": msg})
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[400] + head + body)
        self.transport.close()

    def _unanswered(self) -> list[Cycle | Whole]:
        return [each for each in (*self._earlier, self.cycle) if each is not None and not each.response_complete]

    def _more_head(self, size: int) -> None:
        self._head += size
        if self._head > MAX_HEAD:
            raise ValueError  # the parser gives up on the request, and it is answered with 400

    def _cut_off(self) -> None:
        self.transport.abort()


def _parts(url: bytes) -> tuple[str, bytes, bytes]:
    """Path, path as it came, and query of a request's address."""
    found = httptools.parse_url(url)
    path = found.path.decode("ascii")
    return unquote(path) if "%" in path else path, found.path, found.query or b""
