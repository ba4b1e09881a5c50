"""Inference requests and responses of gRPC as tensors, and back.

A request with ``raw_input_contents`` is answered with ``raw_output_contents``, one with typed contents in kind. FP16
has no typed form, so where it is among the outputs all of them are raw.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from workbench.server import inference_pb2
from workbench.server.errors import RequestError
from workbench.server.model import Model
from workbench.server.protocol import Asked, timeout_seconds
from workbench.server.tensors import (
    Array,
    TensorSpec,
    add,
    check_complete,
    chosen_outputs,
    from_bytes,
    spec_of,
    text,
    to_bytes,
    wrong_count,
)

CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field of ``InferTensorContents`` that holds the elements of a datatype."""


def asked_of(request: Any, model: Model, remaining: float | None) -> Asked:
    """The request, understood; RequestError 400 where it is none. ``remaining``: seconds until its deadline."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise RequestError(400, f"there are {len(request.inputs)} inputs and {len(raw)} raw_input_contents")
    feed: dict[str, Array] = {}
    for place, tensor in enumerate(request.inputs):
        spec = spec_of(tensor.name, tensor.datatype, tensor.shape, model.inputs)
        shape = list(tensor.shape)
        if "shared_memory_region" in tensor.parameters:
            raise RequestError(400, f"input {tensor.name!r}: the shared memory extension is not spoken here")
        if not raw:
            array = _from_contents(tensor.contents, spec, shape)
        elif tensor.HasField("contents"):
            raise RequestError(400, f"input {tensor.name!r} has both contents and raw_input_contents")
        else:
            array = from_bytes(raw[place], spec, shape)
        add(feed, tensor.name, array)
    check_complete(feed, model.inputs)
    names = chosen_outputs([output.name for output in request.outputs], model.outputs)
    for output in request.outputs:
        if "classification" in output.parameters or "shared_memory_region" in output.parameters:
            raise RequestError(
                400, f"output {output.name!r}: the classification and shared memory extensions are not spoken here"
            )
    binary = frozenset(names if raw else ())
    return Asked(feed, names, binary, request.id or None, _soonest(_timeout(request.parameters), remaining))


def _from_contents(contents: Any, spec: TensorSpec, shape: list[int]) -> Array:
    field = CONTENTS.get(spec.datatype.name)
    if field is None:
        raise RequestError(
            400, f"input {spec.name!r}: {spec.datatype.name} has no typed contents; send raw_input_contents"
        )
    for other, _ in contents.ListFields():
        if other.name != field:
            raise RequestError(400, f"input {spec.name!r} has {other.name}; {spec.datatype.name} goes into {field}")
    elements = getattr(contents, field)
    if len(elements) != prod(shape):
        raise wrong_count(spec, shape, len(elements))
    if spec.datatype.element is str:
        return np.array([text(element, spec) for element in elements], object).reshape(shape)
    try:
        # Not by way of a list, which would take many times the message's memory.
        return np.fromiter(elements, spec.datatype.dtype, len(elements)).reshape(shape)
    except OverflowError:
        raise RequestError(
            400, f"input {spec.name!r}: a value lies outside the range of {spec.datatype.name}"
        ) from None


def _timeout(parameters: Any) -> float | None:
    if "timeout" not in parameters:
        return None
    choice = parameters["timeout"].WhichOneof("parameter_choice")
    if choice not in ("int64_param", "uint64_param"):
        raise RequestError(400, "timeout is no whole number of microseconds")
    return timeout_seconds(getattr(parameters["timeout"], choice))


def _soonest(one: float | None, other: float | None) -> float | None:
    return min([each for each in (one, other) if each is not None], default=None)


def answer_of(model: Model, asked: Asked, results: list[Array]) -> Any:
    """The response to an inference."""
    response = inference_pb2.ModelInferResponse(model_name=model.name, model_version=model.version, id=asked.id or "")
    datatypes = [model.outputs[name].datatype for name in asked.outputs]
    raw = bool(asked.binary) or any(datatype.name not in CONTENTS for datatype in datatypes)
    for name, datatype, array in zip(asked.outputs, datatypes, results, strict=True):
        output = response.outputs.add(name=name, datatype=datatype.name, shape=array.shape)
        if raw:
            response.raw_output_contents.append(to_bytes(array, datatype))
        else:
            elements = array.ravel().tolist()
            if datatype.element is str:
                elements = [str(element).encode() for element in elements]
            getattr(output.contents, CONTENTS[datatype.name]).extend(elements)
    return response
