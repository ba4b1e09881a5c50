"""Watching requests from outside the application: an ASGI layer that is there only where somebody wants to know.

It notes what a request was and what became of it, tells the client the trace it is in, and hands that over to the
access log and to the tracer.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workbench.server.access_log import AccessLog
from workbench.server.app import App, Receive, Scope, Send
from workbench.server.background import Background
from workbench.server.exchange import SAMPLED, TRACE_HEADER, Exchange, current, traceparent_of
from workbench.server.settings import ENDPOINTS


class Observer:
    """Opens and closes exchanges, for HTTP and other transports alike."""

    def __init__(self, log: AccessLog | None, tracer: Tracer | None) -> None:
        """Hand finished exchanges to those of ``log`` and ``tracer`` that are there."""
        self.log = log
        self.tracer = tracer

    def observed(self, app: App) -> Observed:
        """``app``, observed."""
        return Observed(app, self)

    def open(self, method: str, path: str, traceparent: bytes | None) -> Exchange:
        """The exchange of a request that arrives now, as that of the running task."""
        exchange = Exchange(method, path, traceparent)
        if self.tracer is not None and not exchange.parent_id:
            exchange.flags |= SAMPLED
        current.set(exchange)
        return exchange

    def close(self, exchange: Exchange) -> None:
        """Hands over an exchange that is finished now."""
        exchange.seconds = time.perf_counter() - exchange.begun
        if self.log is not None:
            self.log.add(exchange)
        if self.tracer is not None and exchange.inference:
            self.tracer.add(exchange)


class Observed:
    """The ASGI application ``app``, observed."""

    def __init__(self, app: App, observer: Observer) -> None:
        self._app = app
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and note it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        exchange = self._observer.open(scope["method"], scope["path"], traceparent_of(scope["headers"]))

        async def receive_noted() -> MutableMapping[str, Any]:
            message = await receive()
            exchange.received += len(message.get("body", b""))
            return message

        async def send_noted(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [*message["headers"], (TRACE_HEADER, exchange.traceparent)]
            else:
                exchange.sent += len(message.get("body", b""))
            await send(message)

        try:
            return await self._app(scope, receive_noted, send_noted)
        except Exception:
            exchange.status = exchange.status or 500  # the connection answers with it
            raise
        finally:
            self._observer.close(exchange)


class Tracer:
    """Makes a span of each inference. What that takes is loaded when there is the first."""

    def __init__(self) -> None:
        self._spans: Any = None
        self._background: Background[Exchange] = Background("spans", self._record, self._end, pause=0.1)

    @property
    def lost(self) -> int:
        """Inferences that no span was made of."""
        return self._background.lost

    def add(self, exchange: Exchange) -> None:
        """Has the span of a finished exchange made."""
        self._background.put(exchange)

    def close(self) -> None:
        """Sends what is left."""
        self._background.close()

    def _record(self, exchanges: list[Exchange]) -> None:
        if self._spans is None:
            from workbench.server.spans import Spans

            self._spans = Spans()
        self._spans.record(exchanges)

    def _end(self) -> None:
        if self._spans is not None:
            self._spans.close()


@contextlib.contextmanager
def observing(
    access_log: bool, path: Path | None, environment: Mapping[str, str], log: Callable[[str], None]
) -> Iterator[Observer | None]:
    """What observes while the server runs: the access log where ``access_log`` says so (to ``path`` or stderr), and
    spans where OTEL_EXPORTER_OTLP_ENDPOINT is set in ``environment``; None where there is neither."""
    lines = AccessLog(path) if access_log else None
    tracer = Tracer() if _traced(environment, log) else None
    try:
        yield Observer(lines, tracer) if lines or tracer else None
    finally:
        for each in (lines, tracer):
            if each is not None:
                each.close()


def _traced(environment: Mapping[str, str], log: Callable[[str], None]) -> bool:
    name = next((name for name in ENDPOINTS if environment.get(name)), None)
    if name is None or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    try:
        missing = not (find_spec("opentelemetry.sdk.trace") and find_spec("opentelemetry.exporter.otlp.proto.http"))
    except ModuleNotFoundError:
        missing = True
    if missing:
        log(
            f"{name} is set, and no spans are sent: opentelemetry-sdk and -exporter-otlp-proto-http are not installed "
            "(in an image: tracing: true in the recipe's image:)"
        )
    return not missing
