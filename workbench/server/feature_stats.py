"""Statistics of rows of numbers and of labels, which several processes can count and join."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from workbench.server.drift_reference import FeatureReference
from workbench.server.tensors import Array

MAX_LABELS = 1000
"""Most different labels that are counted apart."""

_PIECE = 1 << 17
"""Elements that are worked on at once: as much memory as that takes, for as long."""
_FIRST_ROWS = 256
_DECILES = np.linspace(0.1, 0.9, 9)
_LEAST = 1e-4
"""What a bin without values counts as in the stability index, whose logarithm has no value for none."""


Bounds = list[list[float]]
"""Of the histogram of each column."""

Agree = Callable[[Bounds | None], Bounds | None]
"""Gets the bounds that one would take, None where it does not know yet; returns those that hold, None for none yet."""


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


def stability(reference: Sequence[float], counts: Sequence[float]) -> float | None:
    """The population stability index of ``counts`` against those of a ``reference`` over the same bins; None where one
    of them has counted nothing yet."""
    if not sum(reference) or not sum(counts):
        return None
    was, now = ([max(each / sum(all_), _LEAST) for each in all_] for all_ in (reference, counts))
    return sum((new - old) * math.log(new / old) for old, new in zip(was, now, strict=True))


def _deciles(column: Array) -> Array:
    values = column[np.isfinite(column)]
    return np.unique(np.quantile(values, _DECILES)) if len(values) else values
