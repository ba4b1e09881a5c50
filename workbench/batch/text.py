"""CSV and JSON lines: rows in, rows out."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from workbench.batch.append import Appended
from workbench.batch.columns import match, names_of, wanted
from workbench.batch.lines import Lines
from workbench.batch.values import PARSERS, Bad, Chunk, Position, merge, row_shape, stack, width
from workbench.errors import UsageError
from workbench.server.tensors import Array, TensorSpec

_PEEKED = 1000
"""Rows that are looked through for one that shows the dynamic axes."""


class TextSource:
    """A file of rows that are lines. A position in it has an offset in bytes, which tells how much of it is done."""

    place = "line"

    def __init__(self, path: Path, opened: ExitStack, *, quoted: bool) -> None:
        """It is closed with ``opened``. ``quoted``: as for :class:`Lines`."""
        self._lines = opened.enter_context(closing(Lines(path, quoted=quoted)))
        self.size = self._lines.size

    def seek(self, position: Position) -> None:
        """Goes on there."""
        self._lines.seek(position)

    def done(self, position: Position) -> int:
        """Bytes."""
        return position["offset"]


class CsvSource(TextSource):
    """A CSV file (RFC 4180, UTF-8). Its first line is a header unless it holds numbers only."""

    def __init__(self, path: Path, specs: Mapping[str, TensorSpec], opened: ExitStack) -> None:
        """UsageError where its columns are not the model's inputs. It is closed with ``opened``."""
        super().__init__(path, opened, quoted=True)
        [line, *_], first = self._lines.take(1) if self.size else ([0], [])
        if not first:
            raise UsageError(f"{path} has no rows.", "Give a CSV file with a header, or rows of numbers.")
        fields = _fields(first[0])
        if fields is None:
            raise UsageError(f"{path}, line {line}: it is no row of CSV in UTF-8.", "Save the file as CSV in UTF-8.")
        if all(map(_is_number, fields)):
            self._names = [f"column {number}" for number in range(1, len(fields) + 1)]
            self._lines.seek({"offset": 0, "line": 0})
        else:
            self._names = [f"column {name!r}" for name in fields]
        self._columns = match(fields, specs, path)
        self._specs = specs
        self._plain = self._numbers_only(len(fields))

    def _numbers_only(self, count: int) -> type | None:
        """``float`` or ``int`` where rows are nothing but the elements of one input: then they read as JSON as well,
        which is six times as fast."""
        spec = next(iter(self._specs.values()))
        whole = len(self._specs) == 1 and self._columns[spec.name] == list(range(count))
        return spec.datatype.element if whole and spec.datatype.element in (float, int) else None

    def chunk(self, count: int) -> Chunk | None:
        """The next rows."""
        numbers, texts = self._lines.take(count)
        if not texts:
            return None
        bad: Bad = {}
        arrays = self._quick(texts, bad)
        if arrays is None:
            bad.clear()
            arrays = self._parsed(texts, bad)
        return Chunk(len(texts), merge(arrays, bad, len(texts)), bad, numbers, self._lines.position(), texts)

    def _quick(self, texts: Sequence[bytes], bad: Bad) -> dict[str, Array] | None:
        if self._plain is None:
            return None
        whole = b"],[".join(texts)
        if whole.count(b"[") != len(texts) - 1 or whole.count(b"]") != len(texts) - 1:
            return None
        try:
            rows = msgspec.json.decode(b"[[" + whole + b"]]", type=list[list[self._plain]])  # type: ignore[name-defined]
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        spec = next(iter(self._specs.values()))
        if any(len(row) != len(self._names) for row in rows):
            return None
        return {spec.name: stack(rows, spec, _known(spec, len(self._names)), bad)}

    def _parsed(self, texts: Sequence[bytes], bad: Bad) -> dict[str, Array]:
        records = [_fields(text) for text in texts]
        for number, record in enumerate(records):
            if record is None:
                bad[number] = "it is no row of CSV in UTF-8"
            elif len(record) != len(self._names):
                bad[number] = f"it has {len(record)} fields; there are {len(self._names)} columns"
        arrays = {}
        for spec in self._specs.values():
            columns = self._columns[spec.name]
            rows = [None if number in bad else self._read(record or [], columns, spec, number, bad)
                    for number, record in enumerate(records)]  # fmt: skip
            arrays[spec.name] = stack(rows, spec, _known(spec, len(columns)), bad)
        return arrays

    def _read(self, record: list[str], columns: list[int], spec: TensorSpec, number: int, bad: Bad) -> list[Any] | None:
        """The elements of one input in one row; None where a field is none, which goes into ``bad``."""
        parse = PARSERS[spec.datatype.element]
        values = []
        for column in columns:
            try:
                values.append(parse(record[column]))
            except (ValueError, KeyError, OverflowError):
                text = record[column]
                told = f"{text[:40]!r} is no {spec.datatype.name}" if text.strip() else "nothing stands there"
                bad[number] = f"{self._names[column]}: {told}"
                return None
        return values


class JsonLinesSource(TextSource):
    """A file with a JSON value a line: an object with the inputs by name, or, for a model with one input, its value."""

    def __init__(self, path: Path, specs: Mapping[str, TensorSpec], opened: ExitStack) -> None:
        super().__init__(path, opened, quoted=False)
        self._specs = specs
        fields = [(f"f{number}", _json_type(spec)) for number, spec in enumerate(specs.values())]
        names = {f"f{number}": name for number, name in enumerate(specs)}
        row: Any = msgspec.defstruct("Row", fields, rename=names)
        self._bare = len(specs) == 1
        self._decoder = msgspec.json.Decoder(row | fields[0][1] if self._bare else row)
        self._shapes = self._peek(path)

    def _peek(self, path: Path) -> dict[str, tuple[int, ...]]:
        """The shape of a row of each input; dynamic axes are as long as in the first row that can be read."""
        begin = self._lines.position()
        _, texts = self._lines.take(_PEEKED)
        self._lines.seek(begin)
        if not texts:
            raise UsageError(f"{path} has no rows.", "Give a JSON object a line, with the model's inputs by name.")
        why = ""
        for text in texts:
            row = self._decoded(text)
            if isinstance(row, str):
                why = why or row
                continue
            shapes = {}
            for value, spec in zip(row, self._specs.values(), strict=True):
                have = _extents(value)
                shape = row_shape(spec)
                shapes[spec.name] = have if -1 in shape and len(have) == len(shape) else shape
            if not any(-1 in shape for shape in shapes.values()):
                return shapes
        if any(-1 in row_shape(spec) for spec in self._specs.values()):
            raise UsageError(
                f"{path} shows no row that the model takes: {why}.", f"The model takes {wanted(self._specs)}."
            )
        return {spec.name: row_shape(spec) for spec in self._specs.values()}

    def chunk(self, count: int) -> Chunk | None:
        """The next rows."""
        numbers, texts = self._lines.take(count)
        if not texts:
            return None
        bad: Bad = {}
        rows = [self._decoded(text) for text in texts]
        for number, row in enumerate(rows):
            if isinstance(row, str):
                bad[number] = row
        arrays = {}
        for at, spec in enumerate(self._specs.values()):
            values = [None if isinstance(row, str) else row[at] for row in rows]
            arrays[spec.name] = stack(values, spec, self._shapes[spec.name], bad)
        return Chunk(len(texts), merge(arrays, bad, len(texts)), bad, numbers, self._lines.position(), texts)

    def _decoded(self, text: bytes) -> Sequence[Any] | str:
        """The values of the inputs, or what is wrong."""
        try:
            row = self._decoder.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return str(error)
        if self._bare and not isinstance(row, msgspec.Struct):
            return [row]
        return msgspec.structs.astuple(row)


class TextTarget:
    """Rows appended to one file in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "part"
        self._file: Appended

    def open(self, mark: Mapping[str, Any], opened: ExitStack) -> None:
        """Goes on where ``mark`` was taken; what was written after it is cut off. It is closed with ``opened``."""
        self._file = opened.enter_context(closing(Appended(self._path, mark.get("size", 0))))

    def mark(self) -> dict[str, Any]:
        """What has been written, once it is on the disk."""
        return {"size": self._file.sync()}

    def finish(self) -> Path:
        """The finished file."""
        return self._path


class CsvTarget(TextTarget):
    """A CSV file: a column for each element of an output, under a header."""

    def add(self, arrays: Mapping[str, Array]) -> None:
        """Appends rows."""
        if not self._file.size:
            names = [name for each, array in arrays.items() for name in names_of(each, int(np.prod(array.shape[1:])))]
            self._file.write(_csv([names]))
        flat = [array.reshape(len(array), -1) for array in arrays.values()]
        columns = [column for array in flat for column in array.T.tolist()]
        rows = list(zip(*columns, strict=True))
        if all(array.dtype.kind in "iu" or array.dtype.kind == "f" and np.isfinite(array).all() for array in flat):
            # Lists of finite numbers are CSV but for their brackets, and written nine times as fast.
            self._file.write(msgspec.json.Encoder().encode_lines(rows).replace(b"[", b"").replace(b"]", b""))
        else:
            self._file.write(_csv(rows))


class JsonLinesTarget(TextTarget):
    """A JSON object a line: the outputs by name, nested as the model gives them. NaN and the infinities are null."""

    def add(self, arrays: Mapping[str, Array]) -> None:
        """Appends rows."""
        columns = zip(*(array.tolist() for array in arrays.values()), strict=True)
        names = list(arrays)
        self._file.write(msgspec.json.Encoder().encode_lines([dict(zip(names, row, strict=True)) for row in columns]))


def _csv(rows: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _fields(text: bytes) -> list[str] | None:
    """The fields of one row; None where it is none."""
    try:
        return next(csv.reader([text.decode()], strict=True))
    except (csv.Error, UnicodeDecodeError, StopIteration):
        return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _known(spec: TensorSpec, count: int) -> tuple[int, ...]:
    """The shape of a row with ``count`` elements."""
    return (count,) if width(spec) is None else row_shape(spec)


def _json_type(spec: TensorSpec) -> Any:
    """What stands for a row of an input: lists as deep as its shape; of one element the element alone as well."""
    element: Any = spec.datatype.element
    nested = element
    for _ in row_shape(spec):
        nested = list[nested]  # type: ignore[valid-type]
    return element | nested if nested is not element and width(spec) == 1 else nested


def _extents(value: Any) -> tuple[int, ...]:
    found = []
    while isinstance(value, list):
        found.append(len(value))
        value = value[0] if value else None
    return tuple(found)
