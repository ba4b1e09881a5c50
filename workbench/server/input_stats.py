"""Statistics of what models are asked and answer, for drift checks: ``GET /v2/models/NAME/versions/V/drift``.

For each feature of an input, and each score of an output: how many values, missing (NaN) and infinite ones, least,
greatest, mean, standard deviation, and a histogram. For outputs that are labels: how often each was answered. They
are computed by a thread (of each worker) that takes at most 2% of one processor's time and looks at most at 1024
requests each quarter of a second; where more come it sees a uniform sample of them, and ``rows_seen`` of ``rows`` says
how large it was. Of a request nothing is kept but its part in these numbers, among which the least and the greatest
are somebody's, and labels are as they were answered.

The histograms of a version compare with others only over the same bounds, so they can be given, in
``<name>/<version>/reference.json``: in the form in which the answer has them, so that the answer of a server that was
asked the training data is such a file. ``counts`` may be left out; where they are there, the answer has the
population stability index of each feature against them (``psi``; below 0.1 is commonly called stable, above 0.25
changed), and so of labels::

    {"inputs": {"x": {"features": [{"name": "age", "bounds": [18, 30, 50], "counts": [0, 120, 300, 80]}, ...]}},
     "outputs": {"probabilities": {"features": [...]}, "label": {"labels": {"yes": 80, "no": 420}}}}

There is one more count than bounds: values up to the first bound, up to the second, ..., beyond the last. Without a
file the bounds are the deciles of the first 256 rows; of several workers, of the first that one of them has seen.
"""

from __future__ import annotations

import contextlib
import math
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from workbench.server.background import Background
from workbench.server.errors import ServerError
from workbench.server.tensors import Array, TensorSpec

REFERENCE = "reference.json"

MAX_FEATURES = 1024
"""Most elements of a row that are followed: pixels are not features."""

MAX_LABELS = 1000
"""Most different labels that are counted apart."""

SHARE = 0.02
"""Most of one processor's time that the thread takes."""

_PAUSE = 0.25
_HELD_REQUESTS = 1024
_PART_BYTES = 64 << 10
"""Most bytes of one tensor of one request that are looked at; of a longer one every so many rows."""
_HELD_BYTES = 16 << 20
_LABEL = 200
"""Most characters of a label."""
_PIECE = 1 << 17
"""Elements that are worked on at once: as much memory as that takes, for as long."""
_FIRST_ROWS = 256
_DECILES = np.linspace(0.1, 0.9, 9)
_CURE = "The documentation of workbench.server.input_stats has the form; without the file there is no comparison."
_LEAST = 1e-4
"""What a bin without values counts as in the stability index, whose logarithm has no value for none."""


class FeatureReference(msgspec.Struct):
    """What a feature is compared with. ``bounds`` of its histogram's bins; ``counts`` of the reference in them."""

    name: str = ""
    bounds: list[float] | None = None
    counts: list[float] | None = None


class TensorReference(msgspec.Struct):
    """Of a tensor: a reference for each feature, or of labels how often each was there."""

    features: list[FeatureReference] | None = None
    labels: dict[str, int] | None = None


class Reference(msgspec.Struct):
    """What ``reference.json`` has that is used; the rest of it is for others."""

    inputs: dict[str, TensorReference] = {}
    outputs: dict[str, TensorReference] = {}


class FeatureNumbers(msgspec.Struct, tag="features"):
    """What :class:`Features` has counted, by column. ``beyond``: of the values in the histogram, of which there are
    ``binned``, how many lay beyond each bound."""

    values: list[int]
    missing: list[int]
    infinite: list[int]
    least: list[float]
    greatest: list[float]
    mean: list[float]
    squares: list[float]
    bounds: list[list[float]] | None = None
    binned: list[int] = []
    beyond: list[list[int]] = []


class LabelNumbers(msgspec.Struct, tag="labels"):
    """What :class:`Labels` has counted."""

    counts: dict[str, int]
    others: int


class Numbers(msgspec.Struct):
    """What was counted of one version of a model, by tensor: what one worker tells others."""

    rows: int
    rows_seen: int
    inputs: dict[str, FeatureNumbers | LabelNumbers]
    outputs: dict[str, FeatureNumbers | LabelNumbers]


Bounds = list[list[float]]
"""Of the histogram of each column."""

Agree = Callable[[Bounds | None], Bounds | None]
"""Gets the bounds that one would take, None where it does not know yet; returns those that hold, None for none yet."""


class Features:
    """Statistics of each column of rows of numbers."""

    agree: Agree = staticmethod(lambda bounds: bounds)
    """How bounds are settled that nobody has given; for a process that is alone its own hold."""

    def __init__(self, columns: int, reference: Sequence[FeatureReference] | None = None) -> None:
        self._columns = columns
        self._reference = reference
        self._first: list[Array] = []
        self._bounds: list[Array] | None = None
        self.values = np.zeros(columns, np.int64)
        self.missing = np.zeros(columns, np.int64)
        self.infinite = np.zeros(columns, np.int64)
        self.least = np.full(columns, np.inf)
        self.greatest = np.full(columns, -np.inf)
        self.mean = np.zeros(columns)
        self._squares = np.zeros(columns)
        """Sum of squared distances from the mean."""
        self._given = [None if each.bounds is None else np.array(each.bounds, float) for each in reference or ()]
        given = [each for each in self._given if each is not None]
        if len(given) == columns:
            self._set_bounds(given)

    def add(self, rows: Array) -> None:
        """Takes rows (n, columns) in."""
        step = max(1, _PIECE // self._columns)
        # The square of a number beyond 1e154 is infinite, and JSON has null for it.
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, len(rows), step):
                self._add(rows[start : start + step].astype(float))

    def _add(self, rows: Array) -> None:
        missing = np.isnan(rows)
        finite = np.isfinite(rows)
        count = finite.sum(axis=0)
        self.missing += missing.sum(axis=0)
        self.infinite += len(rows) - missing.sum(axis=0) - count
        self.least = np.minimum(self.least, np.min(rows, axis=0, where=finite, initial=np.inf))
        self.greatest = np.maximum(self.greatest, np.max(rows, axis=0, where=finite, initial=-np.inf))
        # Means and squares of two parts make those of both (Chan, Golub, LeVeque 1979): no sum grows beyond use.
        mean = np.sum(rows, axis=0, where=finite) / np.maximum(count, 1)
        self._join_moments(count, mean, np.sum((rows - mean) ** 2, axis=0, where=finite))
        if self._bounds is None:
            self._first.append(rows)
            self.settle()
        else:
            self._count(rows)

    def _join_moments(self, count: Array, mean: Array, squares: Array) -> None:
        both = self.values + count
        apart = mean - self.mean
        part = count / np.maximum(both, 1)
        self._squares += squares + apart**2 * self.values * part
        self.mean += apart * part
        self.values = both

    def settle(self) -> None:
        """Where there are no bounds yet: sets those that are agreed on, and counts the rows that waited for them."""
        if self._bounds is not None:
            return
        own = None
        if sum(map(len, self._first)) >= _FIRST_ROWS:
            given = self._given or [None] * self._columns
            columns = np.concatenate(self._first).T
            own = [
                (_deciles(column) if each is None else each).tolist()
                for each, column in zip(given, columns, strict=True)
            ]
        if (bounds := self.agree(own)) is not None:
            self._set_bounds([np.array(each, float) for each in bounds])
            for rows in self._first:
                self._count(rows)
            self._first.clear()

    def _set_bounds(self, bounds: list[Array]) -> None:
        self._bounds = bounds
        most = max(map(len, bounds), default=0)
        # All features at once, one bound after the other; those that a feature lacks are beyond all values.
        self._table = np.full((most, self._columns), np.inf)
        for column, each in enumerate(bounds):
            self._table[: len(each), column] = each
        self._beyond = np.zeros((most, self._columns), np.int64)
        self._binned = np.zeros(self._columns, np.int64)

    def _count(self, rows: Array) -> None:
        self._binned += len(rows) - np.isnan(rows).sum(axis=0)
        for bound, beyond in zip(self._table, self._beyond, strict=True):
            beyond += (rows > bound).sum(axis=0)

    def told(self) -> FeatureNumbers:
        """All that was counted, but for the rows that wait for bounds: they are not in the histogram yet."""
        found = FeatureNumbers(
            values=self.values.tolist(),
            missing=self.missing.tolist(),
            infinite=self.infinite.tolist(),
            least=self.least.tolist(),
            greatest=self.greatest.tolist(),
            mean=self.mean.tolist(),
            squares=self._squares.tolist(),
        )
        if self._bounds is not None:
            found.bounds = [each.tolist() for each in self._bounds]
            found.binned, found.beyond = self._binned.tolist(), self._beyond.tolist()
        return found

    def join(self, other: FeatureNumbers | LabelNumbers) -> None:
        """Adds what another has counted: its histogram where that has the same bounds, nothing where it is of other
        columns."""
        if not isinstance(other, FeatureNumbers) or len(other.values) != self._columns:
            return
        with np.errstate(over="ignore", invalid="ignore"):
            self._join_moments(np.array(other.values), np.array(other.mean), np.array(other.squares))
        self.missing += np.array(other.missing)
        self.infinite += np.array(other.infinite)
        self.least = np.minimum(self.least, other.least)
        self.greatest = np.maximum(self.greatest, other.greatest)
        if other.bounds is None:
            return
        if self._bounds is None and not self._first:
            self._set_bounds([np.array(each, float) for each in other.bounds])
        if self._bounds is not None and [each.tolist() for each in self._bounds] == other.bounds:
            self._binned += np.array(other.binned)
            self._beyond += np.array(other.beyond, np.int64).reshape(self._beyond.shape)

    def joined(self, others: Iterable[FeatureNumbers | LabelNumbers]) -> Features:
        """The statistics of what this one and ``others`` have counted."""
        found = Features(self._columns, self._reference)
        for each in (self.told(), *others):
            found.join(each)
        return found

    def report(self) -> dict[str, Any]:
        """All of it, a feature after the other."""
        spread = np.sqrt(self._squares / np.maximum(self.values, 1))
        features = []
        for column in range(self._columns):
            known = self._reference[column] if self._reference is not None else None
            any_ = bool(self.values[column])
            feature = {
                "name": known.name if known is not None and known.name else str(column),
                "count": int(self.values[column] + self.infinite[column]),
                "missing": int(self.missing[column]),
                "infinite": int(self.infinite[column]),
                "min": float(self.least[column]) if any_ else None,
                "max": float(self.greatest[column]) if any_ else None,
                "mean": float(self.mean[column]) if any_ else None,
                "std": float(spread[column]) if any_ else None,
            }
            if self._bounds is not None:
                counts = self._counts(column)
                feature |= {"bounds": self._bounds[column].tolist(), "counts": counts}
                if known is not None and known.counts and (psi := stability(known.counts, counts)) is not None:
                    feature["psi"] = psi
            features.append(feature)
        return {"features": features}

    def _counts(self, column: int) -> list[int]:
        assert self._bounds is not None
        beyond = self._beyond[: len(self._bounds[column]), column].tolist()
        return [above - below for above, below in zip([int(self._binned[column]), *beyond], [*beyond, 0], strict=True)]


class Labels:
    """How often each label was there."""

    def __init__(self, reference: Mapping[str, int] | None = None) -> None:
        self._reference = reference
        self._counts: Counter[str] = Counter()
        self._others = 0

    def add(self, values: Array) -> None:
        """Takes labels in."""
        self._add(Counter(map(str, values.ravel().tolist())))

    def _add(self, counts: Mapping[str, int]) -> None:
        for label, count in counts.items():
            if label in self._counts or len(self._counts) < MAX_LABELS:
                self._counts[label] += count
            else:
                self._others += count

    def settle(self) -> None:
        """Nothing: labels wait for nothing."""

    def told(self) -> LabelNumbers:
        """All that was counted."""
        return LabelNumbers(dict(self._counts), self._others)

    def join(self, other: FeatureNumbers | LabelNumbers) -> None:
        """Adds what another has counted of labels."""
        if isinstance(other, LabelNumbers):
            self._add(other.counts)
            self._others += other.others

    def joined(self, others: Iterable[FeatureNumbers | LabelNumbers]) -> Labels:
        """The statistics of what this one and ``others`` have counted."""
        found = Labels(self._reference)
        for each in (self.told(), *others):
            found.join(each)
        return found

    def report(self) -> dict[str, Any]:
        """Labels by how often they were there; ``others`` came when there were :data:`MAX_LABELS` already."""
        found: dict[str, Any] = {"labels": dict(self._counts.most_common()), "others": self._others}
        if self._reference:
            either = sorted({*self._reference, *self._counts})
            psi = stability([self._reference.get(each, 0) for each in either], [self._counts[each] for each in either])
            if psi is not None:
                found["psi"] = psi
        return found


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
            raise ServerError(f"{path} tells of {name!r}, which the model does not have.", _CURE)
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


def read_reference(path: Path) -> Reference:
    """The reference in a file, an empty one where there is none; ServerError where it is not one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Reference)
    except FileNotFoundError:
        return Reference()
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ServerError(f"{path} is not usable: {error}.", _CURE) from None


def stability(reference: Sequence[float], counts: Sequence[float]) -> float | None:
    """The population stability index of ``counts`` against those of a ``reference`` over the same bins; None where one
    of them has counted nothing yet."""
    if not sum(reference) or not sum(counts):
        return None
    was, now = ([max(each / sum(all_), _LEAST) for each in all_] for all_ in (reference, counts))
    return sum((new - old) * math.log(new / old) for old, new in zip(was, now, strict=True))


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
        numbers = Features(columns, given.features and _checked(given.features, columns, spec.name, path))
    return Followed(spec.name, columns, _by_row(spec), most, numbers)


def _checked(features: list[FeatureReference], columns: int, name: str, path: Path) -> list[FeatureReference]:
    if len(features) != columns:
        raise ServerError(f"{path}: {name!r} has {columns} features, and {len(features)} are told of.", _CURE)
    for number, each in enumerate(features):
        of = f"{path}: feature {number} of {name!r}"
        if each.bounds is None:
            if each.counts is not None:
                raise ServerError(f"{of} has counts and no bounds.", _CURE)
            continue
        if any(low >= high for low, high in pairwise(each.bounds)):
            raise ServerError(f"{of}: the bounds do not rise.", _CURE)
        bins = len(each.bounds) + 1
        if each.counts is not None and (len(each.counts) != bins or min(each.counts) < 0):
            raise ServerError(f"{of} takes {bins} counts, one more than bounds, none below 0.", _CURE)
    return features


def _by_row(spec: TensorSpec) -> bool:
    """Whether the first axis counts rows; a tensor of a fixed shape such as [30] is one row."""
    return spec.shape[:1] in ((-1,), (1,))


def _row(spec: TensorSpec) -> tuple[int, ...]:
    return spec.shape[1:] if _by_row(spec) else spec.shape


def _deciles(column: Array) -> Array:
    values = column[np.isfinite(column)]
    return np.unique(np.quantile(values, _DECILES)) if len(values) else values
