"""The settings of a server, read from ``WORKBENCH_*``.

=========================  ===========  ===========================================================================
variable                   default      meaning
=========================  ===========  ===========================================================================
WORKBENCH_HOST             127.0.0.1    address to listen on (the image sets 0.0.0.0)
WORKBENCH_PORT             8000         port; 0 takes a free one, which the ready line names
WORKBENCH_GRPC_PORT                     port for gRPC, 0 for a free one; without it there is no gRPC
WORKBENCH_MODELS           /models      folder of ``<name>/<version>/model.onnx``
WORKBENCH_WORKERS          1            processes that share the port, each with the models; auto: one per whole CPU
WORKBENCH_THREADS          CPU limit    intra-op threads of each session; without it the container's CPUs are shared out
                                        among the workers
WORKBENCH_DEVICE           cpu          cpu or cuda
WORKBENCH_DEVICE_FALLBACK  0            1: serve from the CPU where cuda is asked for and there is none
WORKBENCH_BATCH_ROWS       64           most rows of a joined run; 1: requests are never joined
WORKBENCH_BATCH_WAIT       0            milliseconds that a run of a slow model waits for others while there is load
WORKBENCH_QUEUE            1024         requests to a model that may wait; others get 429
WORKBENCH_QUEUE_WAIT       2            seconds that a request may have to wait; where it would be more it gets 429
WORKBENCH_REPOSITORY       0            1: clients may load and unload models; with one worker
WORKBENCH_TRAFFIC                       JSON: {"name": {"traffic": {"1": 90, "2": 10}, "shadow": "3"}}
WORKBENCH_PLATFORM         auto         sagemaker, vertex or azureml; auto: by what workbench.server.platforms lists
WORKBENCH_PLATFORM_MODEL                the model that a platform's requests are for; without it the only one
WORKBENCH_GRACE            30           seconds that requests in flight have to finish after SIGTERM
WORKBENCH_MAX_BODY         16777216     longest request body, in bytes
WORKBENCH_CLIENT_PATIENCE  30           seconds that a client may take to send a request, or to take its answer
WORKBENCH_ACCESS_LOG       0            1: a line of JSON for each request (see access_log)
WORKBENCH_ACCESS_LOG_FILE               a file for it; without one it goes to stderr
WORKBENCH_INPUT_STATS      0            1: statistics of inputs and outputs, at /v2/models/NAME/drift (see input_stats)
WORKBENCH_CACHE_BYTES      0            bytes of answers that are kept to be given again to the same request
WORKBENCH_API_KEY_FILE                  a file with a key on each line, one of which every request but probes needs
WORKBENCH_TLS_CERT                      a certificate (PEM): the port speaks TLS
WORKBENCH_TLS_KEY                       its key, where that does not stand in the same file
WORKBENCH_TLS_CLIENT_CA                 authorities (PEM), of which clients need a certificate
WORKBENCH_READY_FD                      an inherited descriptor: one line of JSON once requests are taken
=========================  ===========  ===========================================================================

Queues, bodies and caches are bounded for each worker by itself.

Spans of inferences are sent where OTEL_EXPORTER_OTLP_ENDPOINT is set (see spans).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from workbench.server.address import HOST, PORT, Platform, detect, host_of, port_of
from workbench.server.address import number as _number
from workbench.server.address import word as _word
from workbench.server.batcher import Limits
from workbench.server.cpus import default_threads, default_workers
from workbench.server.devices import DEVICES
from workbench.server.errors import ServerError
from workbench.server.repository import Traffic

MAX_WORKERS = 256

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Variables of OpenTelemetry that say where spans go."""


@dataclass(frozen=True)
class Settings:
    """How to serve. See the table of this module."""

    host: str = HOST
    port: int = PORT
    grpc_port: int = -1
    models: Path = Path("/models")
    workers: int = 1
    threads: int = 1
    device: str = "cpu"
    device_fallback: bool = False
    limits: Limits = field(default_factory=Limits)
    repository: bool = False
    traffic: Mapping[str, Traffic] = field(default_factory=dict)
    platform: Platform | None = None
    platform_model: str = ""
    grace: int = 30
    max_body: int = 16 * 2**20
    client_patience: int = 30
    access_log: bool = False
    access_log_file: Path | None = None
    input_stats: bool = False
    cache_bytes: int = 0
    api_key_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    ready_fd: int = -1


def from_environment(environment: Mapping[str, str], arguments: Sequence[str] = ()) -> Settings:
    """The settings in ``environment`` and the command's ``arguments``; ServerError naming what cannot be used."""
    platform = detect(environment, arguments)
    workers = _workers(environment)
    limits = Limits(
        rows=_number(environment, "WORKBENCH_BATCH_ROWS", Limits.rows, 1, 65536),
        queue=_number(environment, "WORKBENCH_QUEUE", Limits.queue, 1, 2**20),
        wait=_number(environment, "WORKBENCH_QUEUE_WAIT", int(Limits.wait), 1, 86400),
        gather=_number(environment, "WORKBENCH_BATCH_WAIT", int(Limits.gather * 1000), 0, 60_000) / 1000,
    )
    return Settings(
        host=host_of(environment),
        port=port_of(environment, platform),
        grpc_port=_number(environment, "WORKBENCH_GRPC_PORT", -1, 0, 65535),
        models=Path(environment.get("WORKBENCH_MODELS") or Settings.models),
        workers=workers,
        threads=_number(environment, "WORKBENCH_THREADS", 0, 1, 1024) or default_threads(workers),
        device=_word(environment, "WORKBENCH_DEVICE", DEVICES),
        device_fallback=_switch(environment, "WORKBENCH_DEVICE_FALLBACK"),
        limits=limits,
        repository=_switch(environment, "WORKBENCH_REPOSITORY"),
        traffic=_traffic(environment.get("WORKBENCH_TRAFFIC") or "{}"),
        platform=platform,
        platform_model=environment.get("WORKBENCH_PLATFORM_MODEL", ""),
        grace=_number(environment, "WORKBENCH_GRACE", Settings.grace, 0, 86400),
        max_body=_number(environment, "WORKBENCH_MAX_BODY", Settings.max_body, 1, 2**31),
        client_patience=_number(environment, "WORKBENCH_CLIENT_PATIENCE", Settings.client_patience, 1, 86400),
        access_log=_switch(environment, "WORKBENCH_ACCESS_LOG"),
        access_log_file=_path(environment, "WORKBENCH_ACCESS_LOG_FILE"),
        input_stats=_switch(environment, "WORKBENCH_INPUT_STATS"),
        cache_bytes=_number(environment, "WORKBENCH_CACHE_BYTES", 0, 0, 2**40),
        api_key_file=_path(environment, "WORKBENCH_API_KEY_FILE"),
        **_tls(environment),
        ready_fd=_number(environment, "WORKBENCH_READY_FD", -1, 0, 2**20),
    )


def _workers(environment: Mapping[str, str]) -> int:
    if environment.get("WORKBENCH_WORKERS") == "auto":
        return default_workers()
    return _number(environment, "WORKBENCH_WORKERS", 1, 1, MAX_WORKERS)


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    return Path(text) if (text := environment.get(name)) else None


def _tls(environment: Mapping[str, str]) -> dict[str, Path | None]:
    """Paths for TLS; a server that was meant to have it does not start without."""
    found = {
        f"tls_{name}": _path(environment, f"WORKBENCH_TLS_{name.upper()}") for name in ("cert", "key", "client_ca")
    }
    if found["tls_cert"] is None and any(found.values()):
        raise ServerError(
            "WORKBENCH_TLS_KEY or WORKBENCH_TLS_CLIENT_CA is set, and WORKBENCH_TLS_CERT is not.",
            "Set it to the server's certificate, or unset the others.",
        )
    return found


def _switch(environment: Mapping[str, str], name: str) -> bool:
    return bool(_number(environment, name, 0, 0, 1))


def _traffic(text: str) -> dict[str, Traffic]:
    try:
        return msgspec.json.decode(text, type=dict[str, Traffic])
    except msgspec.MsgspecError as error:
        raise ServerError(
            f"WORKBENCH_TRAFFIC is not usable: {error}.",
            'Give JSON such as {"x": {"traffic": {"1": 90, "2": 10}}}.',
        ) from None
