"""Parquet: rows in, rows out, through pyarrow, which is an extra of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from math import prod
from pathlib import Path
from shlex import join
from typing import Any

import numpy as np

from workbench.batch.columns import match, wanted
from workbench.batch.text import TextTarget
from workbench.batch.values import Bad, Chunk, Position, fit, merge, row_shape, width
from workbench.errors import MachineLacks, UsageError
from workbench.server.tensors import Array, TensorSpec

_GROUP_BYTES = 16 << 20
"""Of a row group, before it is encoded: what a reader of the result has to hold at least."""

_BUFFER = 1 << 20


def pyarrow() -> Any:
    """The library, with its Parquet. MachineLacks where it is not installed."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pyarrow":
            raise
        raise MachineLacks(
            "Parquet needs pyarrow, which is not installed.",
            join([sys.executable, "-m", "pip", "install", "workbench[parquet]"]),
        ) from None
    return pyarrow


class ParquetSource:
    """A Parquet file: columns as in CSV, or a column of lists for each input by its name."""

    place = "index"

    def __init__(self, path: Path, specs: Mapping[str, TensorSpec], opened: ExitStack) -> None:
        """UsageError where its columns are not the model's inputs. It is closed with ``opened``."""
        arrow = pyarrow()
        self._arrow = arrow
        self._path = path
        self._specs = specs
        try:
            file = arrow.parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
        except (arrow.ArrowInvalid, OSError) as error:
            raise UsageError(f"{path} is not a Parquet file, or it is damaged: {error}", "Write it again.") from None
        self._file = opened.enter_context(file)
        self.size = file.metadata.num_rows
        if not self.size:
            raise UsageError(f"{path} has no rows.", "Give a file with rows.")
        schema = file.schema_arrow
        if set(specs) <= set(schema.names):
            self._columns = {name: [name] for name in specs}
        else:
            found = match(schema.names, specs, path)
            self._columns = {name: [schema.names[number] for number in numbers] for name, numbers in found.items()}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._at = 0
        self._batches = self._from(0)
        self._left: Any = None
        """What is left of a batch that a chunk took the beginning of."""
        for spec in specs.values():
            self._shapes[spec.name] = self._shape(spec, schema)

    def _shape(self, spec: TensorSpec, schema: Any) -> tuple[int, ...]:
        """The shape of a row of an input; UsageError for columns of other types."""
        columns = self._columns[spec.name]
        for name in columns:
            kind = schema.field(name).type
            if _is_list(self._arrow, kind):
                kind = kind.value_type
            if not _fits(self._arrow, kind, spec):
                raise UsageError(
                    f"{self._path}: the column {name!r} is {schema.field(name).type}.",
                    f"The model takes {wanted(self._specs)}.",
                )
        if width(spec) is not None:
            return row_shape(spec)
        if len(columns) > 1 or not _is_list(self._arrow, schema.field(columns[0]).type):
            return (len(columns),)
        if len(row_shape(spec)) > 1:
            raise UsageError(
                f"{self._path}: a column of lists does not say the shape of {spec.name!r}.",
                "npz, or JSON lines, can hold it.",
            )
        first = next(self._from(0)).column(columns[0])
        return (len(first[0].as_py() or ()),)

    def _from(self, row: int) -> Iterator[Any]:
        """Batches from ``row`` on: from the row group that holds it."""
        group = before = 0
        while before + (rows := self._file.metadata.row_group(group).num_rows) <= row:
            before += rows
            group += 1
            if group == self._file.metadata.num_row_groups:
                return
        skip = row - before
        columns = list(dict.fromkeys(name for names in self._columns.values() for name in names))
        for batch in self._file.iter_batches(
            batch_size=4096, row_groups=range(group, self._file.metadata.num_row_groups), columns=columns
        ):
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            yield batch.slice(skip)
            skip = 0

    def seek(self, position: Position) -> None:
        """Goes on there."""
        self._at = position["row"]
        self._batches = self._from(self._at)
        self._left = None

    def done(self, position: Position) -> int:
        """Rows."""
        return position["row"]

    def chunk(self, count: int) -> Chunk | None:
        """The next rows."""
        parts: list[Any] = []
        rows = 0
        try:
            while rows < count:
                batch = self._left if self._left is not None else next(self._batches, None)
                if batch is None:
                    break
                part = batch.slice(0, count - rows)
                parts.append(part)
                rows += part.num_rows
                self._left = batch.slice(part.num_rows) if part.num_rows < batch.num_rows else None
        except (self._arrow.ArrowInvalid, OSError) as error:
            raise UsageError(f"{self._path} is damaged: {error}", "Write it again.") from None
        if not rows:
            return None
        table = self._arrow.Table.from_batches(parts).combine_chunks()
        bad: Bad = {}
        arrays = {spec.name: self._array(table, spec, bad) for spec in self._specs.values()}
        places = range(self._at, self._at + rows)
        self._at += rows
        return Chunk(rows, merge(arrays, bad, rows), bad, places, {"row": self._at})

    def _array(self, table: Any, spec: TensorSpec, bad: Bad) -> Array:
        columns = [self._column(table, name, spec, bad) for name in self._columns[spec.name]]
        whole = columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
        return fit(whole.reshape(table.num_rows, *self._shapes[spec.name]), spec, bad)

    def _column(self, table: Any, name: str, spec: TensorSpec, bad: Bad) -> Array:
        """A column's values, rows first; those of rows that have none, or too few, are zeros."""
        arrow = self._arrow
        column = table.column(name)
        column = column.chunk(0) if column.num_chunks else column.combine_chunks()
        if not _is_list(arrow, column.type):
            return self._plain(column, name, spec, bad)
        count = prod(self._shapes[spec.name])
        lengths = arrow.compute.list_value_length(column).fill_null(-1).to_numpy(zero_copy_only=False)
        for row in np.flatnonzero(lengths != count):
            have = int(lengths[row])
            told = "nothing stands there" if have < 0 else f"it has {have} values, the model takes {count}"
            bad.setdefault(int(row), f"column {name!r}: {told}")
        good = column.filter(arrow.array(lengths == count))
        inside: Bad = {}
        values = self._plain(good.flatten(), name, spec, inside)
        rows = np.flatnonzero(lengths == count)
        for element, why in inside.items():
            bad.setdefault(int(rows[element // count]), why)
        whole = np.zeros((len(lengths), count), values.dtype)
        whole[rows] = values.reshape(-1, count)
        return whole

    def _plain(self, column: Any, name: str, spec: TensorSpec, bad: Bad) -> Array:
        if column.null_count:
            for row in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)):
                bad.setdefault(int(row), f"column {name!r}: nothing stands there")
            column = column.fill_null("" if spec.datatype.element is str else 0)
        if spec.datatype.element is str:
            return np.array(column.to_pylist(), object)
        found: Array = column.to_numpy(zero_copy_only=False)
        return found


def _is_list(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _fits(arrow: Any, kind: Any, spec: TensorSpec) -> bool:
    types = arrow.types
    if spec.datatype.element is str:
        return bool(types.is_string(kind) or types.is_large_string(kind))
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


class ParquetTarget(TextTarget):
    """A Parquet file: a column for each output, of lists where a row of it has several elements.

    A Parquet file cannot be gone on with, so rows are kept as an Arrow stream and written as Parquet at the end.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._arrow = pyarrow()
        self._folder = folder

    def add(self, arrays: Mapping[str, Array]) -> None:
        """Appends rows."""
        batch = self._arrow.record_batch({name: self._column(array) for name, array in arrays.items()})
        if not self._file.size:
            self._file.write(batch.schema.serialize())
        self._file.write(batch.serialize())

    def _column(self, array: Array) -> Any:
        flat = self._arrow.array(array.ravel())
        count = prod(array.shape[1:])
        return flat if count == 1 else self._arrow.FixedSizeListArray.from_arrays(flat, count)

    def finish(self) -> Path:
        """The finished file."""
        path = self._folder / "whole"
        with self._arrow.OSFile(str(self._path)) as part, self._arrow.ipc.open_stream(part) as stream:
            writer = self._arrow.parquet.ParquetWriter(path, stream.schema)
            with writer:
                for group in self._groups(stream):
                    writer.write_table(group, row_group_size=group.num_rows)
        return path

    def _groups(self, stream: Any) -> Iterator[Any]:
        """Batches joined to row groups."""
        batches: list[Any] = []
        size = 0
        for batch in stream:
            batches.append(batch)
            size += batch.nbytes
            if size >= _GROUP_BYTES:
                yield self._arrow.Table.from_batches(batches)
                batches, size = [], 0
        if batches:
            yield self._arrow.Table.from_batches(batches)
