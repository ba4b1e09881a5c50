"""Files of rows in every format, written and read by others than the code under test."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

FORMATS = ("npz", "csv", "jsonl", "parquet")


def expected(model: Path, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """What onnxruntime gives for all rows at once."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(arrays)), strict=True))


def columns(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays as columns of a table: an element each, name.0 and so on where a row has several."""
    found = {}
    for name, array in arrays.items():
        flat = array.reshape(len(array), -1)
        for at in range(flat.shape[1]):
            found[name if flat.shape[1] == 1 else f"{name}.{at}"] = flat[:, at]
    return found


def write(path: Path, arrays: Mapping[str, Any]) -> Path:
    """The arrays as a file of the format that its name ends in."""
    count = len(next(iter(arrays.values())))
    match path.suffix:
        case ".npz":
            np.savez(path, **{name: np.array(array.tolist()) if array.dtype == object else array
                              for name, array in arrays.items()})  # fmt: skip
        case ".csv":
            table = {name: column.tolist() for name, column in columns(arrays).items()}
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([list(table), *zip(*table.values(), strict=True)])
        case ".jsonl":
            lists = {name: array.tolist() for name, array in arrays.items()}
            rows = [{name: lists[name][at] for name in lists} for at in range(count)]
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".parquet":
            import pyarrow
            import pyarrow.parquet

            table = pyarrow.table({name: pyarrow.array(column) for name, column in columns(arrays).items()})
            pyarrow.parquet.write_table(table, path, row_group_size=3000)
    return path


def read(path: Path, like: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays in a file, in the dtypes and shapes of those that are expected."""
    match path.suffix:
        case ".npz":
            with np.load(path) as file:
                return dict(file)
        case ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                header, *rows = csv.reader(file)
            assert header == list(columns(like))
            found, at = {}, 0
            for name, array in like.items():
                width = int(np.prod(array.shape[1:]))
                values: Any = [row[at : at + width] for row in rows]
                if array.dtype == bool:
                    values = [[value == "True" for value in row] for row in values]
                elif array.dtype.kind in "iu":
                    values = [[int(value) for value in row] for row in values]
                elif array.dtype.kind == "f":
                    values = [[float(value) for value in row] for row in values]
                found[name] = np.array(values, array.dtype).reshape(len(rows), *array.shape[1:])
                at += width
            return found
        case ".jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            return {name: np.array([line[name] for line in lines], array.dtype) for name, array in like.items()}
        case _:
            import pyarrow.parquet

            table = pyarrow.parquet.read_table(path)
            assert table.column_names == list(like)
            return {
                name: np.array(table[name].to_pylist(), array.dtype).reshape(-1, *array.shape[1:])
                for name, array in like.items()
            }


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether arrays are equal, dtypes and shapes included."""
    return list(one) == list(other) and all(
        one[name].dtype == other[name].dtype
        and np.array_equal(one[name], other[name], equal_nan=other[name].dtype.kind == "f")
        for name in other
    )
