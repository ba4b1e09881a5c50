"""One loaded model: its session, its signature in protocol terms, how quick it is and whether requests may join."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbench.server.datatypes import BY_ONNX_TYPE
from workbench.server.devices import Device
from workbench.server.errors import RequestError, ServerError
from workbench.server.session import open_session
from workbench.server.tensors import Array, TensorSpec

SLOW_NS = 2_000_000
"""A run longer than this leaves the event loop. The hop to a thread and back costs about 60 µs: under 3% of it."""

PLATFORM = "onnxruntime_onnx"

_PROBE_SECONDS = 0.1
_PROBE_BYTES = 64 << 20


class Model:
    """A model file, loaded. ``inputs`` and ``outputs`` are its signature by name, in the model's order."""

    def __init__(self, name: str, version: str, path: Path, threads: int, device: Device = Device()) -> None:  # noqa: B008
        """Load ``path`` with ``threads`` intra-op threads on ``device``; ServerError where onnxruntime refuses it."""
        self.name = name
        self.version = version
        try:
            self._session = open_session(path, threads, device.providers)
        except Exception as error:  # onnxruntime's errors have no common base below Exception
            raise ServerError(
                f"The model {path} cannot be loaded: {error}", "Check it with `workbench inspect`."
            ) from None
        self.runs_on = device.check(self._session.get_providers())
        """Which execution provider it runs on, and why."""
        self.inputs = _specs(self._session.get_inputs(), path)
        self.outputs = _specs(self._session.get_outputs(), path)
        self._only_input = next(iter(self.inputs)) if len(self.inputs) == 1 else ""
        self._fixed = all(-1 not in spec.shape[1:] for spec in self.inputs.values())
        self.slow = False
        """Whether the last run took longer than :data:`SLOW_NS`."""
        self.joins = 1
        """Rows of a joined run; 1 where requests cannot join, or gain nothing by it."""
        self.row_seconds = 0.0
        """What a row of such a run costs."""
        self.max_batch = 0
        """Most rows that requests are joined to, whether that gains something or not; 0 where they cannot join."""

    def metadata(self, versions: Sequence[str]) -> dict[str, Any]:
        """The protocol's model metadata."""
        return {
            "name": self.name,
            "versions": list(versions),
            "platform": PLATFORM,
            "inputs": [spec.metadata() for spec in self.inputs.values()],
            "outputs": [spec.metadata() for spec in self.outputs.values()],
        }

    def warm_up(self, rows: int = 1, runs: int = 3) -> str:
        """Run on zeros (dynamic axes 1) so that the first request finds everything allocated, and find out how many
        rows, of at most ``rows``, one run should join.

        Returns what went wrong, or an empty string. A model that refuses zeros is no error: it is held for slow until
        a real request has been timed.
        """
        feed = {spec.name: _zeros(spec) for spec in self.inputs.values()}
        try:
            alone = min(self._seconds(feed) for _ in range(runs))
        except RequestError as error:
            self.slow = True
            return error.message
        self.row_seconds = alone
        self.slow = alone * 1e9 > SLOW_NS
        if rows > 1 and self.has_rows():
            self.max_batch = rows
            self.joins, self.row_seconds = self._best_rows(rows, alone)
        return ""

    def rows_and_key(self, feed: Mapping[str, Array], outputs: Sequence[str]) -> tuple[int, tuple[object, ...]]:
        """How many rows a request has, and what it has in common with those that it may join."""
        if self.joins == 1:
            return 1, ()
        if self._only_input and self._fixed:
            return len(feed[self._only_input]), tuple(outputs)
        arrays = [feed[name] for name in self.inputs]
        rows = len(arrays[0])
        if any(len(array) != rows for array in arrays):
            return rows, (object(),)  # the model will say what it thinks of that; nobody joins
        return rows, (*outputs, *[array.shape[1:] for array in arrays])

    def has_rows(self) -> bool:
        """Whether the first axis of everything counts rows that do not touch each other.

        That an axis is dynamic does not say it: it may be a sequence. So two rows are computed alone and together.
        """
        if not all(spec.shape[:1] == (-1,) for spec in (*self.inputs.values(), *self.outputs.values())):
            return False
        one, other = ({spec.name: _example(spec, seed) for spec in self.inputs.values()} for seed in (1, 2))
        both = {name: np.concatenate([one[name], other[name]]) for name in one}
        names = list(self.outputs)
        try:
            alone = zip(self.run(one, names), self.run(other, names), strict=True)
            together = self.run(both, names)
        except RequestError:
            return False
        return all(
            len(first) == len(second) == 1 and _alike(np.concatenate([first, second]), joined)
            for (first, second), joined in zip(alone, together, strict=True)
        )

    def _best_rows(self, most: int, alone: float) -> tuple[int, float]:
        """The fewest rows that come within a tenth of the best throughput, and the seconds of a row then.

        Fewest, for everyone in a run waits for all of it: where rows cost the same alone, nobody should.
        """
        costs, rows = {1: alone}, 2
        weight = sum(_zeros(spec).nbytes for spec in self.inputs.values())
        gains = True
        while gains and rows <= most and costs[rows // 2] * rows < _PROBE_SECONDS and weight * rows < _PROBE_BYTES:
            feed = {spec.name: np.repeat(_zeros(spec), rows, axis=0) for spec in self.inputs.values()}
            costs[rows] = min(self._seconds(feed) for _ in range(3)) / rows
            # Where twice the rows did not help twice, more of them only take time and memory, which is kept.
            gains = costs[rows] < 0.95 * costs.get(rows // 4, math.inf)
            rows *= 2
        best = min(costs.values())
        return next((rows, cost) for rows, cost in costs.items() if cost <= best / 0.9)

    def _seconds(self, feed: Mapping[str, Array]) -> float:
        start = time.perf_counter()
        self.run(feed, list(self.outputs))
        return time.perf_counter() - start

    def run(self, feed: Mapping[str, Array], outputs: list[str]) -> list[Array]:
        """The arrays of ``outputs`` for ``feed``. RequestError 400 where the model refuses these values.

        Shapes and datatypes have been checked before; what is left (an index out of range, axes that do not match
        each other) only the model's own operators find out.
        """
        start = time.perf_counter_ns()
        try:
            results: list[Array] = self._session.run(outputs, feed)
        except Exception as error:  # onnxruntime's errors have no common base below Exception
            raise RequestError(400, f"model {self.name!r} does not take these values: {error}") from None
        self.slow = time.perf_counter_ns() - start > SLOW_NS
        return results


def _specs(arguments: Sequence[Any], path: Path) -> dict[str, TensorSpec]:
    specs = {}
    for argument in arguments:
        datatype = BY_ONNX_TYPE.get(argument.type)
        if datatype is None:
            raise ServerError(
                f"The model {path} cannot be served: {argument.name!r} is a {argument.type}.",
                "The protocol knows tensors of bool, integers, float16, float, double and string.",
            )
        shape = tuple(extent if isinstance(extent, int) else -1 for extent in argument.shape or ())
        specs[argument.name] = TensorSpec(argument.name, datatype, shape)
    return specs


def _zeros(spec: TensorSpec) -> Array:
    shape = [1 if extent < 0 else extent for extent in spec.shape]
    if spec.datatype.element is str:
        return np.full(shape, "", dtype=object)
    return np.zeros(shape, spec.datatype.dtype)


def _example(spec: TensorSpec, seed: int) -> Array:
    """One row of what a model may be asked: numbers about zero, 0 and 1 where only whole ones go.

    Not of numpy's generators: loading them takes 10 ms and 7 MB.
    """
    zeros = _zeros(spec)
    waves = np.sin(np.arange(1, zeros.size + 1, dtype=np.float64) * (seed + 0.7)).reshape(zeros.shape)
    if zeros.dtype.kind == "f":
        return np.asarray(1.5 * waves, zeros.dtype)
    ones = (waves > 0).astype(np.int64)
    return np.asarray(ones.astype(str) if spec.datatype.element is str else ones, zeros.dtype)


def _alike(one: Array, other: Array) -> bool:
    """Whether two arrays differ by rounding at most: kernels sum in another order for other numbers of rows."""
    if one.shape != other.shape or one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    scale = float(np.max(np.abs(one), initial=0.0, where=np.isfinite(one)))
    return bool(np.allclose(one, other, rtol=1e-3, atol=1e-4 * scale, equal_nan=True))
