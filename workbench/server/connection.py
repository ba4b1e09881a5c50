"""One HTTP connection: uvicorn's, with bounds on how long a client may take and how much it may send before a body."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from workbench.server.protocol import encode

MAX_HEAD = 64 << 10
"""Most bytes of a request's address and headers."""


class Connection(HttpToolsProtocol):
    """Closes on a client that takes longer than :attr:`patience` to send a request or to take an answer."""

    patience: float = 30.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._arriving = False
        self._head = 0
        self._earlier: list[RequestResponseCycle] = []
        """Requests that were not answered yet when the next one came."""
        self._slow: asyncio.TimerHandle | None = None
        self._full: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._slow = self.loop.call_later(self.patience, self._cut_off)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._slow, self._full):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        for cycle in self._unanswered():  # uvicorn tells the newest one only
            cycle.disconnected = True
            cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Most requests arrive whole, and for them no timer is made.
        if self._arriving:
            if self._slow is None:
                self._slow = self.loop.call_later(self.patience, self._cut_off)
        elif self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def on_message_begin(self) -> None:
        self._arriving = True
        self._head = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._more_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._more_head(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        before = self.cycle
        super().on_headers_complete()
        if before is not None and not before.response_complete:
            self._earlier = [*(each for each in self._earlier if not each.response_complete), before]

    def on_message_complete(self) -> None:
        self._arriving = False
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._full = self.loop.call_later(self.patience, self._cut_off)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._full is not None:
            self._full.cancel()
            self._full = None

    def send_400_response(self, msg: str) -> None:
        """As the protocol has errors, not as plain text; what came whole before it is answered first, and alone."""
        unanswered = self._unanswered()
        if unanswered and not unanswered[0].more_body:
            unanswered[0].keep_alive = False
            self.pipeline.clear()
            self._arriving = False
            return
        for cycle in unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        body = encode({"error": msg})
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[400] + head + body)
        self.transport.close()

    def _unanswered(self) -> list[RequestResponseCycle]:
        return [each for each in (*self._earlier, self.cycle) if each is not None and not each.response_complete]

    def _more_head(self, size: int) -> None:
        self._head += size
        if self._head > MAX_HEAD:
            raise ValueError  # the parser gives up on the request, and it is answered with 400

    def _cut_off(self) -> None:
        self.transport.abort()
