"""Parity: does the image answer what the model answers in process?

On one machine with the same onnxruntime, threads and session options the answers are equal bit by bit. Where they are
not (another build, another instruction set) they must lie within the recipe's tolerance and name the same best class.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.bench.targets import peak_memory
from workbench.errors import StepFailed
from workbench.image import runtime
from workbench.image.sandbox import Container
from workbench.image.v2 import Client, names_of
from workbench.server.session import open_session
from workbench.steps import Emit, Outputs
from workbench.units import format_size

if TYPE_CHECKING:
    from workbench.engine.container import EngineContainer

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass
class Difference:
    """How far answers lie apart, over all that were compared."""

    atol: float
    rtol: float
    bit_equal: bool = True
    within: bool = True
    top1_equal: bool = True
    max_abs: float = 0.0
    max_rel: float = 0.0
    first: str = field(default="", repr=False)

    def compare(self, sample: int, expected: Arrays, answered: Arrays) -> None:
        """Takes in the answers to one sample. Raises StepFailed where they are not of one form."""
        if set(expected) != set(answered):
            raise StepFailed(
                f"The image's outputs are {names_of(list(answered))}, the model's {names_of(list(expected))}."
            )
        for name, wanted in expected.items():
            got = answered[name]
            if got.shape != wanted.shape or got.dtype.kind != wanted.dtype.kind:
                raise StepFailed(
                    f"Output {name} of the image is {got.dtype}{list(got.shape)}, "
                    f"of the model {wanted.dtype}{list(wanted.shape)}."
                )
            self._take(sample, name, wanted, got)

    def _take(self, sample: int, name: str, wanted: np.ndarray[Any, Any], got: np.ndarray[Any, Any]) -> None:
        if _same(wanted, got):
            return
        self.bit_equal = False
        self.first = self.first or f"sample {sample}, output {name}"
        if wanted.dtype.kind not in "fiub":
            self.within = False
            return
        one, other = wanted.astype(np.float64), got.astype(np.float64)
        self.within &= bool(np.allclose(other, one, rtol=self.rtol, atol=self.atol, equal_nan=True))
        with np.errstate(invalid="ignore", divide="ignore"):
            apart = np.abs(other - one)
            relative = apart / np.abs(one)
        self.max_abs = max(self.max_abs, _largest(apart))
        self.max_rel = max(self.max_rel, _largest(relative))
        if one.ndim >= 2 and one.shape[-1] > 1:
            self.top1_equal &= bool((one.argmax(-1) == other.argmax(-1)).all())

    @property
    def equal(self) -> bool:
        """Whether the image counts as equal to the model."""
        return self.bit_equal or (self.within and self.top1_equal)

    def as_values(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "bit_equal": self.bit_equal,
            "max_abs": self.max_abs,
            "max_rel": self.max_rel,
            "top1_equal": self.top1_equal,
        }


def _same(wanted: np.ndarray[Any, Any], got: np.ndarray[Any, Any]) -> bool:
    """Equal bit by bit; of NaNs only that they are, for JSON's null has no bits."""
    if wanted.dtype != got.dtype or wanted.dtype.kind not in "fiub":
        return bool(np.array_equal(wanted, got))
    nan = np.isnan(wanted) if wanted.dtype.kind == "f" else np.zeros(wanted.shape, bool)
    if wanted.dtype.kind == "f" and not np.array_equal(nan, np.isnan(got)):
        return False
    return wanted[~nan].tobytes() == got[~nan].tobytes()


def _largest(values: np.ndarray[Any, Any]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else 0.0


def batches(session: Any, arrays: Arrays, count: int) -> list[Arrays]:
    """Up to ``count`` requests of one sample each; of a model with a fixed batch, of that many samples each."""
    size = 1
    for one in session.get_inputs():
        if one.shape and isinstance(one.shape[0], int) and one.shape[0] > 1:
            size = one.shape[0]
    names = [one.name for one in session.get_inputs()]
    samples = len(arrays[names[0]])
    starts = range(0, samples - size + 1, size)
    # Spread over the whole set, so that sorted data is not judged by its first class only.
    chosen = [starts[int(place)] for place in np.linspace(0, len(starts) - 1, min(count, len(starts))).round()]
    return [{name: arrays[name][start : start + size] for name in names} for start in chosen]


def check(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:
    """Compares the running image with ``variant`` in process, on samples of ``evaluate``.

    ``inputs``: ``config``, the layers' blobs ``layer-…`` (lowest first), ``variant``, ``evaluate``.
    ``params``: ``name`` (of the model in the image), ``atol``, ``rtol``, ``samples``, and how it runs: ``builder``,
    ``threads``, ``limits`` (see :func:`workbench.image.runtime.prepared`). Raises StepFailed where they differ.
    """
    session = open_session(inputs["variant"], params["threads"])
    names = [output.name for output in session.get_outputs()]
    with np.load(inputs["evaluate"], allow_pickle=False) as archive:
        arrays = {one.name: archive[one.name] for one in session.get_inputs()}
    requests = batches(session, arrays, int(params["samples"]))
    if not requests:
        raise StepFailed("There are fewer evaluation samples than the model takes at once.", "Give more samples.")
    difference = Difference(float(params["atol"]), float(params["rtol"]))
    emit.progress(0, len(requests), "starting the image")
    with runtime.prepared(inputs, params, emit.scratch) as start, start() as image:
        if image.method == "loader":
            emit.note("No user namespaces here: the image runs by its own loader, not fenced.")
        with Client(image.port, params["name"]) as client:
            for done, request in enumerate(requests):
                emit.progress(done, len(requests), "comparing answers")
                expected = dict(zip(names, session.run(names, request), strict=True))
                difference.compare(done, expected, client.infer(request))
        _note_limits(image, params["limits"], emit)
        method, start_s = image.method, image.start_s
    emit.progress(len(requests), len(requests))
    if not difference.equal:
        raise StepFailed(
            f"The image does not answer as the model does: largest difference {difference.max_abs:.3g} absolute, "
            f"{difference.max_rel:.3g} relative (allowed: atol {difference.atol:g}, rtol {difference.rtol:g}), "
            f"best class {'equal' if difference.top1_equal else 'differs'}; first at {difference.first}.",
            "See whether the image's onnxruntime is the one here, or widen parity: in the recipe.",
        )
    # One start on a busy machine is no figure: it goes to the log.
    sys.stderr.write(f"the image took requests {start_s:.2f} s after its start\n")
    return Outputs(values={"samples": len(requests), **difference.as_values(), "method": method})


def _note_limits(image: Container | EngineContainer, allowed: Mapping[str, Any], emit: Emit) -> None:
    """Says which of the recipe's limits this machine does not hold the image to."""
    here = len(os.sched_getaffinity(0))
    if allowed["cpus"] > here:
        emit.note(f"image.limits.cpus is {allowed['cpus']}, and this machine gives {here}.")
    if allowed["memory"] is not None and not image.memory_held:
        emit.note(
            f"image.limits.memory ({format_size(allowed['memory'])}) is not enforced here: no cgroup is delegated to "
            f"this user. The image took {format_size(peak_memory(image.pid))} at most."
        )
