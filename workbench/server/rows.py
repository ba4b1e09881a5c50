"""Rows as CSV: lines of numbers in, lines of outputs out, without a header, as SageMaker's own algorithms have it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from workbench.server.errors import RequestError
from workbench.server.model import Model
from workbench.server.protocol import Asked, converted, out_of_range
from workbench.server.tensors import Array, TensorSpec, spec_of
from workbench.server.v1 import AskedV1


def read(body: bytes, model: Model) -> AskedV1:
    """The request in the lines of ``body``. RequestError 415 where ``model`` takes something else than one numeric
    tensor of two axes, 400 where a line does not fit it."""
    spec = next(iter(model.inputs.values()), None)
    if spec is None or len(model.inputs) > 1 or len(spec.shape) != 2 or spec.datatype.dtype.kind not in "iuf":
        raise RequestError(
            415, f"CSV is for a model with one numeric input of two axes; {model.name!r} takes something else"
        )
    return AskedV1({spec.name: _array(body, spec)}, list(model.outputs))


def written(asked: Asked, results: Sequence[Array]) -> bytes:
    """The outputs side by side, a line for each row that was asked. RequestError 406 where they have no such form."""
    count = len(next(iter(asked.feed.values())))
    columns: list[list[list[Any]]] = []
    for name, array in zip(asked.outputs, results, strict=True):
        if array.ndim not in (1, 2) or len(array) != count:
            raise RequestError(406, f"output {name!r} of shape {list(array.shape)} has no form in CSV; accept JSON")
        columns.append((array if array.ndim == 2 else array[:, None]).tolist())
    out = io.StringIO()
    lines = ([value for part in parts for value in part] for parts in zip(*columns, strict=True))
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue().encode()


def _array(body: bytes, spec: TensorSpec) -> Array:
    elements: list[Any] = []
    count = width = 0
    try:
        reader = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""))
        for row in reader:
            if not row:
                continue
            if count and len(row) != width:
                raise RequestError(400, f"line {reader.line_num} has {len(row)} values, those before have {width}")
            count, width = count + 1, len(row)
            try:
                elements.extend(map(spec.datatype.element, row))
            except ValueError:
                raise RequestError(
                    400,
                    f"line {reader.line_num} has a value that is no {spec.datatype.name}; a header is not read here",
                ) from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise RequestError(400, f"the body is not CSV: {error}") from None
    if not count:
        raise RequestError(400, "the body has no line")
    spec_of(spec.name, spec.datatype.name, [count, width], {spec.name: spec})
    if spec.datatype.element is float and not all(map(math.isfinite, elements)):
        raise out_of_range(spec)  # as in JSON, which has no word for them
    return converted(elements, spec).reshape(count, width)
