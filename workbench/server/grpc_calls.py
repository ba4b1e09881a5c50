"""Calls of gRPC: bytes read within limits, a method asked for the answer, and what goes wrong told in gRPC's codes.

Messages are read here and not by grpcio, for what it cannot read it answers with INTERNAL, what never comes it waits
for without end, and what it has read is counted nowhere. So to grpcio every method takes a stream of bytes, of which
the first message is the request; on the wire that is the same.

Where somebody observes, each call is an exchange as a request over HTTP is one, with the method's name as its path.
The client finds its trace in the initial metadata; of a call that is refused in the trailing, for who has got initial
metadata does not try again (https://github.com/grpc/proposal, A6).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc.aio import ServicerContext as Context

from workbench.server.app import App
from workbench.server.errors import FAULT, RequestError
from workbench.server.exchange import Exchange

CODES = {
    0: grpc.StatusCode.CANCELLED,
    200: grpc.StatusCode.OK,
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""What a status of HTTP is in gRPC; 0 is none, for the client went away before."""

MAX_READS = 8
"""Most messages that arrive at once, each of as many bytes as a body may have; others wait in the network."""

HURRY = 2.0
"""Seconds that a message may take to arrive while others wait for it."""

MAX_DETAILS = 2000
"""Most bytes of an error's message. It travels percent-encoded, and clients refuse headers of more than 8 KiB or so."""

MAX_FIELDS = 4096
"""Most tensors, contents and parameters of a request: two bytes of a message are an empty one, a hundred in memory."""

_log = logging.getLogger(__name__)
_LITTLE = 64 << 10
_TENSORS = (5 << 3 | 2, 6 << 3 | 2)
"""Tags of an inference's inputs and outputs, which have parameters of their own."""
_TRACE = "traceparent"

Method = Callable[[Any, Context], Awaitable[Any]]
"""What gives the response to a request."""
Stream = Callable[[Any], AsyncIterator[Any]]
"""What gives responses to a request as they come up."""
_Inner = Callable[[Context, Exchange | None], Awaitable[bytes | None]]


class Calls:
    """Makes methods into what answers calls, for clients of ``app``."""

    def __init__(self, app: App, patience: float) -> None:
        """Clients that take longer than ``patience`` seconds to send a message are refused, and those without one of
        the app's API keys, where it has some."""
        self._app = app
        self._patience = patience
        self._reads = asyncio.Semaphore(MAX_READS)
        self._reading: dict[asyncio.Timeout, float] = {}
        """When each message that arrives now was asked for."""
        self._waiting = 0

    def service(
        self, name: str, unary: dict[str, tuple[Any, Method]], streams: dict[str, tuple[Any, Stream]], open_: set[str]
    ) -> grpc.GenericRpcHandler:
        """A service of methods, each with the message that it takes; those of ``open_`` need no API key."""
        handlers = {}
        for method, (kind, of) in unary.items():
            inner: _Inner = partial(self._answered, kind, of)
            handle = self._handler(f"/{name}/{method}", inner, open_=method in open_)
            handlers[method] = grpc.stream_unary_rpc_method_handler(handle)
        for method, (kind, stream) in streams.items():
            inner = partial(self._streamed, kind, stream)
            handle = self._handler(f"/{name}/{method}", inner, open_=method in open_)
            handlers[method] = grpc.stream_stream_rpc_method_handler(handle)
        return grpc.method_handlers_generic_handler(name, handlers)

    def unknown(self) -> grpc.GenericRpcHandler:
        """What answers calls of methods that there are not."""
        return _Unknown(self)

    def refusing(self, path: str) -> grpc.RpcMethodHandler:
        """What answers calls of ``path``, which is no method."""

        async def refuse(_context: Context, _exchange: Exchange | None) -> bytes:
            raise RequestError(501, f"there is no method {path!r} here")

        return grpc.stream_unary_rpc_method_handler(self._handler(path, refuse, open_=False))

    def _handler(self, path: str, inner: _Inner, *, open_: bool) -> Callable[[object, Context], Awaitable[Any]]:
        observer = self._app.observer

        async def handle(_: object, context: Context, exchange: Exchange | None = None) -> Any:
            try:
                if self._app.keys is not None and not open_:
                    self._app.keys.check(_metadatum(context, "authorization"))
                return await _guarded(inner(context, exchange))
            except RequestError as error:
                status, (code, message, later) = error.status, _refusal(error)
                if exchange is not None:
                    later = (*later, (_TRACE, exchange.traceparent.decode()))
            # Outside of the block: what abort raises is part of a cycle, and would keep the error's frames and with
            # them the message until that is collected.
            try:
                return await context.abort(code, message, later)
            except grpc.aio.AbortError:
                if exchange is not None:
                    exchange.status = status
                raise

        if observer is None:
            return handle

        async def observed(_: object, context: Context) -> Any:
            exchange = observer.open("POST", path, _metadatum(context, _TRACE))
            try:
                return await handle(_, context, exchange)
            finally:
                if not exchange.status and context.time_remaining() == 0:
                    exchange.status = 504
                exchange.code = CODES.get(exchange.status, grpc.StatusCode.UNKNOWN).name
                observer.close(exchange)

        return observed

    async def _answered(self, kind: Any, method: Method, context: Context, exchange: Exchange | None) -> bytes:
        message = await self._read(context)
        if exchange is not None:
            exchange.received = len(message)
        self._app.hold(len(message))
        try:
            response: bytes = (await method(_parsed(message, kind), context)).SerializeToString()
            if exchange is not None:
                await _tell(exchange, context, response)
            return response
        finally:
            self._app.let_go(len(message))

    async def _streamed(self, kind: Any, stream: Stream, context: Context, exchange: Exchange | None) -> None:
        message = await self._read(context)
        if exchange is not None:
            exchange.received = len(message)
        async for each in stream(_parsed(message, kind)):
            response = each.SerializeToString()
            if exchange is not None:
                await _tell(exchange, context, response)
            await context.write(response)

    async def _read(self, context: Context) -> bytes:
        """The request's message, which must not take too long, and less so while others wait for their turn."""
        self._waiting += 1
        if self._reads.locked():
            for limit, begun in self._reading.items():
                if not limit.expired():
                    limit.reschedule(min(limit.when() or begun, begun + HURRY))
        try:
            await self._reads.acquire()
        finally:
            self._waiting -= 1
        begun = asyncio.get_running_loop().time()
        seconds = min(HURRY, self._patience) if self._waiting else self._patience
        try:
            async with asyncio.timeout(seconds) as limit:
                self._reading[limit] = begun
                message = await context.read()
        except TimeoutError:
            seconds = (limit.when() or begun) - begun
            raise RequestError(504, f"the message was not there after {seconds:g} s") from None
        finally:
            del self._reading[limit]
            self._reads.release()
        if not isinstance(message, bytes):
            # Where the client is gone or the message is too long, the call is cancelled in the next turn of the loop.
            await asyncio.sleep(0)
            raise RequestError(400, "the request has no message")
        return message


class _Unknown(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers what no service before it answers."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """What answers a call."""
        return self._calls.refusing(details.method)


async def _guarded(answer: Awaitable[bytes | None]) -> bytes | None:
    """The answer; RequestError 500 for what nobody foresaw. grpcio would tell the client what that was."""
    try:
        return await answer
    except (RequestError, grpc.aio.BaseError):  # the latter where the client is gone
        raise
    except Exception:
        _log.exception("a call failed")
        raise RequestError(500, FAULT) from None


async def _tell(exchange: Exchange, context: Context, response: bytes) -> None:
    """Notes a response that goes to the client now, and tells with the first the trace it is in."""
    if not exchange.status:
        await context.send_initial_metadata(((_TRACE, exchange.traceparent.decode()),))
        exchange.status = 200
    exchange.sent += len(response)


def _parsed(message: bytes, kind: Any) -> Any:
    if len(message) > _LITTLE:
        _check_fields(message)
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise RequestError(400, f"the message is not a {kind.DESCRIPTOR.name}: {error}") from None


def _check_fields(message: bytes) -> None:
    """RequestError 400 where a message, with its tensors, has too many fields; what cannot be read is left to the
    parser.

    Each is a tag, which says how it goes on, and then a number or a length and as many bytes
    (https://protobuf.dev/programming-guides/encoding/).
    """
    fields = 0
    parts = [(0, len(message))]
    for part, (at, end) in enumerate(parts):  # which grows
        while at < end:
            fields += 1
            if fields > MAX_FIELDS:
                raise RequestError(400, f"the message has more than {MAX_FIELDS} tensors, contents and parameters")
            tag, at = _varint(message, at)
            value, at = _varint(message, at) if tag & 7 in (0, 2) else (0, at)
            if not part and tag in _TENSORS:
                parts.append((at, min(at + value, end)))
            at += {0: 0, 1: 8, 2: value, 5: 4}.get(tag & 7, len(message))


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The number that begins at a place, seven bits a byte, and where it ends."""
    found = shift = 0
    for byte in message[at : at + 10]:
        found |= (byte & 127) << shift
        shift += 7
        at += 1
        if byte < 128:
            break
    return found, at


def _metadatum(context: Context, name: str) -> bytes | None:
    """What a call says of itself, in the metadata as HTTP has it among the headers; the first of several."""
    for key, value in context.invocation_metadata() or ():
        if key == name:
            return value if isinstance(value, bytes) else value.encode()
    return None


def _refusal(error: RequestError) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]]:
    """What a request is ended with: code, message, and when to try again as retrying clients read it (gRFC A6)."""
    code = CODES.get(error.status, grpc.StatusCode.UNKNOWN)
    later = () if error.retry_after is None else (("grpc-retry-pushback-ms", str(1000 * error.retry_after)),)
    return code, error.message.encode()[:MAX_DETAILS].decode(errors="ignore"), later
