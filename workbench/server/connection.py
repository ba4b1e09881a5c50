"""One HTTP/1.1 connection, on the parser llhttp (httptools), with bounds on how long a client may take and how much it
may send before a body.

A request is a task that runs the ASGI application, with shorter ways, for of a small inference HTTP is the larger part:
an inference that arrives whole is handed over without a task (workbench.server.direct), a head that arrived before,
byte for byte, is not parsed again, for clients mostly send the same one over and over, the tensors after it stay where
they were read to (workbench.server.landing), and answers go out in one piece.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httptools

from workbench.server.cycle import Cycle, Whole, error_answer, whole_answer
from workbench.server.errors import RequestError
from workbench.server.landing import WORTH_WHILE, Landing

if TYPE_CHECKING:
    from workbench.server.app import Headers, Scope
    from workbench.server.clients import Clients
    from workbench.server.direct import Direct, Target

MAX_HEAD = 64 << 10
"""Most bytes of a request's address and headers."""

MAX_UNREAD = 256 << 10
"""Bytes of a body that may wait to be read before the client is held up; one read brings hardly more, but where there
is a landing that is larger."""

MAX_PIECES = 32
"""Of a body that is waited for and whose head is new: one in more of them is read by its task, piece by piece."""

MAX_KEPT_HEAD = 2 << 10
"""Bytes of a head that is kept to know it again."""

_END = b"\r\n\r\n"


class Connection(asyncio.BufferedProtocol):
    """The server's end of a connection."""

    transport: asyncio.Transport

    def __init__(self, clients: Clients) -> None:
        """One of ``clients``."""
        self._clients = clients
        self.direct = clients.direct
        """Answers what comes whole."""
        self._loop = asyncio.get_running_loop()
        self._parser = self._new_parser()
        self._latest: Cycle | Whole | None = None
        """The request that came last."""
        self._earlier: deque[Cycle | Whole] = deque()
        """Requests that were not answered yet when the next one came."""
        self._next: deque[Cycle] = deque()
        """Those of them that nobody has begun to answer."""

        self._arriving = False
        """Whether a request has begun to arrive and is not whole."""
        self._head_size = 0
        self._url = b""
        self._headers: Headers = []
        self._scope: Scope = {}
        self._waits = False
        """Whether the client waits to be told to send the body."""
        self._offered = False
        """Whether the client offers to speak another protocol, see :meth:`_without_offer`."""
        self._fresh = False
        """Whether a head has arrived whose request nobody has been handed yet."""
        self._keep_alive = False
        self._landing: Landing | None = None
        """A request whose head is known, and which is expected or on its way."""
        self._secure = False
        self._body: list[bytes] = []
        """What has come of a body that is waited for."""
        self._held = 0
        """Bytes of it that are counted among those the server holds."""
        self._target: Target | None = None
        """What that request asks for, where it can be answered without a task."""
        self._taken: Target | None = None
        """What the last request asked for that came whole, and after which more may."""
        self._address = b"", "", b""
        """The last request's: as it came, path, query. On one connection it is mostly the same."""

        self._idle_since = 0.0
        self._idle: asyncio.TimerHandle | None = None
        self._slow: asyncio.TimerHandle | None = None
        self._full: asyncio.TimerHandle | None = None
        self._closing: asyncio.TimerHandle | None = None
        self._reading = True
        self._writable: asyncio.Event | None = None
        """Where the client does not take answers: set when it does again."""

    # --- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._secure = transport.get_extra_info("sslcontext") is not None
        self._slow = self._loop.call_later(self._clients.patience, self._cut_off)
        self._clients.made(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        for timer in (self._idle, self._slow, self._full, self._closing):
            if timer is not None:
                timer.cancel()
        self._let_go()
        for cycle in self._unanswered():
            cycle.lost()
        self.resume_writing()
        # They hold this connection.
        self._parser = self._latest = None
        self._earlier.clear()
        self._next.clear()
        self._clients.lost(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Where what comes next is read to."""
        landing = self._landing
        return self._clients.buffer if landing is None else landing.room()

    def buffer_updated(self, nbytes: int) -> None:
        """So much has come there."""
        landing = self._landing
        if landing is None:
            self._received(bytes(self._clients.buffer[:nbytes]))
            return
        begun = landing.came > 0
        landing.came += nbytes
        if begun or landing.has_head():
            self._land(landing)
        else:
            self._landing = None
            self._received(landing.content())

    def _received(self, data: bytes) -> None:
        """Takes what has come where no request is on its way to a place of its own."""
        head, direct = b"", self.direct
        if direct is not None and not self._arriving and self._is_free():
            head = data[: data.find(_END) + len(_END)]
            known = direct.heads.get(head)
            if known is not None:
                if len(data) - len(head) == known.length:
                    self._begin_known(direct, known, data[len(head) :], head)
                    return
                if len(data) - len(head) < known.length and direct.is_patient_for(known):
                    self._landing = Landing(head, known)
                    self._landing.take(data)
                    self._land(self._landing)
                    return
        self._parse(head, data)

    def _land(self, landing: Landing) -> None:
        """Takes more of a request whose head is known: the parser sees neither."""
        direct, target, missing = self.direct, landing.target, landing.size - landing.came
        assert direct is not None
        if not missing and self._is_free():
            self._let_go()
            self._begin_known(direct, target, landing.body(), landing.head)
        elif missing > 0 and self._is_worth_waiting(target, landing.came):
            self._wait_for_more()
        else:
            self._take_off(landing)

    def _take_off(self, landing: Landing) -> None:
        """Leaves such a request to the parser."""
        self._landing = None
        self._let_go()
        self._parse(landing.head, landing.content())

    def _begin_known(self, direct: Direct, target: Target, body: bytes | memoryview, head: bytes) -> None:
        # The next one is mostly like it. Over TLS a place would be made for it, and not counted, as soon as the
        # first bytes of a record come.
        expected = target.length >= WORTH_WHILE and not self._secure
        self._landing = Landing(head, target) if expected else None
        self._begin(direct, target, body, keep_alive=True)
        self._arrived()

    def _parse(self, head: bytes, data: bytes) -> None:
        """Has the parser read ``data``, which may begin with the head of a request: if so, with ``head``."""
        while True:
            try:
                target = self._fed(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                if self._scope["method"] == "CONNECT":
                    self._refuse("CONNECT is not spoken here.")
                    return
                head, data = b"", self._without_offer() + data[upgrade.args[0] :]
            except httptools.HttpParserError:
                self._fresh = False
                self._let_go()
                self._refuse("Invalid HTTP request received.")
                return
        came = 0.0 if target is None else target.length
        if self._fresh:
            begun = sum(map(len, self._body))
            if self._target is not None and not self._waits and self._is_worth_waiting(self._target, begun):
                target, came = self._target if self._keep_alive else None, begun
            else:
                self._hand_over(whole=False)
        # Most requests arrive whole, and for them no timer is made.
        if self._arriving and self._reading:
            self._wait_for_more()
        # The body of that request, or what has come of it, is all there is: by its length, the head ends where the
        # parser says too. And it begins with that request: what came before one is not part of it.
        if (
            target is not None
            and self.direct is not None
            and len(head) + came == len(data)
            and head[:5] == b"POST "
            and len(head) <= MAX_KEPT_HEAD
        ):
            self.direct.keep(head, target)

    def shutdown(self) -> None:
        """Closes as soon as what has begun is answered: also a request whose body is still waited for."""
        if self._landing is not None and self._landing.came:
            self._take_off(self._landing)
        if self._fresh:
            self._keep_alive = False
        elif self._latest is None or self._latest.answered:
            self.close()
        else:
            self._latest.keep_alive = False

    def close(self) -> None:
        """Closes when the client has taken what it is answered, for which it may take as long as for a request."""
        if self._closing is None:
            self._closing = self._loop.call_later(self._clients.patience, self._cut_off)
        self.transport.close()

    def on_answered(self) -> None:
        """Goes on with the next request. While clients are at it no timer is made for each answer: the one there is
        looks again when it runs out."""
        self._clients.answered += 1
        if self.transport.is_closing():
            return
        if self._next:
            self._clients.run(self._next.popleft())
            return
        self.resume_reading()
        self._idle_since = self._loop.time()
        if self._idle is None:
            self._idle = self._loop.call_later(self._clients.keep_alive, self._look_whether_idle)

    def resume_reading(self) -> None:
        """Has the client go on sending."""
        if not self._reading:
            self._reading = True
            self.transport.resume_reading()
            if self._arriving:
                self._wait_for_more()

    async def writable(self) -> None:
        """Returns when the client takes answers, or is gone."""
        while self._writable is not None:
            await self._writable.wait()

    def pause_writing(self) -> None:
        self._writable = asyncio.Event()
        self._full = self._loop.call_later(self._clients.patience, self._cut_off)

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
            self._writable = None
        if self._full is not None:
            self._full.cancel()
            self._full = None

    def _fed(self, data: bytes) -> Target | None:
        """Has the parser read what came; what the last request asked for that it made whole."""
        self._taken = None
        self._parser.feed_data(data)
        return self._taken

    def _without_offer(self) -> bytes:
        """The head of the request that has come, without its offer to speak something else, for a new parser.

        The parser takes what follows such a head for that other protocol, where the offer is accepted. Here it never
        is, and what follows is the request's body, as clients that offer HTTP/2 send it.
        """
        lines = [f"{self._scope['method']} ".encode() + self._url + f" HTTP/{self._scope['http_version']}".encode()]
        closes = any(name == b"connection" and b"close" in value.lower() for name, value in self._scope["headers"])
        left_out = (b"connection", b"upgrade", b"http2-settings")
        lines += [b"%b: %b" % (name, value) for name, value in self._scope["headers"] if name not in left_out]
        lines += [b"connection: close"] if closes else []
        self._parser = self._new_parser()
        self._arriving = self._offered = False
        return b"\r\n".join(lines) + _END

    def _new_parser(self) -> Any:
        parser = httptools.HttpRequestParser(self)
        # What follows a request after which the client wants to close is ignored: it is no reason not to answer.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self.transport.pause_reading()
            self._arrived()  # it is not the client who takes long

    def _wait_for_more(self) -> None:
        if self._slow is None:
            self._slow = self._loop.call_later(self._clients.patience, self._cut_off)

    def _arrived(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _look_whether_idle(self) -> None:
        """Closes where nothing has come since the last answer for as long as it may be."""
        keep_alive = self._clients.keep_alive
        left = self._idle_since + keep_alive - self._loop.time()
        arriving = self._arriving or (self._landing is not None and self._landing.came > 0)
        busy = arriving or (self._latest is not None and not self._latest.answered)
        if not busy and left <= 0:
            self.close()
        else:
            self._idle = self._loop.call_later(keep_alive if busy else left, self._look_whether_idle)

    def _cut_off(self) -> None:
        self.transport.abort()

    # --- the parser

    def on_message_begin(self) -> None:
        self._arriving = True
        self._head_size = 0
        self._url = b""
        self._headers = []
        self._waits = False

    def on_url(self, url: bytes) -> None:
        self._more_head(len(url))
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._more_head(len(name) + len(value))
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._waits = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        version = parser.get_http_version()
        if self._url != self._address[0]:
            self._address = self._url, *_parts(self._url)
        _, path, query = self._address
        self._scope = {
            "type": "http",
            "http_version": version,
            "method": parser.get_method().decode("ascii"),
            "path": path,
            "query_string": query,
            "headers": self._headers,
        }
        self._headers = []  # what is still to come follows the body, and is no header
        self._offered = parser.should_upgrade()
        if self._offered:
            return
        self._keep_alive = version != "1.0" and parser.should_keep_alive()
        self._target = None if self.direct is None else self.direct.target(self._scope)
        self._fresh = True

    def on_body(self, body: bytes) -> None:
        if self._fresh:
            self._body.append(body)
            return
        cycle = self._latest
        if isinstance(cycle, Cycle) and not cycle.answered:
            cycle.add(body)
            if cycle.unread > MAX_UNREAD:
                self._pause_reading()

    def on_message_complete(self) -> None:
        if self._offered:
            return
        self._arriving = False
        self._arrived()
        if self._fresh:
            self._hand_over(whole=True)
        elif isinstance(self._latest, Cycle) and not self._latest.answered:
            self._latest.complete()

    def _more_head(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEAD:
            raise ValueError  # the parser gives up on the request, and it is answered with 400

    # --- requests

    def _is_free(self) -> bool:
        """Whether the next request can be answered at once: those before are, and the client has taken the answers."""
        answered = self._latest is None or self._latest.answered
        return answered and self._writable is None and not self.transport.is_closing()

    def _is_worth_waiting(self, target: Target, came: int) -> bool:
        """Whether what is missing of the request is waited for: many clients send the body by itself, and of a longer
        one the first part comes alone. The bytes that ``came`` are counted among those of bodies that are held, and not
        those that are announced: nobody is to take others' room by that."""
        direct = self.direct
        if direct is None or len(self._body) > MAX_PIECES or not self._is_free():
            return False
        if not direct.is_patient_for(target):
            return False
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
        if self.transport.is_closing():
            return
        if whole and self.direct is not None and self._target is not None and self._is_free():
            content = body[0] if len(body) == 1 else b"".join(body)
            if self._keep_alive and not self._waits:
                self._taken = self._target
            self._begin(self.direct, self._target, content, keep_alive=self._keep_alive)
            return
        before = self._latest
        cycle = self._latest = Cycle(
            self, self._scope, body, whole=whole, keep_alive=self._keep_alive, waits=self._waits
        )
        if before is None or before.answered:
            self._clients.run(cycle)
        else:
            self._pause_reading()
            self._next.append(cycle)
            while self._earlier and self._earlier[0].answered:
                self._earlier.popleft()
            self._earlier.append(before)

    def _begin(self, direct: Direct, target: Target, body: bytes | memoryview, *, keep_alive: bool) -> None:
        cycle = self._latest = Whole(self, keep_alive)
        direct.begin(target, body, cycle.answer)

    def _refuse(self, why: str) -> None:
        """Answers with 400, as the protocol has errors; what came whole before it is answered first, and alone."""
        unanswered = self._unanswered()
        if unanswered and not unanswered[0].more_body:
            unanswered[0].keep_alive = False
            self._next.clear()
            self._arriving = False
            return
        for cycle in unanswered:
            cycle.lost()
        self.transport.write(whole_answer(400, *error_answer(why), close=True))
        self.close()

    def _unanswered(self) -> list[Cycle | Whole]:
        return [each for each in (*self._earlier, self._latest) if each is not None and not each.answered]


def _parts(url: bytes) -> tuple[str, bytes]:
    """Path and query of a request's address."""
    found = httptools.parse_url(url)
    path = found.path.decode("ascii")
    return unquote(path) if "%" in path else path, found.query or b""
