"""Inferences whose requests arrive whole, answered without a task.

Of a small inference, a task with the messages of ASGI and what goes with them takes as long as all the rest. So the
connection hands such a request over here as soon as it is there, and gets the response when it is computed. All others,
and all other addresses, go the way of ASGI (workbench.server.app).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from workbench.server.app import App, Response, header_length, refusal, response, understood
from workbench.server.batcher import Batcher, Outcome
from workbench.server.errors import RequestError
from workbench.server.exchange import TRACE_HEADER, Exchange, current, traceparent_of
from workbench.server.protocol import Asked

PATIENT_FOR = 512 << 10
"""Bytes. Of a longer body it is worth while to refuse it early."""

MAX_HEADS = 256
Answer = Callable[[Response], None]


@dataclass(frozen=True, slots=True)
class Target:
    """What the head of a request says: which model is asked (``version``: None for any), and how.

    ``length``: bytes of the body, infinite where it does not say.
    """

    path: str
    name: str
    version: str | None
    length: float
    header_length: int | None
    authorization: bytes | None
    traceparent: bytes | None


class Direct:
    """What connections hand whole requests to. ``waiting``: how many are not answered yet."""

    def __init__(self, app: App) -> None:
        """Answer inferences of ``app``."""
        self.app = app
        self.observer = app.observer
        self.patient_for = PATIENT_FOR if app.observer is None else -1
        """Bytes of a body that is waited for. None where requests are observed: then they begin with their head."""
        self.waiting = 0
        self.heads: dict[bytes, tuple[Target, int]] = {}
        """Heads of requests that came before: what they ask for, and how many bytes of body follow."""

    def keep(self, head: bytes, found: tuple[Target, int]) -> None:
        """Keeps what is known of a head, to know it again. Where clients send another one each time, as with the
        trace they are in, that is of no use, and costs next to nothing."""
        if len(self.heads) >= MAX_HEADS:
            self.heads.clear()
        self.heads[head] = found

    def target(self, scope: Mapping[str, Any]) -> Target | None:
        """What a request asks for, given its head; None where it has to go the other way."""
        path = scope["path"]
        match path.split("/"):
            case ["", "v2", "models", name, "infer"]:
                version = None
            case ["", "v2", "models", name, "versions", version, "infer"]:
                pass
            case _:
                return None
        headers = dict(reversed(scope["headers"]))  # of two the first one counts, as everywhere in the application
        if scope["method"] != "POST" or b"content-encoding" in headers or path in self.app.routes:
            return None
        try:
            header = header_length(scope)
        except RequestError:
            return None
        length = math.inf if b"transfer-encoding" in headers else int(headers.get(b"content-length", 0))
        trace = None if self.observer is None else traceparent_of(scope["headers"])
        return Target(path, name, version, length, header, headers.get(b"authorization"), trace)

    def begin(self, target: Target, body: bytes, answer: Answer) -> None:
        """Answers a request: ``answer`` gets the response, once, now or later."""
        inference = Inference(self, answer)
        if self.observer is None:
            inference.begin(target, body)
            return
        inference.exchange = self.observer.open("POST", target.path, target.traceparent)
        inference.exchange.received = len(body)
        try:
            inference.begin(target, body)
        finally:
            current.set(None)


class Inference:
    """One request on its way."""

    __slots__ = ("_answer", "_asked", "_batcher", "_direct", "_size", "exchange")

    _asked: Asked
    _batcher: Batcher

    def __init__(self, direct: Direct, answer: Answer) -> None:
        self._direct = direct
        self._answer = answer
        self._size = 0
        self.exchange: Exchange | None = None

    def begin(self, target: Target, body: bytes) -> None:
        """Has it computed."""
        app = self._direct.app
        self._direct.waiting += 1
        try:
            if app.keys is not None:
                app.keys.check(target.authorization)
            if len(body) > app.max_body:
                raise app.too_long()
            app.hold(len(body))
            self._size = len(body)
            self._batcher, served = app.batcher_of(target.name, target.version)
            self._batcher.check_room()
            self._asked = understood(self._batcher, body, target.header_length)
            app.submit(self._batcher, self._asked, served, self.computed)
        except RequestError as error:
            self._end(refusal(error))

    def computed(self, outcome: Outcome) -> None:
        """Answers with what became of it."""
        if isinstance(outcome, RequestError):
            self._end(refusal(outcome))
            return
        try:
            found = response(self._batcher, self._asked, outcome)
        except Exception:  # whatever it is, those who were computed together are to have their answers
            logging.getLogger(__name__).exception("an answer could not be written")
            found = refusal(RequestError(500, "the answer could not be written; the log says why"))
        self._end(found)

    def _end(self, found: Response) -> None:
        direct, exchange = self._direct, self.exchange
        direct.waiting -= 1
        direct.app.let_go(self._size)
        if exchange is not None and direct.observer is not None:
            found.headers = (*found.headers, (TRACE_HEADER, exchange.traceparent))
            exchange.status, exchange.sent = found.status, len(found.body)
            direct.observer.close(exchange)
        self._answer(found)
