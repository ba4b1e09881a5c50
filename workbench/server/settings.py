"""The settings of a server, read from ``WORKBENCH_*``.

======================  ===========  ==============================================================
variable                default      meaning
======================  ===========  ==============================================================
WORKBENCH_HOST          127.0.0.1    address to listen on (the image sets 0.0.0.0)
WORKBENCH_PORT          8000         port; 0 takes a free one, which the ready line names
WORKBENCH_MODELS        /models      folder of ``<name>/<version>/model.onnx``
WORKBENCH_THREADS       1            intra-op threads of each session
WORKBENCH_GRACE         30           seconds that requests in flight have to finish after SIGTERM
WORKBENCH_MAX_BODY      16777216     longest request body, in bytes
WORKBENCH_READY_FD                   an inherited descriptor: one line of JSON once requests are taken
======================  ===========  ==============================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workbench.server.errors import ServerError


@dataclass(frozen=True)
class Settings:
    """How to serve. See the table of this module."""

    host: str = "127.0.0.1"
    port: int = 8000
    models: Path = Path("/models")
    threads: int = 1
    grace: int = 30
    max_body: int = 16 * 2**20
    ready_fd: int = -1


def from_environment(environment: Mapping[str, str]) -> Settings:
    """The settings in ``environment``; ServerError naming the variable that cannot be used."""
    return Settings(
        host=environment.get("WORKBENCH_HOST") or Settings.host,
        port=_number(environment, "WORKBENCH_PORT", Settings.port, 0, 65535),
        models=Path(environment.get("WORKBENCH_MODELS") or Settings.models),
        threads=_number(environment, "WORKBENCH_THREADS", Settings.threads, 1, 1024),
        grace=_number(environment, "WORKBENCH_GRACE", Settings.grace, 0, 86400),
        max_body=_number(environment, "WORKBENCH_MAX_BODY", Settings.max_body, 1, 2**31),
        ready_fd=_number(environment, "WORKBENCH_READY_FD", -1, 0, 2**20),
    )


def _number(environment: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environment.get(name)
    if not text:
        return default
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ServerError(f"{name}={text!r} is not usable.", f"Give a whole number from {low} to {high}.")
    return int(text)
