"""npz: rows in, rows out. Nothing is ever held whole."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np

from workbench.batch.append import Appended
from workbench.batch.columns import wanted
from workbench.batch.values import Bad, Chunk, Position, fit, merge, row_shape
from workbench.errors import UsageError
from workbench.model.npz import Stream, open_streams, write_npz_from
from workbench.server.tensors import Array, TensorSpec


class NpzSource:
    """An npz file: an array for each input by its name, or ``x`` for a model with one. Others are not used."""

    place = "index"

    def __init__(self, path: Path, specs: Mapping[str, TensorSpec], opened: ExitStack) -> None:
        """UsageError where it has not got the model's inputs. It is closed with ``opened``."""
        found = open_streams(path, str(path), opened)
        if len(specs) == 1 and "x" in found:
            found = {next(iter(specs)): found["x"], **found}
        takes = f"The model takes {wanted(specs)}, the first axis being rows."
        if missing := [name for name in specs if name not in found]:
            raise UsageError(f"{path} has no array {missing[0]!r}; it has {', '.join(found)}.", takes)
        self._streams = {name: found[name] for name in specs}
        self._specs = specs
        for name, stream in self._streams.items():
            _check(path, stream, specs[name], takes)
        counts = {name: stream.shape[0] for name, stream in self._streams.items()}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name!r} {count}" for name, count in counts.items())
            raise UsageError(f"The arrays of {path} have not as many rows each: {told}.", takes)
        self.size = next(iter(counts.values()))
        self._at = 0
        if not self.size:
            raise UsageError(f"{path} has no rows.", takes)

    def seek(self, position: Position) -> None:
        """Goes on there."""
        self._at = position["row"]
        for stream in self._streams.values():
            stream.seek(self._at)

    def done(self, position: Position) -> int:
        """Rows."""
        return position["row"]

    def chunk(self, count: int) -> Chunk | None:
        """The next rows."""
        count = min(count, self.size - self._at)
        if not count:
            return None
        bad: Bad = {}
        arrays = {name: fit(stream.read(count), self._specs[name], bad) for name, stream in self._streams.items()}
        places = range(self._at, self._at + count)
        self._at += count
        return Chunk(count, merge(arrays, bad, count), bad, places, {"row": self._at})


def _check(path: Path, stream: Stream, spec: TensorSpec, takes: str) -> None:
    """UsageError where an array is not what the model takes."""
    shape = row_shape(spec)
    same = len(stream.shape) == len(spec.shape) and all(
        want in (-1, have) for have, want in zip(stream.shape[1:], shape, strict=True)
    )
    if not same:
        raise UsageError(f"{path}: the array for {spec.name!r} has the shape {list(stream.shape)}.", takes)
    try:
        fit(np.zeros(1, stream.dtype), spec, {})
    except TypeError:
        raise UsageError(f"{path}: the array for {spec.name!r} is {stream.dtype}.", takes) from None


class NpzTarget:
    """An npz file: each output's values in a file of its own in ``folder``, joined at the end."""

    def __init__(self, folder: Path, outputs: Mapping[str, TensorSpec]) -> None:
        """UsageError for strings: only Python's own objects would hold them in npz."""
        for spec in outputs.values():
            if spec.datatype.element is str:
                raise UsageError(
                    f"The output {spec.name!r} is text, which npz cannot hold in pieces.",
                    "Write CSV, JSON lines or Parquet, or name other --outputs.",
                )
        self._folder = folder
        self._outputs = outputs
        self._files: dict[str, Appended] = {}
        self._shapes: dict[str, list[int]] = {}
        self._rows = 0

    def _part(self, name: str) -> Path:
        return self._folder / f"part-{list(self._outputs).index(name)}"

    def open(self, mark: Mapping[str, Any], opened: ExitStack) -> None:
        """Goes on where ``mark`` was taken; what was written after it is cut off. It is closed with ``opened``."""
        self._rows = mark.get("rows", 0)
        self._shapes = dict(mark.get("shapes", {}))
        for name in self._outputs:
            size = mark["sizes"][name] if mark else 0
            self._files[name] = opened.enter_context(closing(Appended(self._part(name), size)))

    def add(self, arrays: Mapping[str, Array]) -> None:
        """Appends rows."""
        rows = 0
        for name, array in arrays.items():
            rows = len(array)
            self._shapes[name] = list(array.shape[1:])
            self._files[name].write(np.ascontiguousarray(array).data)
        self._rows += rows

    def mark(self) -> dict[str, Any]:
        """What has been written, once it is on the disk."""
        sizes = {name: file.sync() for name, file in self._files.items()}
        return {"rows": self._rows, "shapes": dict(self._shapes), "sizes": sizes}

    def finish(self) -> Path:
        """The finished file."""
        parts = {
            name: (self._part(name), (self._rows, *self._shapes[name]), spec.datatype.dtype)
            for name, spec in self._outputs.items()
        }
        path = self._folder / "whole"
        write_npz_from(path, parts)
        return path
