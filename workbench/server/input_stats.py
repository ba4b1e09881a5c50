"""Statistics of what models are asked and answer, for drift checks: ``GET /v2/models/NAME/versions/V/drift``.

For each feature of an input, and each score of an output: how many values, missing (NaN) and infinite ones, least,
greatest, mean, standard deviation, and a histogram. For outputs that are labels: how often each was answered. They
are computed by a thread (of each worker) that takes at most 2% of one processor's time and looks at most at 1024
requests each quarter of a second; where more come it sees a uniform sample of them, and ``rows_seen`` of ``rows`` says
how large it was. Of a request nothing is kept but its part in these numbers, among which the least and the greatest
are somebody's, and labels are as they were answered.

Bounds of the histograms may be given, with a reference to compare with (workbench.server.drift_reference). Those of
other features are the deciles of the first 256 rows; of several workers, of the first that one of them has seen.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from workbench.server.background import Background
from workbench.server.drift_reference import CURE, REFERENCE, TensorReference, check_features, read_reference
from workbench.server.errors import ServerError
from workbench.server.feature_stats import Bounds, FeatureNumbers, Features, LabelNumbers, Labels
from workbench.server.tensors import Array, TensorSpec

MAX_FEATURES = 1024
"""Most elements of a row that are followed: pixels are not features."""

SHARE = 0.02
"""Most of one processor's time that the thread takes."""

_PAUSE = 0.25
_HELD_REQUESTS = 1024
_PART_BYTES = 64 << 10
"""Most bytes of one tensor of one request that are looked at; of a longer one every so many rows."""
_HELD_BYTES = 16 << 20
_LABEL = 200
"""Most characters of a label."""


class Numbers(msgspec.Struct):
    """What was counted of one version of a model, by tensor: what one worker tells others."""

    rows: int
    rows_seen: int
    inputs: dict[str, FeatureNumbers | LabelNumbers]
    outputs: dict[str, FeatureNumbers | LabelNumbers]


@dataclass(slots=True)
class Followed:
    """A tensor that is followed."""

    name: str
    columns: int
    by_row: bool
    """Whether its first axis counts rows; else all of it is one."""
    most: int
    """Rows of a request that are looked at; of more every so many."""
    numbers: Features | Labels

    def cut(self, array: Array) -> Array:
        """The part of a request's tensor that is looked at: a copy, for the whole may be large."""
        if self.by_row and len(array) > self.most:
            array = array[:: -(-len(array) // self.most)]
        if array.dtype.hasobject:
            return np.array([str(each)[:_LABEL] for each in array.ravel()], object)
        return array.copy()


class InputStatistics:
    """The statistics of one version of a model."""

    def __init__(
        self,
        inputs: Mapping[str, TensorSpec],
        outputs: Mapping[str, TensorSpec],
        folder: Path,
        work: Callable[[InputStatistics], None],
    ) -> None:
        """Follow ``inputs`` and ``outputs``. ``work`` has :meth:`absorb` called soon, by a thread.

        ServerError where the reference in ``folder`` is not usable.
        """
        path = folder / REFERENCE
        reference = read_reference(path)
        self._left_out = {
            **{name: why for name, spec in inputs.items() if (why := _why_not(spec, strings=False))},
            **{name: why for name, spec in outputs.items() if (why := _why_not(spec, strings=True))},
        }
        self._inputs = [
            _followed(spec, reference.inputs.get(name), path)
            for name, spec in inputs.items()
            if name not in self._left_out
        ]
        self._outputs = {
            name: _followed(spec, reference.outputs.get(name), path, labels=spec.datatype.dtype.kind != "f")
            for name, spec in outputs.items()
            if name not in self._left_out
        }
        for name in {*reference.inputs, *reference.outputs} - {*inputs, *outputs}:
            raise ServerError(f"{path} tells of {name!r}, which the model does not have.", CURE)
        self._rows_of = next((each.name for each in self._inputs if each.by_row), None)
        self._work = work
        self._lock = threading.Lock()
        self._absorbing = threading.Lock()
        self._held: list[Part] = []
        self._held_bytes = 0
        self._offered = 0
        self._rows = 0
        self._rows_seen = 0

    def add(self, feed: Mapping[str, Array], names: Sequence[str], results: Sequence[Array]) -> None:
        """Has a request and its answer looked at, if it gets into the sample. For the event loop's thread."""
        rows = 1 if self._rows_of is None else len(feed[self._rows_of])
        with self._lock:
            self._rows += rows
            self._offered += 1
            # Every request of a period has the same chance to be held at its end (reservoir sampling, Vitter's R).
            at = len(self._held)
            if at >= _HELD_REQUESTS or self._held_bytes >= _HELD_BYTES:
                at = int(random.random() * self._offered)  # noqa: S311 - a sample, no secret
                if at >= len(self._held):
                    return
            part = self._part(feed, names, results, rows)
            if at == len(self._held):
                self._held.append(part)
            elif self._held_bytes - self._held[at].size + part.size > _HELD_BYTES:
                return
            else:
                self._held_bytes -= self._held[at].size
                self._held[at] = part
            self._held_bytes += part.size
            if self._offered == 1:
                self._work(self)

    def _part(self, feed: Mapping[str, Array], names: Sequence[str], results: Sequence[Array], rows: int) -> Part:
        taken = [(each, each.cut(feed[each.name])) for each in self._inputs]
        for name, result in zip(names, results, strict=True):
            if (followed := self._outputs.get(name)) is not None:
                taken.append((followed, followed.cut(result)))
        seen = next((len(array) for each, array in taken if each.name == self._rows_of), rows)
        return Part(seen, sum([array.nbytes for _, array in taken]), taken)

    def absorb(self) -> None:
        """Takes what is held into the numbers."""
        with self._absorbing:
            with self._lock:
                held, self._held, self._held_bytes, self._offered = self._held, [], 0, 0
            # By identity: an output may be an input, name and all.
            arrays: dict[int, list[Array]] = {}
            for part in held:
                self._rows_seen += part.rows
                for followed, array in part.taken:
                    arrays.setdefault(id(followed), []).append(array.reshape(-1, followed.columns))
            for followed in (*self._inputs, *self._outputs.values()):
                if id(followed) in arrays:
                    followed.numbers.add(np.concatenate(arrays[id(followed)]))

    def agree_by(self, agree: Callable[[str, int, Bounds | None], Bounds | None]) -> None:
        """Has bounds settled with other workers: ``agree`` gets the tensor and its columns before what :data:`Agree`
        does. To be called before there is anything to count."""
        for each in (*self._inputs, *self._outputs.values()):
            if isinstance(each.numbers, Features):
                each.numbers.agree = partial(agree, each.name, each.columns)

    def told(self) -> Numbers:
        """All that is known, including what was held until now, for others to join."""
        self.absorb()
        with self._absorbing:
            for each in (*self._inputs, *self._outputs.values()):
                each.numbers.settle()
            return Numbers(
                self._rows,
                self._rows_seen,
                {each.name: each.numbers.told() for each in self._inputs},
                {each.name: each.numbers.told() for each in self._outputs.values()},
            )

    def join(self, other: Numbers) -> None:
        """Adds what another has counted."""
        with self._absorbing:
            self._rows += other.rows
            self._rows_seen += other.rows_seen
            for followed, numbers in (
                *((each, other.inputs.get(each.name)) for each in self._inputs),
                *((each, other.outputs.get(each.name)) for each in self._outputs.values()),
            ):
                if numbers is not None:
                    followed.numbers.join(numbers)

    def report(self, others: Sequence[Numbers] = ()) -> dict[str, Any]:
        """All that is known, including what was held until now, and what ``others`` know."""
        self.absorb()
        with self._absorbing:
            return {
                "rows": self._rows + sum(each.rows for each in others),
                "rows_seen": self._rows_seen + sum(each.rows_seen for each in others),
                "inputs": {each.name: _sum(each, [other.inputs for other in others]).report() for each in self._inputs},
                "outputs": {
                    each.name: _sum(each, [other.outputs for other in others]).report()
                    for each in self._outputs.values()
                },
                "left_out": self._left_out,
            }


@dataclass(slots=True)
class Part:
    """What is held of one request: rows, bytes, and the followed tensors' arrays."""

    rows: int
    size: int
    taken: list[tuple[Followed, Array]]


@contextlib.contextmanager
def absorbing() -> Iterator[Callable[[InputStatistics], None]]:
    """What has the statistics given to it absorbed, soon, by one thread for all."""

    def absorb(found: list[InputStatistics]) -> None:
        for each in found:
            each.absorb()

    background = Background("input-statistics", absorb, pause=_PAUSE, share=SHARE)
    try:
        yield background.put
    finally:
        background.close()


def _sum(followed: Followed, others: Sequence[Mapping[str, FeatureNumbers | LabelNumbers]]) -> Features | Labels:
    """The statistics of a tensor with those that ``others`` tell of it."""
    numbers = followed.numbers
    if not others:
        return numbers
    numbers.settle()
    return numbers.joined([each[followed.name] for each in others if followed.name in each])


def _why_not(spec: TensorSpec, *, strings: bool) -> str:
    """Why a tensor is not followed; empty where it is."""
    row = _row(spec)
    if spec.datatype.element is str and not strings:
        return "strings are not followed"
    if -1 in row:
        return "its rows have no fixed number of elements"
    if not 0 < prod(row) <= MAX_FEATURES:
        return f"its rows have {prod(row)} elements, and 1 to {MAX_FEATURES} are followed"
    return ""


def _followed(spec: TensorSpec, given: TensorReference | None, path: Path, *, labels: bool = False) -> Followed:
    columns = prod(_row(spec))
    most = max(1, _PART_BYTES // (columns * max(8, spec.datatype.dtype.itemsize)))
    given = given or TensorReference()
    numbers: Features | Labels
    if labels:
        numbers = Labels(given.labels)
    else:
        numbers = Features(columns, given.features and check_features(given.features, columns, spec.name, path))
    return Followed(spec.name, columns, _by_row(spec), most, numbers)


def _by_row(spec: TensorSpec) -> bool:
    """Whether the first axis counts rows; a tensor of a fixed shape such as [30] is one row."""
    return spec.shape[:1] in ((-1,), (1,))


def _row(spec: TensorSpec) -> tuple[int, ...]:
    return spec.shape[1:] if _by_row(spec) else spec.shape
