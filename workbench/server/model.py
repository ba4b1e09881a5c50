"""One loaded model: its session, its signature in protocol terms, and whether it is quick enough for the event loop."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbench.server.datatypes import BY_ONNX_TYPE
from workbench.server.errors import RequestError, ServerError
from workbench.server.protocol import Array, TensorSpec
from workbench.server.session import open_session

SLOW_NS = 2_000_000
"""A run longer than this leaves the event loop. The hop to a thread and back costs about 60 µs: under 3% of it."""

PLATFORM = "onnxruntime_onnx"


class Model:
    """A model file, loaded. ``inputs`` and ``outputs`` are its signature by name, in the model's order."""

    def __init__(self, name: str, version: str, path: Path, threads: int) -> None:
        """Load ``path`` with ``threads`` intra-op threads; ServerError where onnxruntime refuses it."""
        self.name = name
        self.version = version
        try:
            self._session = open_session(path, threads)
        except Exception as error:  # onnxruntime's errors have no common base below Exception
            raise ServerError(
                f"The model {path} cannot be loaded: {error}", "Check it with `workbench inspect`."
            ) from None
        self.inputs = _specs(self._session.get_inputs(), path)
        self.outputs = _specs(self._session.get_outputs(), path)
        self.slow = False

    def metadata(self, versions: Sequence[str]) -> dict[str, Any]:
        """The protocol's model metadata."""
        return {
            "name": self.name,
            "versions": list(versions),
            "platform": PLATFORM,
            "inputs": [spec.metadata() for spec in self.inputs.values()],
            "outputs": [spec.metadata() for spec in self.outputs.values()],
        }

    def warm_up(self, runs: int = 3) -> str:
        """Run on zeros (dynamic axes 1) so that the first request finds everything allocated.

        Returns what went wrong, or an empty string. A model that refuses zeros is no error: it is held for slow until
        a real request has been timed.
        """
        feed = {spec.name: _zeros(spec) for spec in self.inputs.values()}
        try:
            for _ in range(runs):
                self.run(feed, list(self.outputs))
        except RequestError as error:
            self.slow = True
            return error.message
        return ""

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
