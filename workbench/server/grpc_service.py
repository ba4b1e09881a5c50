"""The Open Inference Protocol V2 over gRPC, beside HTTP: the same models, queues and limits on the same event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc.aio import ServicerContext as Context

from workbench.server import health_pb2, inference_pb2
from workbench.server.app import App, about, traffic_of
from workbench.server.errors import RequestError, ServerError
from workbench.server.grpc_calls import Calls, Method
from workbench.server.grpc_tensors import answer_of, asked_of
from workbench.server.tls import Pem

SERVICE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"

MAX_RPCS = 4096
"""Most requests at once: one connection carries any number of them, and each takes memory before it is looked at."""

_MOST = 2**31 - 1
"""Bytes that grpcio can be told; no message of protobuf is longer."""
_LOOKAHEAD = 64 << 10


class Service:
    """The methods of the protocol and of gRPC's health service over ``app``."""

    def __init__(self, app: App, patience: float, *, share_port: bool = False) -> None:
        """Clients that take longer than ``patience`` seconds to send a message are refused, and those without one of
        the app's API keys, where it has some. ``share_port``: other workers listen on the same port."""
        self._app = app
        self._stopping = asyncio.Event()
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", min(app.max_body, _MOST)),
                # A few compressed bytes may hold any number of others, and the limit above counts the compressed.
                ("grpc.compression_enabled_algorithms_bitset", 1),
                ("grpc.server_handshake_timeout_ms", int(1000 * patience)),
                # What a client does not take is held until its connection is closed. One that has gone without a word,
                # or hangs, is asked whether it is there, which it would be only after two hours by itself.
                ("grpc.keepalive_time_ms", int(1000 * patience)),
                ("grpc.keepalive_timeout_ms", int(1000 * patience)),
                ("grpc.http2.ping_timeout_ms", int(1000 * patience)),
                ("grpc.http2.max_pings_without_data", 0),
                # What is not asked for yet stays with the client, but for so many bytes of each request.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", _LOOKAHEAD),
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
        health = health_pb2.HealthCheckRequest
        calls = Calls(app, patience)
        # What tells of health needs no API key.
        self._server.add_generic_rpc_handlers(
            (
                calls.service(SERVICE, methods, {}, {"ServerLive", "ServerReady"}),
                calls.service(
                    HEALTH, {"Check": (health, self._check)}, {"Watch": (health, self._watch)}, {"Check", "Watch"}
                ),
                calls.unknown(),
            )
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

    # --- health and metadata

    async def _live(self, _request: Any, _context: Context) -> Any:
        return inference_pb2.ServerLiveResponse(live=True)

    async def _ready(self, _request: Any, _context: Context) -> Any:
        return inference_pb2.ServerReadyResponse(ready=self._app.ready)

    async def _model_ready(self, request: Any, _context: Context) -> Any:
        try:
            self._app.repository.look_up(request.name, request.version or None)
        except RequestError:  # what is not there is not ready; over HTTP that is 404, which clients take for the same
            return inference_pb2.ModelReadyResponse(ready=False)
        return inference_pb2.ModelReadyResponse(ready=self._app.ready)

    async def _about(self, _request: Any, _context: Context) -> Any:
        return inference_pb2.ServerMetadataResponse(**about())

    async def _metadata(self, request: Any, _context: Context) -> Any:
        repository = self._app.repository
        model = repository.look_up(request.name, request.version or None).model
        return inference_pb2.ModelMetadataResponse(**model.metadata(list(repository.served(request.name).versions)))

    async def _config(self, request: Any, _context: Context) -> Any:
        from workbench.server.model_config import model_config

        model = self._app.repository.look_up(request.name, request.version or None).model
        return inference_pb2.ModelConfigResponse(config=model_config(model))

    async def _statistics(self, request: Any, _context: Context) -> Any:
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

    async def _check(self, request: Any, _context: Context) -> Any:
        status = self._serving(request.service)
        if status is None:
            raise RequestError(404, f"there is no service {request.service!r} here; there is {SERVICE}")
        return health_pb2.HealthCheckResponse(status=status)

    async def _watch(self, request: Any) -> AsyncIterator[Any]:
        """Tells the health now, and again when it changes: when the server stops."""
        kind = health_pb2.HealthCheckResponse
        status = self._serving(request.service)
        yield kind(status=kind.SERVICE_UNKNOWN if status is None else status)
        await self._stopping.wait()
        if status is not None:
            yield kind(status=kind.NOT_SERVING)

    # --- inference

    async def _infer(self, request: Any, context: Context) -> Any:
        app, version = self._app, request.model_version or None
        served = app.repository.served(request.model_name)
        batcher = app.repository.get(request.model_name, version)
        batcher.check_room()
        try:
            asked = asked_of(request, batcher.model, context.time_remaining())
        except RequestError:
            batcher.meter.fail("invalid")
            raise
        results = await app.run(batcher, asked, None if version else served)
        return answer_of(batcher.model, asked, results)

    # --- the repository extension

    async def _index(self, request: Any, _context: Context) -> Any:
        self._app.check_changes()
        return inference_pb2.RepositoryIndexResponse(models=self._app.repository.index(ready=request.ready))

    async def _load(self, request: Any, _context: Context) -> Any:
        self._app.check_changes()
        config = ""
        for name, parameter in request.parameters.items():
            if name != "config" or parameter.WhichOneof("parameter_choice") != "string_param":
                raise RequestError(400, f"parameter {name!r} is not understood; config takes a string")
            config = parameter.string_param
        await self._app.repository.load(request.model_name, traffic_of(config))
        return inference_pb2.RepositoryModelLoadResponse()

    async def _unload(self, request: Any, _context: Context) -> Any:
        self._app.check_changes()
        await self._app.repository.unload(request.model_name)
        return inference_pb2.RepositoryModelUnloadResponse()
