"""Inferences as spans of OpenTelemetry, sent over OTLP/HTTP.

Where they go, as which service and how many of them is said by the environment variables of OpenTelemetry's own
(``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME``, ``OTEL_TRACES_SAMPLER``, ``OTEL_BSP_*``). This module needs
opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http, takes a while to load, and is used by one thread.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

import workbench
from workbench.server.exchange import Exchange

SERVICE = "workbench-server"


class Spans:
    """Makes and sends spans."""

    def __init__(self) -> None:
        """Set up what sends them."""
        self._ids = GivenIds()
        resource = Resource.create()
        if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: SERVICE}))
        self._provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(certificate_file=_authorities())))
        self._tracer = self._provider.get_tracer("workbench.server", workbench.__version__)

    def record(self, exchanges: Sequence[Exchange]) -> None:
        """Makes a span of each exchange."""
        for each in exchanges:
            self._ids.exchange = each
            context = None
            if each.parent_id:
                ids = int(each.trace_id, 16), int(each.parent_id, 16)
                parent = SpanContext(*ids, is_remote=True, trace_flags=TraceFlags(each.flags))
                context = set_span_in_context(NonRecordingSpan(parent))
            span = self._tracer.start_span(
                f"infer {each.model}",
                context,
                SpanKind.SERVER,
                attributes=_attributes(each),
                start_time=each.begun_ns,
            )
            if each.status >= 500:
                span.set_status(Status(StatusCode.ERROR))
            span.end(each.begun_ns + round(each.seconds * 1e9))

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()


def _authorities() -> str | None:
    """Whose certificates a receiver may have: what SSL_CERT_FILE says, as everywhere in the image, where the variables
    of OpenTelemetry say nothing. The client that it sends with would take a list of its own."""
    own = ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE")
    return None if any(map(os.environ.get, own)) else os.environ.get("SSL_CERT_FILE")


class GivenIds(IdGenerator):
    """The ids that an exchange has already, for the client has been told them."""

    exchange: Exchange

    def generate_span_id(self) -> int:
        """The exchange's."""
        return int(self.exchange.span_id, 16)

    def generate_trace_id(self) -> int:
        """The exchange's."""
        return int(self.exchange.trace_id, 16)

    def is_trace_id_random(self) -> bool:
        """Whether it is: we drew it."""
        return True


def _attributes(exchange: Exchange) -> dict[str, AttributeValue]:
    found = _of_grpc(exchange) if exchange.code else _of_http(exchange)
    found["inference.model.name"] = exchange.model
    found["inference.model.version"] = exchange.version
    found["inference.cached"] = exchange.cached
    if exchange.queue >= 0:
        found["inference.queue.seconds"] = exchange.queue
        found["inference.compute.seconds"] = exchange.compute
        found["inference.batch.rows"] = exchange.rows
    return found


def _of_http(exchange: Exchange) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {
        "http.request.method": exchange.method,
        "url.path": exchange.path,
        "http.request.body.size": exchange.received,
        "http.response.body.size": exchange.sent,
    }
    if exchange.status:
        found["http.response.status_code"] = exchange.status
    return found


def _of_grpc(exchange: Exchange) -> dict[str, AttributeValue]:
    return {
        "rpc.system.name": "grpc",
        "rpc.method": exchange.path[1:],
        "rpc.response.status_code": exchange.code,
        "inference.request.size": exchange.received,
        "inference.response.size": exchange.sent,
    }
