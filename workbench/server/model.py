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
from workbench.server.reader import Reader
from workbench.server.session import QUIET, open_session
from workbench.server.tensors import Array, TensorSpec

SLOW_NS = 2_000_000
"""A run longer than this leaves the event loop. The hop to a thread and back costs about 60 µs: under 3% of it."""

PLATFORM = "onnxruntime_onnx"

Feed = Mapping[str, Array]

_LONG = SLOW_NS / 1e9
_BRIEF = 0.01
_RUNS = 3
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
        self.reader = Reader(self.inputs, self.outputs)
        """Reads requests over HTTP."""
        self.slow = False
        """Whether the last run took longer than :data:`SLOW_NS`."""
        self.joins = 1
        """Rows of a joined run; 1 where requests cannot join, or gain nothing by it."""
        self.row_seconds = 0.0
        """What a row of such a run costs."""
        self.undecided = False
        """Whether it is still to be found out (:meth:`decide`) how many that are."""
        self.most_joins = 1
        """More than :attr:`joins` where it is not known yet whether more rows would gain something."""
        self._most = 1
        self._costs: dict[int, float] = {}
        """Seconds of a row by the rows of a run."""
        self._lately: list[float] = []
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
        rows, of at most ``rows``, one run should join; of a slow model that is left :attr:`undecided`.

        Returns what went wrong, or an empty string. A model that refuses zeros is no error: it is held for slow until
        a real request has been timed.
        """
        feed = {spec.name: _zeros(spec) for spec in self.inputs.values()}
        try:
            alone = self._seconds(feed)
            if alone < _BRIEF:  # the first run is the slowest
                alone = min(self._seconds(feed) for _ in range(runs - 1))
        except RequestError as error:
            self.slow = True
            return error.message
        self.row_seconds = alone
        self.slow = alone > _LONG
        weight = sum(array.nbytes for array in feed.values())
        self._most = max(1, min(rows, _PROBE_BYTES // max(weight, 1)))
        self.undecided = rows > 1 and self._axes_are_open()
        if self.undecided and not self.slow:
            self.decide()
        return ""

    def decide(self) -> None:
        """Find out how many rows one run should join. Of a slow model, whose start nobody should wait for, only whether
        more than one: what more cost is seen when they are there (:meth:`ran`)."""
        two = self._two_rows()
        if two is not None:
            self.max_batch = self.most_joins = self._most
            self._costs = {1: min(self.row_seconds, two[0])}
            if self._costs[1] > _LONG:
                self._go_on(2, two[1] / 2)
            else:
                self._probe()
        self.undecided = False

    def ran(self, rows: int, seconds: float) -> None:
        """Takes note of a run: a slow model joins twice the rows as long as that makes a row cheaper."""
        if self.joins == self.most_joins or not self.joins * 3 <= rows * 4 <= self.joins * 4:
            return
        self._lately.append(seconds / rows)
        if len(self._lately) == _RUNS:
            self._go_on(self.joins, sorted(self._lately)[_RUNS // 2])

    def _probe(self) -> None:
        """Finds out how many rows to join."""
        rows = 1
        while rows < self.most_joins:
            rows *= 2
            if self._costs[rows // 2] * rows > _PROBE_SECONDS:
                self._settle()
                return
            feed = {spec.name: np.repeat(_zeros(spec), rows, axis=0) for spec in self.inputs.values()}
            try:
                seconds = min(self._seconds(feed) for _ in range(_RUNS))
            except RequestError:  # so many are too many, for memory or for the model
                self.max_batch = rows // 2
                self._settle()
                return
            self._go_on(rows, seconds / rows)

    def _go_on(self, rows: int, cost: float) -> None:
        """Notes what a row costs in a run of ``rows``, and joins twice as many next; none more where twice the rows did
        not help twice: more of them only take time and memory, which is kept."""
        self._costs[rows] = cost
        self._lately = []
        gains = cost < 0.95 * self._costs.get(rows // 4, math.inf)
        if gains and rows * 2 <= self.most_joins:
            self.joins = rows * 2
        else:
            self._settle()

    def _settle(self) -> None:
        """Joins the fewest rows that come within a tenth of the best throughput.

        Fewest, for everyone in a run waits for all of it: where rows cost the same alone, nobody should.
        """
        best = min(self._costs.values())
        self.joins, self.row_seconds = next((rows, cost) for rows, cost in self._costs.items() if cost <= best / 0.9)
        self.most_joins = self.joins

    def rows_and_key(self, feed: Mapping[str, Array], outputs: Sequence[str]) -> tuple[int, tuple[object, ...]]:
        """How many rows a request has, and what it has in common with those that it may join."""
        if not feed:
            return 1, ()
        if self.joins == 1 and not self.undecided:
            array = feed[next(iter(self.inputs))]
            return len(array) or 1 if array.ndim else 1, ()
        if self._only_input and self._fixed:
            return len(feed[self._only_input]), tuple(outputs)
        arrays = [feed[name] for name in self.inputs]
        rows = len(arrays[0])
        if any(len(array) != rows for array in arrays):
            return rows, (object(),)  # the model will say what it thinks of that; nobody joins
        return rows, (*outputs, *[array.shape[1:] for array in arrays])

    def has_rows(self) -> bool:
        """Whether the first axis of everything counts rows that do not touch each other.

        That an axis is dynamic does not say it: it may be a sequence. So rows are computed alone and together.
        """
        return self._two_rows() is not None

    def _axes_are_open(self) -> bool:
        specs = (*self.inputs.values(), *self.outputs.values())
        return bool(self.inputs) and all(spec.shape[:1] == (-1,) for spec in specs)

    def _two_rows(self) -> tuple[float, float] | None:
        """Seconds of a run of one row and of two; None where the first axis does not count rows."""
        if not self._axes_are_open():
            return None
        one, other = ({spec.name: _example(spec, seed) for spec in self.inputs.values()} for seed in (1, 2))
        try:
            found = self._apart(one, other)
            # The first axes of two inputs may be of different things, such as queries and what is searched through. To
            # find what suits best among all rows looks like rows by themselves where each has its best beside it. So
            # each two inputs meet in both ways.
            for bit in range((len(self.inputs) - 1).bit_length()):
                if found is None:
                    break
                crossed = [name for at, name in enumerate(self.inputs) if at >> bit & 1]
                mixed = [one | {name: other[name] for name in crossed}, other | {name: one[name] for name in crossed}]
                found = found if self._apart(*mixed) else None
        except RequestError:
            return None
        return found

    def _apart(self, one: Feed, other: Feed) -> tuple[float, float] | None:
        """Seconds of a run of one row and of two, where rows do not touch each other."""
        first, _ = self._timed(one)
        second, alone = self._timed(other)
        pair, joined = self._timed({name: np.concatenate([one[name], other[name]]) for name in one})
        # One of them again: two may be in order already where rows are sorted, and add nothing to each other.
        three, _ = self._timed({name: np.concatenate([one[name], other[name], one[name]]) for name in one})
        for each, next_, two, all_ in zip(first, second, pair, three, strict=True):
            if not (
                len(each) == len(next_) == 1
                and _alike(np.concatenate([each, next_]), two)
                and _alike(np.concatenate([each, next_, each]), all_)
            ):
                return None
        return alone, joined

    def _seconds(self, feed: Mapping[str, Array]) -> float:
        return self._timed(feed)[1]

    def _timed(self, feed: Mapping[str, Array]) -> tuple[list[Array], float]:
        start = time.perf_counter()
        results = self.run(feed, list(self.outputs))
        return results, time.perf_counter() - start

    def run(self, feed: Mapping[str, Array], outputs: list[str]) -> list[Array]:
        """The arrays of ``outputs`` for ``feed``. RequestError 400 where the model refuses these values.

        Shapes and datatypes have been checked before; what is left (an index out of range, axes that do not match
        each other) only the model's own operators find out.
        """
        start = time.perf_counter_ns()
        try:
            results: list[Array] = self._session.run(outputs, feed, QUIET)
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
    """One row of what a model may be asked: numbers about zero, 0 and 1 where only whole ones go, of which no element
    is the same with the next ``seed``.

    Not of numpy's generators: loading them takes 10 ms and 7 MB.
    """
    zeros = _zeros(spec)
    if zeros.dtype.kind == "f":
        waves = np.sin(np.arange(1, zeros.size + 1, dtype=np.float64) * (seed + 0.7)).reshape(zeros.shape)
        return np.asarray(1.5 * waves, zeros.dtype)
    ones = (np.arange(zeros.size, dtype=np.int64) + seed).reshape(zeros.shape) % 2
    return np.asarray(ones.astype(str) if spec.datatype.element is str else ones, zeros.dtype)


def _alike(one: Array, other: Array) -> bool:
    """Whether two arrays differ by rounding at most: kernels sum in another order for other numbers of rows."""
    if one.shape != other.shape or one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    scale = float(np.max(np.abs(one), initial=0.0, where=np.isfinite(one)))
    return bool(np.allclose(one, other, rtol=1e-3, atol=1e-4 * scale, equal_nan=True))
