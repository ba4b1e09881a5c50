"""Queries from an evaluation file: one for each sample, as a model in process or a server over HTTP takes them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workbench.errors import UsageError
from workbench.server.datatypes import BY_ONNX_TYPE

Feed = dict[str, Any]


@dataclass(frozen=True)
class Input:
    """One input of a model: its name, protocol datatype and shape (a dynamic axis is -1)."""

    name: str
    datatype: str
    shape: tuple[int, ...]


LIMIT = 64
"""Most samples that load is made of: enough variety, and little enough to stay in memory as JSON."""


def inputs_of_session(session: Any) -> list[Input]:
    """The inputs of an onnxruntime session."""
    return [
        Input(
            argument.name,
            BY_ONNX_TYPE[argument.type].name,
            tuple(extent if isinstance(extent, int) else -1 for extent in argument.shape),
        )
        for argument in session.get_inputs()
    ]


def inputs_of_metadata(metadata: Mapping[str, Any]) -> list[Input]:
    """The inputs in the protocol's model metadata."""
    return [Input(each["name"], each["datatype"], tuple(each["shape"])) for each in metadata["inputs"]]


def feeds(path: Path, inputs: Sequence[Input], limit: int = LIMIT) -> list[Feed]:
    """One feed for each of the first ``limit`` samples of the npz at ``path``.

    An input whose first axis is fixed at n takes n samples at a time (the first
    ones again where they run out); one with no axis for samples takes the sample alone.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {each.name: archive[each.name] for each in inputs}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"The evaluation data {path} cannot be used: {error}", "Make it again.") from None
    count = min(limit, *(len(array) for array in arrays.values()))
    if count == 0:
        raise UsageError(f"The evaluation data {path} holds no sample.", "Give at least one.")
    return [{each.name: _query(arrays[each.name], index, each.shape) for each in inputs} for index in range(count)]


def request_bodies(queries: Sequence[Feed], inputs: Sequence[Input]) -> list[bytes]:
    """Each feed as the body of an Open Inference Protocol request."""
    datatypes = {each.name: each.datatype for each in inputs}
    return [_body(query, datatypes) for query in queries]


def _query(array: Any, index: int, shape: Sequence[int]) -> Any:
    if array.ndim == len(shape) + 1:
        return np.array(array[index], order="C")
    batch = max(1, shape[0]) if shape else 1
    rows = [(index + offset) % len(array) for offset in range(batch)]
    rows_array = np.array(array[rows], order="C")
    # npz cannot hold object arrays safely, so strings lie there as fixed-width text.
    return rows_array.astype(object) if array.dtype.kind in "US" else rows_array


def _body(query: Feed, datatypes: Mapping[str, str]) -> bytes:
    inputs = [
        {"name": name, "shape": list(array.shape), "datatype": datatypes[name], "data": array.ravel().tolist()}
        for name, array in query.items()
    ]
    return json.dumps({"inputs": inputs}, separators=(",", ":")).encode()
