"""What rows hold, as arrays that a model takes; rows that it cannot take are told apart, each with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Protocol

import numpy as np

from workbench.server.tensors import Array, TensorSpec

Position = Mapping[str, int]
"""Where reading goes on: what a source says and takes back."""

Bad = dict[int, str]
"""Rows of a chunk that the model cannot take, and why."""


@dataclass
class Chunk:
    """Consecutive rows of an input.

    ``arrays`` holds those of its ``count`` rows that are not ``bad``, by input name. ``places`` says where each row
    stands (in lines from 1, of arrays by index from 0), ``texts`` how it reads there, of text files. ``after`` is where
    the next chunk begins.
    """

    count: int
    arrays: dict[str, Array]
    bad: Bad
    places: Sequence[int]
    after: Position
    texts: Sequence[bytes] = field(default=())


class Source(Protocol):
    """A file of rows. ``size`` and what ``done`` gives are in one unit (bytes or rows): how far a reading is."""

    place: str
    """What places count: line or index."""
    size: int

    def chunk(self, count: int) -> Chunk | None:
        """The next ``count`` rows, fewer at the end, None after it."""

    def seek(self, position: Position) -> None:
        """Goes on at a ``position`` that a chunk gave."""

    def done(self, position: Position) -> int:
        """How much of ``size`` lies before ``position``."""


def row_shape(spec: TensorSpec) -> tuple[int, ...]:
    """The shape of one row, -1 where the axis is dynamic."""
    return spec.shape[1:]


def width(spec: TensorSpec) -> int | None:
    """The elements of one row; None where an axis is dynamic."""
    return None if -1 in row_shape(spec) else prod(row_shape(spec))


def merge(arrays: Mapping[str, Array], bad: Bad, count: int) -> dict[str, Array]:
    """``arrays``, of ``count`` rows each, without the bad rows."""
    if not bad:
        return dict(arrays)
    good = np.ones(count, bool)
    good[list(bad)] = False
    return {name: array[good] for name, array in arrays.items()}


def fit(array: Array, spec: TensorSpec, bad: Bad) -> Array:
    """``array`` (rows first) in the datatype of ``spec``; rows with a value that it cannot hold go into ``bad``.

    float64 is rounded to float32; whole numbers stay whole. TypeError where the kinds do not go together at all.
    """
    wanted = spec.datatype.dtype
    found, wrong = _cast(array, wanted)
    if wrong is not None and wrong.any():
        for row in np.flatnonzero(wrong.reshape(len(array), -1).any(axis=1)):
            bad.setdefault(int(row), f"input {spec.name!r}: a value is none of {spec.datatype.name}")
    return found


def _cast(array: Array, wanted: np.dtype[Any]) -> tuple[Array, Array | None]:
    """``array`` as ``wanted``, and which elements that changed."""
    have = array.dtype
    if have == wanted:
        return array, None
    if wanted.kind == "O":
        if have.kind != "U":
            raise TypeError(f"{have}")
        return array.astype(object), None
    if have.kind not in "biuf":
        raise TypeError(f"{have}")
    with np.errstate(all="ignore"):
        found = array.astype(wanted)
        if wanted.kind == "f":
            return found, None if have.kind == "b" else np.isinf(found) & np.isfinite(array)
        if wanted.kind == "b":
            return found, (array != 0) & (array != 1)
        if have.kind == "f":
            return found, found.astype(have) != array
    bounds = np.iinfo(wanted)
    return found, (array < bounds.min) | (array > bounds.max)


def stack(rows: Sequence[Any], spec: TensorSpec, shape: Sequence[int], bad: Bad) -> Array:
    """The values of ``rows`` (each a number, a string or lists of them, nested or flat), each row in ``shape``.

    Rows in ``bad`` are passed over; those that turn out to be are added.
    """
    whole = None if bad else _array(rows, spec, tuple(shape))
    if whole is None:
        nothing = np.zeros((1, *shape), spec.datatype.dtype)
        singles = []
        for number, row in enumerate(rows):
            single = None if number in bad else _array([row], spec, tuple(shape))
            if single is None and number not in bad:
                bad[number] = f"input {spec.name!r}: its values are not of the shape {list(shape)}, or out of range"
            singles.append(nothing if single is None else single)
        whole = np.concatenate(singles)
    return fit(whole, spec, bad)


def _array(rows: Sequence[Any], spec: TensorSpec, shape: tuple[int, ...]) -> Array | None:
    """None where the rows have other shapes, or numbers beyond 64 bits."""
    of_kind: Mapping[type, Any] = {float: np.float64, bool: np.bool_, str: object}
    dtype = of_kind.get(spec.datatype.element) or (np.uint64 if spec.datatype.name == "UINT64" else np.int64)
    try:
        array = np.array(rows, dtype)
    except (ValueError, OverflowError, TypeError):
        return None
    alone = (prod(shape),)
    if array.shape[1:] not in (shape, alone) and not (alone == (1,) and array.ndim == 1):
        return None
    if array.dtype.kind == "O" and not all(isinstance(element, str) for element in array.flat):
        return None
    return array.reshape(len(rows), *shape)


# --- from text


def _number(text: str) -> float:
    if "_" in text:
        raise ValueError
    return float(text)


def _whole(text: str) -> int:
    if "_" in text:
        raise ValueError
    try:
        return int(text)
    except ValueError:
        value = float(text)
        if not value.is_integer():
            raise
        return int(value)


_TRUTHS = {"0": False, "1": True, "false": False, "true": True}

PARSERS: Mapping[type, Callable[[str], Any]] = {
    float: _number,
    int: _whole,
    bool: lambda text: _TRUTHS[text.strip().lower()],
    str: str,
}
"""How a field of a text file is read, by what the datatype's elements are. ValueError, KeyError or OverflowError where
it is none."""
