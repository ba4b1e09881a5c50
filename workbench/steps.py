"""What steps there are: a name, the function that does it, and what decides its result.

A step is a function of its inputs, run in a process of its own::

    def step(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs

``inputs`` are files that the step reads and never writes; ``params`` is plain JSON; files the step makes are written
below ``emit.scratch`` and named in the :class:`Outputs`. A step raises the errors of :mod:`workbench.errors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol


class Emit(Protocol):
    """What a running step may say. Everything said ends up in the run folder, written by the run process."""

    scratch: Path
    """An empty folder on the store's file system, removed after the step."""

    def progress(self, done: float, total: float, text: str = "") -> None:
        """How far the step is, in units of its own, and what it is doing."""

    def note(self, text: str) -> None:
        """A sentence the user should read, such as a fallback that was taken."""

    def sample(self, kind: str, values: Mapping[str, Any]) -> None:
        """A measurement on the way (a latency histogram), for ``samples.jsonl``."""


@dataclass(frozen=True)
class Outputs:
    """What a step made: files by name, and values (plain JSON) that the lock and the faces show."""

    files: Mapping[str, Path] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StepKind:
    """One kind of step.

    ``nature`` is ``artifact`` (same key, same bytes), ``figure`` (measured on this machine: the machine is part of the
    key) or ``effect`` (changes something outside the store: always carried out).
    ``packages`` are the workbench packages whose source decides the result, ``tools`` the installed distributions.
    """

    function: str
    packages: tuple[str, ...]
    tools: tuple[str, ...] = ()
    nature: Literal["artifact", "figure", "effect"] = "artifact"


_MODEL = ("onnx", "onnxruntime", "numpy")

KINDS: Mapping[str, StepKind] = {
    "model": StepKind("workbench.model.bring:bring", ("workbench.model",), ("onnx", "numpy")),
    "data": StepKind("workbench.model.data:prepare", ("workbench.model",), ("numpy",)),
    "quantize": StepKind("workbench.compress.quantize:quantize", ("workbench.compress",), _MODEL),
    "evaluate": StepKind("workbench.evaluate.score:score", ("workbench.evaluate",), (*_MODEL, "scikit-learn"), "figure"),
    "latency": StepKind("workbench.bench.latency:compare", ("workbench.bench", "workbench.server"), _MODEL, "figure"),
    "base-resolve": StepKind("workbench.image.base:resolve", ("workbench.image",)),
    "base": StepKind("workbench.image.base:layer", ("workbench.image",)),
    "wheels-resolve": StepKind("workbench.image.wheels:resolve", ("workbench.image",), ("uv",)),
    "wheels": StepKind("workbench.image.wheels:layer", ("workbench.image",)),
    "server-layer": StepKind("workbench.image.content:server_layer", ("workbench.image", "workbench.server")),
    "model-layer": StepKind("workbench.image.content:model_layer", ("workbench.image",)),
    "image": StepKind("workbench.image.oci:assemble", ("workbench.image",)),
    "parity": StepKind("workbench.image.parity:check", ("workbench.image", "workbench.server"), _MODEL, "figure"),
    "benchmark": StepKind("workbench.bench.benchmark:measure", ("workbench.bench", "workbench.server"), _MODEL, "figure"),
    "push": StepKind("workbench.registry.push:push", ("workbench.registry",), (), "effect"),
}
