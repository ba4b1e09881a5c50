"""What steps there are: a name, the function that does it, and what decides its result.

A step is a function of its inputs, run in a process of its own::

    def step(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs

``inputs`` are files that the step reads and never writes; ``params`` is plain JSON; files the step makes are written
below ``emit.scratch`` and named in the :class:`Outputs`. A step raises the errors of :mod:`workbench.errors`.
"""

from __future__ import annotations

import importlib
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
    key) or ``effect`` (changes something outside the store: carried out unless ``in_place`` finds it done already, a
    cheap function ``(inputs, params, project, digest_of) -> values or None`` that runs in the run process).
    ``packages`` are the workbench packages and asset folders whose content decides the result, ``tools`` the installed
    distributions; ``isa`` says that the instruction set decides it too. ``decision`` steps are cheap, decide on the
    values of other steps and run in the run process (:mod:`workbench.decide`). A step that ``reads_lock`` is carried
    out when the run has written the lock. ``needs`` is a function that raises MachineLacks where this machine lacks
    what such a step needs: it is asked before anything is made.
    """

    function: str
    packages: tuple[str, ...]
    tools: tuple[str, ...] = ()
    nature: Literal["artifact", "figure", "effect", "decision"] = "artifact"
    isa: bool = False
    in_place: str = ""
    reads_lock: bool = False
    needs: str = ""


_MODEL = ("onnx", "onnxruntime", "numpy")

_IMAGE = ("workbench.image", "assets/image")
_RUNNING = ("workbench.image", "workbench.engine", "workbench.bench", "workbench.server")

KINDS: Mapping[str, StepKind] = {
    "fetch": StepKind("workbench.inputs:fetch", ("workbench.inputs",)),
    "model": StepKind("workbench.model.bring:bring", ("workbench.model",), ("onnx", "numpy")),
    "data": StepKind("workbench.model.data:prepare", ("workbench.model",), ("numpy",)),
    "quantize": StepKind(
        "workbench.compress.quantize:quantize", ("workbench.compress", "workbench.model"), _MODEL, isa=True
    ),
    "evaluate": StepKind(
        "workbench.evaluate.score:score", ("workbench.evaluate", "workbench.model"), (*_MODEL, "scikit-learn"), isa=True
    ),
    "latency": StepKind("workbench.bench.latency:compare", ("workbench.bench", "workbench.server"), _MODEL, "figure"),
    "choose": StepKind("workbench.decide:choose", ("workbench.evaluate",), nature="decision"),
    "base-resolve": StepKind("workbench.image.base:resolve", _IMAGE),
    "base": StepKind("workbench.image.base:layer", _IMAGE),
    "wheels-resolve": StepKind("workbench.image.wheels:resolve", _IMAGE, ("uv",)),
    "wheels": StepKind("workbench.image.wheels:layer", _IMAGE),
    "server-layer": StepKind("workbench.image.content:server_layer", ("workbench.image", "workbench.server")),
    "bytecode-layer": StepKind("workbench.image.bytecode:layer", ("workbench.image",)),
    "model-layer": StepKind("workbench.image.content:model_layer", ("workbench.image",)),
    "image": StepKind("workbench.image.oci:assemble", ("workbench.image",)),
    "docker-build": StepKind(
        "workbench.image.docker:build",
        (*_IMAGE, "workbench.engine", "workbench.server"),
        needs="workbench.image.docker:check_engine",
    ),
    "sbom": StepKind(
        "workbench.provenance.sbom:make", ("workbench.provenance", "workbench.image"), ("cyclonedx-python-lib",)
    ),
    "secrets": StepKind("workbench.image.secrets:scan", ("workbench.image",)),
    "parity": StepKind("workbench.image.parity:check", _RUNNING, _MODEL, isa=True),
    "benchmark": StepKind("workbench.bench.benchmark:measure", _RUNNING, (*_MODEL, "mlcommons-loadgen"), "figure"),
    "gates": StepKind("workbench.decide:gates", ("workbench.evaluate",), nature="decision"),
    "push": StepKind(
        "workbench.registry.push:push",
        ("workbench.registry",),
        nature="effect",
        in_place="workbench.registry.push:in_place",
    ),
    "attach": StepKind(
        "workbench.provenance.attach:attach",
        ("workbench.provenance", "workbench.registry"),
        nature="effect",
        in_place="workbench.provenance.attach:in_place",
        reads_lock=True,
    ),
}


def check_machine(kind: str) -> None:
    """Asks for what a step of that kind needs. Raises MachineLacks where this machine lacks it."""
    if KINDS[kind].needs:
        module, _, function = KINDS[kind].needs.partition(":")
        getattr(importlib.import_module(module), function)()
