"""The Open Inference Protocol V2 over gRPC, beside HTTP: the same models, queues and limits on the same event loop.

Messages are read here and not by grpcio, for what it cannot read it answers with INTERNAL, what never comes it waits
for without end, and what it has read is counted nowhere. So to grpcio every method takes a stream of bytes, of which
the first message is the request; on the wire that is the same.

A request with ``raw_input_contents`` is answered with ``raw_output_contents``, one with typed contents in kind. FP16
has no typed form, so where it is among the outputs all of them are raw.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import prod
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError

from workbench.server import health_pb2, inference_pb2
from workbench.server.app import App, about, traffic_of
from workbench.server.errors import RequestError, ServerError
from workbench.server.model import Model
from workbench.server.protocol import Asked, timeout_seconds
from workbench.server.tensors import (
    Array,
    TensorSpec,
    add,
    check_complete,
    chosen_outputs,
    from_bytes,
    spec_of,
    text,
    to_bytes,
    wrong_count,
)
from workbench.server.tls import Pem

SERVICE = "inference.GRPCInferenceService"

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""What a status of HTTP is in gRPC."""

CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field of ``InferTensorContents`` that holds the elements of a datatype."""

MAX_RPCS = 4096
"""Most requests at once: one connection carries any number of them, and each takes memory before it is looked at."""

MAX_READS = 8
"""Most messages that arrive at once, each of as many bytes as a body may have; others wait in the network."""

HURRY = 2.0
"""Seconds that a message may take to arrive while others wait for it."""

MAX_DETAILS = 2000
"""Most bytes of an error's message. It travels percent-encoded, and clients refuse headers of more than 8 KiB or so."""

MAX_FIELDS = 4096
"""Most tensors, contents and parameters of a request: two bytes of a message are an empty one, a hundred in memory."""

_LITTLE = 64 << 10
_OPEN = frozenset({"ServerLive", "ServerReady"})
"""Methods that tell of health, for which no API key is needed."""

Method = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]


class Service:
    """The methods of the protocol and of gRPC's health service over ``app``."""

    def __init__(self, app: App, patience: float, *, share_port: bool = False) -> None:
        """Clients that take longer than ``patience`` seconds to send a message are refused, and those without one of
        the app's API keys, where it has some. ``share_port``: other workers listen on the same port."""
        self._app = app
        self._patience = patience
        self._reads = asyncio.Semaphore(MAX_READS)
        self._reading: dict[asyncio.Timeout, float] = {}
        """When each message that arrives now was asked for."""
        self._waiting = 0
        self._stopping = asyncio.Event()
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", app.max_body),
                # A few compressed bytes may hold any number of others, and the limit above counts the compressed.
                ("grpc.compression_enabled_algorithms_bitset", 1),
                ("grpc.server_handshake_timeout_ms", int(1000 * patience)),
                # What is not asked for yet stays with the client, but for so many bytes of each request.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", _LITTLE),
                # Without this a second server on the same port gets half of the connections.
                ("grpc.so_reuseport", int(share_port)),
            ],
            maximum_concurrent_rpcs=MAX_RPCS,
        )
        pb = inference_pb2
        methods: dict[str, tuple[Any, Method]] = {
            "ServerLive": (pb.ServerLiveRequest, self._live),
            "ServerReady": (pb.ServerReadyRequest, self._ready),
            "ModelReady": (pb.ModelReadyRequest, self._model_ready),
            "ServerMetadata": (pb.ServerMetadataRequest, self._about),
            "ModelMetadata": (pb.ModelMetadataRequest, self._metadata),
            "ModelInfer": (pb.ModelInferRequest, self._infer),
            "ModelConfig": (pb.ModelConfigRequest, self._config),
            "ModelStatistics": (pb.ModelStatisticsRequest, self._statistics),
            "RepositoryIndex": (pb.RepositoryIndexRequest, self._index),
            "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, self._load),
            "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, self._unload),
        }
        self._add(SERVICE, {name: self._handler(*method, open_=name in _OPEN) for name, method in methods.items()})
        watch = grpc.stream_stream_rpc_method_handler(self._watch)
        self._add(
            "grpc.health.v1.Health",
            {"Check": self._handler(health_pb2.HealthCheckRequest, self._check, open_=True), "Watch": watch},
        )

    async def start(self, host: str, port: int, secure: Pem | None = None) -> int:
        """Listen; returns the port, which is another one where ``port`` is 0. ServerError where it cannot be had."""
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound: int
            if secure is None:
                bound = self._server.add_insecure_port(address)
            else:
                wanted = secure.client_ca is not None
                pair = [(secure.key, secure.certificate)]
                bound = self._server.add_secure_port(
                    address, grpc.ssl_server_credentials(pair, secure.client_ca, require_client_auth=wanted)
                )
        except RuntimeError:  # grpcio logs why, and does not tell
            bound = 0
        if not bound:
            raise ServerError(f"Cannot listen on {host}:{port} for gRPC.", "Free the port or set WORKBENCH_GRPC_PORT.")
        await self._server.start()
        return bound

    async def stop(self, grace: float) -> None:
        """Take no more requests; returns when those in flight are answered, at the latest after ``grace`` seconds."""
        self._stopping.set()
        await self._server.stop(grace)

    # --- between bytes and methods

    def _add(self, service: str, methods: dict[str, grpc.RpcMethodHandler]) -> None:
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))

    def _handler(self, kind: Any, method: Method, *, open_: bool) -> grpc.RpcMethodHandler:
        async def handle(_: object, context: grpc.aio.ServicerContext) -> Any:
            try:
                if self._app.keys is not None and not open_:
                    self._app.keys.check(_authorization(context))
                return await self._answered(kind, method, context)
            except RequestError as error:
                refusal = _refusal(error)
            # Outside of the block: what abort raises is part of a cycle, and would keep the error's frames and with
            # them the message until that is collected.
            return await context.abort(*refusal)

        return grpc.stream_unary_rpc_method_handler(handle)

    async def _answered(self, kind: Any, method: Method, context: grpc.aio.ServicerContext) -> Any:
        message = await self._read(context)
        self._app.hold(len(message))
        try:
            answer = await method(_parsed(message, kind), context)
            return answer.SerializeToString()
        finally:
            self._app.let_go(len(message))

    async def _read(self, context: grpc.aio.ServicerContext) -> bytes:
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
            raise RequestError(400, "the request has no message")
        return message

    # --- health and metadata

    async def _live(self, _request: Any, _context: grpc.aio.ServicerContext) -> Any:
        return inference_pb2.ServerLiveResponse(live=True)

    async def _ready(self, _request: Any, _context: grpc.aio.ServicerContext) -> Any:
        return inference_pb2.ServerReadyResponse(ready=self._app.ready)

    async def _model_ready(self, request: Any, _context: grpc.aio.ServicerContext) -> Any:
        try:
            self._app.repository.look_up(request.name, request.version or None)
        except RequestError:  # what is not there is not ready; over HTTP that is 404, which clients take for the same
            return inference_pb2.ModelReadyResponse(ready=False)
        return inference_pb2.ModelReadyResponse(ready=self._app.ready)

    async def _about(self, _request: Any, _context: grpc.aio.ServicerContext) -> Any:
        return inference_pb2.ServerMetadataResponse(**about())

    async def _metadata(self, request: Any, _context: grpc.aio.ServicerContext) -> Any:
        repository = self._app.repository
        model = repository.look_up(request.name, request.version or None).model
        return inference_pb2.ModelMetadataResponse(**model.metadata(list(repository.served(request.name).versions)))

    async def _config(self, request: Any, _context: grpc.aio.ServicerContext) -> Any:
        from workbench.server.model_config import model_config

        model = self._app.repository.look_up(request.name, request.version or None).model
        return inference_pb2.ModelConfigResponse(config=model_config(model))

    async def _statistics(self, request: Any, _context: grpc.aio.ServicerContext) -> Any:
        from workbench.server.model_stats import model_stats

        if request.version and not request.name:
            raise RequestError(400, f"version {request.version!r} is asked for, and not of which model")
        batchers = self._app.repository.chosen(request.name or None, request.version or None)
        return inference_pb2.ModelStatisticsResponse(**await model_stats(batchers, self._app.shared))

    def _serving(self, service: str) -> int | None:
        """The health of a service, None where there is none of that name."""
        if service not in ("", SERVICE):
            return None
        status = health_pb2.HealthCheckResponse
        serving: int = status.SERVING if self._app.ready and not self._stopping.is_set() else status.NOT_SERVING
        return serving

    async def _check(self, request: Any, _context: grpc.aio.ServicerContext) -> Any:
        status = self._serving(request.service)
        if status is None:
            raise RequestError(404, f"there is no service {request.service!r} here; there is {SERVICE}")
        return health_pb2.HealthCheckResponse(status=status)

    async def _watch(self, _: object, context: grpc.aio.ServicerContext) -> None:
        """Tells the health now, and again when it changes: when the server stops."""
        kind = health_pb2.HealthCheckResponse
        refusal = None
        try:
            service = _parsed(await self._read(context), health_pb2.HealthCheckRequest).service
        except RequestError as error:
            refusal = _refusal(error)
        if refusal is not None:
            await context.abort(*refusal)
        status = self._serving(service)
        await context.write(kind(status=kind.SERVICE_UNKNOWN if status is None else status).SerializeToString())
        await self._stopping.wait()
        if status is not None:
            await context.write(kind(status=kind.NOT_SERVING).SerializeToString())

    # --- inference

    async def _infer(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        app, version = self._app, request.model_version or None
        served = app.repository.served(request.model_name)
        batcher = app.repository.get(request.model_name, version)
        batcher.check_room()
        try:
            asked = _asked(request, batcher.model, context.time_remaining())
        except RequestError:
            batcher.meter.fail("invalid")
            raise
        results = await app.run(batcher, asked, None if version else served)
        return _answer(batcher.model, asked, results)

    # --- the repository extension

    async def _index(self, request: Any, _context: grpc.aio.ServicerContext) -> Any:
        self._app.check_changes()
        return inference_pb2.RepositoryIndexResponse(models=self._app.repository.index(ready=request.ready))

    async def _load(self, request: Any, _context: grpc.aio.ServicerContext) -> Any:
        self._app.check_changes()
        config = ""
        for name, parameter in request.parameters.items():
            if name != "config" or parameter.WhichOneof("parameter_choice") != "string_param":
                raise RequestError(400, f"parameter {name!r} is not understood; config takes a string")
            config = parameter.string_param
        await self._app.repository.load(request.model_name, traffic_of(config))
        return inference_pb2.RepositoryModelLoadResponse()

    async def _unload(self, request: Any, _context: grpc.aio.ServicerContext) -> Any:
        self._app.check_changes()
        await self._app.repository.unload(request.model_name)
        return inference_pb2.RepositoryModelUnloadResponse()


def _parsed(message: bytes, kind: Any) -> Any:
    if len(message) > _LITTLE:
        _check_fields(message)
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise RequestError(400, f"the message is not a {kind.DESCRIPTOR.name}: {error}") from None


def _check_fields(message: bytes) -> None:
    """RequestError 400 where a message has too many fields; what cannot be read is left to the parser.

    Each is a tag, which says how it goes on, and then a number or a length and as many bytes
    (https://protobuf.dev/programming-guides/encoding/).
    """
    at = fields = 0
    while at < len(message):
        fields += 1
        if fields > MAX_FIELDS:
            raise RequestError(400, f"the message has more than {MAX_FIELDS} tensors, contents and parameters")
        tag, at = _varint(message, at)
        value, at = _varint(message, at) if tag & 7 in (0, 2) else (0, at)
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


def _authorization(context: grpc.aio.ServicerContext) -> bytes | None:
    """What a request says of who sends it, in the metadata as HTTP has it among the headers."""
    for name, value in context.invocation_metadata() or ():
        if name == "authorization":
            return value if isinstance(value, bytes) else value.encode()
    return None


def _refusal(error: RequestError) -> tuple[grpc.StatusCode, str, tuple[tuple[str, str], ...]]:
    """What a request is ended with: code, message, and when to try again as retrying clients read it (gRFC A6)."""
    code = CODES.get(error.status, grpc.StatusCode.UNKNOWN)
    later = () if error.retry_after is None else (("grpc-retry-pushback-ms", str(1000 * error.retry_after)),)
    return code, error.message.encode()[:MAX_DETAILS].decode(errors="ignore"), later


def _asked(request: Any, model: Model, remaining: float | None) -> Asked:
    """The request, understood; RequestError 400 where it is none. ``remaining``: seconds until its deadline."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise RequestError(400, f"there are {len(request.inputs)} inputs and {len(raw)} raw_input_contents")
    feed: dict[str, Array] = {}
    for place, tensor in enumerate(request.inputs):
        shape = list(tensor.shape)
        spec = spec_of(tensor.name, tensor.datatype, shape, model.inputs)
        if "shared_memory_region" in tensor.parameters:
            raise RequestError(400, f"input {tensor.name!r}: the shared memory extension is not spoken here")
        if not raw:
            array = _from_contents(tensor.contents, spec, shape)
        elif tensor.HasField("contents"):
            raise RequestError(400, f"input {tensor.name!r} has both contents and raw_input_contents")
        else:
            array = from_bytes(raw[place], spec, shape)
        add(feed, tensor.name, array)
    check_complete(feed, model.inputs)
    names = chosen_outputs([output.name for output in request.outputs], model.outputs)
    for output in request.outputs:
        if "classification" in output.parameters or "shared_memory_region" in output.parameters:
            raise RequestError(
                400, f"output {output.name!r}: the classification and shared memory extensions are not spoken here"
            )
    binary = frozenset(names if raw else ())
    return Asked(feed, names, binary, request.id or None, _soonest(_timeout(request.parameters), remaining))


def _from_contents(contents: Any, spec: TensorSpec, shape: list[int]) -> Array:
    field = CONTENTS.get(spec.datatype.name)
    if field is None:
        raise RequestError(
            400, f"input {spec.name!r}: {spec.datatype.name} has no typed contents; send raw_input_contents"
        )
    for other, _ in contents.ListFields():
        if other.name != field:
            raise RequestError(400, f"input {spec.name!r} has {other.name}; {spec.datatype.name} goes into {field}")
    elements = getattr(contents, field)
    if len(elements) != prod(shape):
        raise wrong_count(spec, shape, len(elements))
    if spec.datatype.element is str:
        return np.array([text(element, spec) for element in elements], object).reshape(shape)
    try:
        # Not by way of a list, which would take many times the message's memory.
        return np.fromiter(elements, spec.datatype.dtype, len(elements)).reshape(shape)
    except OverflowError:
        raise RequestError(
            400, f"input {spec.name!r}: a value lies outside the range of {spec.datatype.name}"
        ) from None


def _timeout(parameters: Any) -> float | None:
    if "timeout" not in parameters:
        return None
    choice = parameters["timeout"].WhichOneof("parameter_choice")
    if choice not in ("int64_param", "uint64_param"):
        raise RequestError(400, "timeout is no whole number of microseconds")
    return timeout_seconds(getattr(parameters["timeout"], choice))


def _soonest(one: float | None, other: float | None) -> float | None:
    return min([each for each in (one, other) if each is not None], default=None)


def _answer(model: Model, asked: Asked, results: list[Array]) -> Any:
    response = inference_pb2.ModelInferResponse(model_name=model.name, model_version=model.version, id=asked.id or "")
    datatypes = [model.outputs[name].datatype for name in asked.outputs]
    raw = bool(asked.binary) or any(datatype.name not in CONTENTS for datatype in datatypes)
    for name, datatype, array in zip(asked.outputs, datatypes, results, strict=True):
        output = response.outputs.add(name=name, datatype=datatype.name, shape=array.shape)
        if raw:
            response.raw_output_contents.append(to_bytes(array, datatype))
        else:
            elements = array.ravel().tolist()
            if datatype.element is str:
                elements = [str(element).encode() for element in elements]
            getattr(output.contents, CONTENTS[datatype.name]).extend(elements)
    return response
