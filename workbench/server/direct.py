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
from workbench.server.batcher import Batcher, Outcome, Request
from workbench.server.errors import FAULT, RequestError
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
    """What connections hand whole requests to."""

    def __init__(self, app: App) -> None:
        """Answer inferences of ``app``."""
        self.app = app
        self.observer = app.observer
        self.inferences: dict[Answer, Inference] = {}
        """Those that are not answered yet, by what is to get the response. So a connection finds its own without
        holding it, for it holds the connection: bodies are to be freed with their answer, not by a collection."""
        self.idle: Callable[[], None] = lambda: None
        """Called when all are."""
        self.heads: dict[bytes, Target] = {}
        """Heads of requests that came before, and what they ask for."""

    def is_patient_for(self, target: Target) -> bool:
        """Whether the body of such a request is waited for: not where it is refused anyway, and not where requests are
        observed, for then they begin with their head."""
        app = self.app
        if self.observer is not None or not target.length <= min(PATIENT_FOR, app.max_body):
            return False
        try:
            if app.keys is not None:
                app.keys.check(target.authorization)
            app.repository.served(target.name)
        except RequestError:
            return False
        return True

    def cut_off(self) -> None:
        """Has nobody wait for those that are not answered yet; they are observed as clients that went away."""
        for inference in [*self.inferences.values()]:
            inference.cut_off()

    def give_up(self, answer: Answer) -> None:
        """Nobody waits for what ``answer`` was to get: what has not begun to be computed is not computed."""
        inference = self.inferences.get(answer)
        if inference is not None:
            inference.give_up()

    def keep(self, head: bytes, target: Target) -> None:
        """Keeps what is known of a head, to know it again. Where clients send another one each time, as with the
        trace they are in, that is of no use, and costs next to nothing."""
        if self.app.keys is not None:
            try:
                self.app.keys.check(target.authorization)
            except RequestError:
                return
        if len(self.heads) >= MAX_HEADS:
            self.heads.clear()
        self.heads[head] = target

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

    def begin(self, target: Target, body: bytes | memoryview, answer: Answer) -> None:
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

    __slots__ = ("_answer", "_asked", "_batcher", "_direct", "_request", "_size", "exchange")

    _asked: Asked
    _batcher: Batcher

    def __init__(self, direct: Direct, answer: Answer) -> None:
        self._direct = direct
        self._answer = answer
        self._size = 0
        self._request: Request | None = None
        self.exchange: Exchange | None = None

    def begin(self, target: Target, body: bytes | memoryview) -> None:
        """Has it computed."""
        app = self._direct.app
        self._direct.inferences[self._answer] = self
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
            self._request = app.submit(self._batcher, self._asked, served, self.computed)
        except RequestError as error:
            self._end(refusal(error))
        except Exception:
            self._fail()

    def computed(self, outcome: Outcome) -> None:
        """Answers with what became of it."""
        if isinstance(outcome, RequestError):
            self._end(refusal(outcome))
            return
        try:
            found = response(self._batcher, self._asked, outcome)
        except Exception:
            self._fail()
        else:
            self._end(found)

    def give_up(self) -> None:
        """Has it not computed where that has not begun."""
        direct = self._direct
        if self._request is not None:
            self._request.give_up()
        direct.app.let_go(self._size)
        self.cut_off()
        if not direct.inferences:
            direct.idle()

    def cut_off(self) -> None:
        """Nobody waits for it any more."""
        self._direct.inferences.pop(self._answer, None)
        if self.exchange is not None and self._direct.observer is not None:
            self._direct.observer.close(self.exchange)

    def _fail(self) -> None:
        """Answers where nobody foresaw what happened."""
        logging.getLogger(__name__).exception("an inference could not be answered")
        self._end(refusal(RequestError(500, FAULT)))

    def _end(self, found: Response) -> None:
        direct, exchange = self._direct, self.exchange
        if direct.inferences.pop(self._answer, None) is None:
            return
        direct.app.let_go(self._size)
        if exchange is not None and direct.observer is not None:
            found.headers = (*found.headers, (TRACE_HEADER, exchange.traceparent))
            exchange.status, exchange.sent = found.status, len(found.body)
            direct.observer.close(exchange)
        self._answer(found)
        if not direct.inferences:
            direct.idle()
