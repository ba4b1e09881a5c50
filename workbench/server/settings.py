"""The settings of a server, read from ``WORKBENCH_*``.

=========================  ===========  ===========================================================================
variable                   default      meaning
=========================  ===========  ===========================================================================
WORKBENCH_HOST             127.0.0.1    address to listen on (the image sets 0.0.0.0)
WORKBENCH_PORT             8000         port; 0 takes a free one, which the ready line names
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
WORKBENCH_REPOSITORY       0            1: clients may load and unload models
WORKBENCH_TRAFFIC                       JSON: {"name": {"traffic": {"1": 90, "2": 10}, "shadow": "3"}}
WORKBENCH_GRACE            30           seconds that requests in flight have to finish after SIGTERM
WORKBENCH_MAX_BODY         16777216     longest request body, in bytes
WORKBENCH_CLIENT_PATIENCE  30           seconds that a client may take to send a request, or to take its answer
WORKBENCH_READY_FD                      an inherited descriptor: one line of JSON once requests are taken
=========================  ===========  ===========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from workbench.server.batcher import Limits
from workbench.server.cpus import default_threads, default_workers
from workbench.server.devices import DEVICES
from workbench.server.errors import ServerError
from workbench.server.repository import Traffic

MAX_WORKERS = 256


@dataclass(frozen=True)
class Settings:
    """How to serve. See the table of this module."""

    host: str = "127.0.0.1"
    port: int = 8000
    models: Path = Path("/models")
    workers: int = 1
    threads: int = 1
    device: str = "cpu"
    device_fallback: bool = False
    limits: Limits = field(default_factory=Limits)
    repository: bool = False
    traffic: Mapping[str, Traffic] = field(default_factory=dict)
    grace: int = 30
    max_body: int = 16 * 2**20
    client_patience: int = 30
    ready_fd: int = -1


def from_environment(environment: Mapping[str, str]) -> Settings:
    """The settings in ``environment``; ServerError naming the variable that cannot be used."""
    workers = workers_for(environment.get("WORKBENCH_WORKERS") or "1")
    limits = Limits(
        rows=_number(environment, "WORKBENCH_BATCH_ROWS", Limits.rows, 1, 65536),
        queue=_number(environment, "WORKBENCH_QUEUE", Limits.queue, 1, 2**20),
        wait=_number(environment, "WORKBENCH_QUEUE_WAIT", int(Limits.wait), 1, 86400),
        gather=_number(environment, "WORKBENCH_BATCH_WAIT", int(Limits.gather * 1000), 0, 60_000) / 1000,
    )
    return Settings(
        host=environment.get("WORKBENCH_HOST") or Settings.host,
        port=_number(environment, "WORKBENCH_PORT", Settings.port, 0, 65535),
        models=Path(environment.get("WORKBENCH_MODELS") or Settings.models),
        workers=workers,
        threads=_number(environment, "WORKBENCH_THREADS", 0, 1, 1024) or default_threads(workers),
        device=_word(environment, "WORKBENCH_DEVICE", DEVICES),
        device_fallback=_switch(environment, "WORKBENCH_DEVICE_FALLBACK"),
        limits=limits,
        repository=_switch(environment, "WORKBENCH_REPOSITORY"),
        traffic=_traffic(environment.get("WORKBENCH_TRAFFIC") or "{}"),
        grace=_number(environment, "WORKBENCH_GRACE", Settings.grace, 0, 86400),
        max_body=_number(environment, "WORKBENCH_MAX_BODY", Settings.max_body, 1, 2**31),
        client_patience=_number(environment, "WORKBENCH_CLIENT_PATIENCE", Settings.client_patience, 1, 86400),
        ready_fd=_number(environment, "WORKBENCH_READY_FD", -1, 0, 2**20),
    )


def workers_for(text: str) -> int:
    """The workers that WORKBENCH_WORKERS asks for: a number, or auto."""
    if text == "auto":
        return default_workers()
    return _number({"WORKBENCH_WORKERS": text}, "WORKBENCH_WORKERS", 1, 1, MAX_WORKERS)


def _number(environment: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environment.get(name)
    if not text:
        return default
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ServerError(f"{name}={text!r} is not usable.", f"Give a whole number from {low} to {high}.")
    return int(text)


def _switch(environment: Mapping[str, str], name: str) -> bool:
    return bool(_number(environment, name, 0, 0, 1))


def _word(environment: Mapping[str, str], name: str, words: tuple[str, ...]) -> str:
    text = environment.get(name) or words[0]
    if text not in words:
        raise ServerError(f"{name}={text!r} is not usable.", f"Give one of {', '.join(words)}.")
    return text


def _traffic(text: str) -> dict[str, Traffic]:
    try:
        return msgspec.json.decode(text, type=dict[str, Traffic])
    except msgspec.MsgspecError as error:
        raise ServerError(
            f"WORKBENCH_TRAFFIC is not usable: {error}.",
            'Give JSON such as {"x": {"traffic": {"1": 90, "2": 10}}}.',
        ) from None
