"""Open Inference Protocol V2, JSON form: request bytes to arrays, arrays to response bytes.

Floats are written with the shortest text that reads back as the same float64, so a float32 survives the way through
JSON bit for bit. JSON has no word for NaN and the infinities: in a response they are ``null``, in a request they are
refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import msgspec
import numpy as np

from workbench.server.datatypes import BY_NAME, Datatype
from workbench.server.errors import RequestError

Array = np.ndarray[Any, np.dtype[Any]]

MAX_EXTENT = 2**24
"""Most elements that the non-zero axes of a shape may span: a shape like [0, 2**40] costs the client nothing."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model. A dynamic axis is -1 in ``shape``."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]

    def metadata(self) -> dict[str, Any]:
        """The protocol's tensor metadata."""
        return {"name": self.name, "datatype": self.datatype.name, "shape": list(self.shape)}


class RequestInput(msgspec.Struct):
    """An input as the client sends it; ``data`` is left unread until the datatype is known."""

    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw(b"")


class RequestOutput(msgspec.Struct):
    """An output that the client asks for."""

    name: str


class InferRequest(msgspec.Struct):
    """The body of an inference request. ``parameters``, here and in the tensors, are accepted and not used."""

    inputs: list[RequestInput]
    id: str | None = None
    outputs: list[RequestOutput] | None = None


class ResponseOutput(msgspec.Struct):
    """An output as it is sent: elements flat, in row-major order."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any]


class InferResponse(msgspec.Struct, omit_defaults=True):
    """The body of an inference response."""

    model_name: str
    model_version: str
    outputs: list[ResponseOutput]
    id: str | None = None


_decoder = msgspec.json.Decoder(InferRequest)
_encoder = msgspec.json.Encoder()


def encode(value: Any) -> bytes:
    """``value`` (plain data or a struct of this module) as JSON bytes."""
    return _encoder.encode(value)


def decode_request(body: bytes | bytearray) -> InferRequest:
    """The request in ``body``; RequestError 400 where it is not one."""
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, f"the body is not an inference request: {error}") from None


def decode_inputs(request: InferRequest, specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    """The arrays of ``request`` by input name, checked against ``specs``: each input once, datatype, shape, count."""
    arrays: dict[str, Array] = {}
    for tensor in request.inputs:
        spec = specs.get(tensor.name)
        if spec is None:
            raise RequestError(400, f"the model has no input {tensor.name!r}; its inputs are {_names(specs)}")
        if tensor.name in arrays:
            raise RequestError(400, f"input {tensor.name!r} is given twice")
        arrays[tensor.name] = _array(tensor, spec)
    if len(arrays) != len(specs):
        missing = [name for name in specs if name not in arrays]
        raise RequestError(400, f"inputs are missing: {_names(missing)}")
    return arrays


def requested_outputs(request: InferRequest, specs: Mapping[str, TensorSpec]) -> list[str]:
    """The names of the outputs to compute: those asked for, in that order, or all."""
    if not request.outputs:
        return list(specs)
    names = [output.name for output in request.outputs]
    for name in names:
        if name not in specs:
            raise RequestError(400, f"the model has no output {name!r}; its outputs are {_names(specs)}")
    if len(set(names)) != len(names):
        raise RequestError(400, f"an output is asked for twice: {_names(names)}")
    return names


def encode_outputs(names: Sequence[str], arrays: Sequence[Array], specs: Mapping[str, TensorSpec]) -> list[Any]:
    """The protocol's output tensors."""
    return [
        ResponseOutput(name, specs[name].datatype.name, array.shape, array.ravel().tolist())
        for name, array in zip(names, arrays, strict=True)
    ]


def _array(tensor: RequestInput, spec: TensorSpec) -> Array:
    if tensor.datatype != spec.datatype.name:
        known = "" if tensor.datatype in BY_NAME else ", which the protocol does not know"
        raise RequestError(
            400, f"input {spec.name!r}: datatype is {tensor.datatype!r}{known}; the model takes {spec.datatype.name}"
        )
    shape = tuple(tensor.shape)
    _check_shape(shape, spec)
    elements = _elements(tensor, spec)
    if len(elements) != prod(shape):
        raise RequestError(
            400, f"input {spec.name!r}: shape {list(shape)} holds {prod(shape)} elements, the data has {len(elements)}"
        )
    return _converted(elements, spec).reshape(shape)


def _check_shape(shape: tuple[int, ...], spec: TensorSpec) -> None:
    fits = len(shape) == len(spec.shape) and all(
        have >= 0 and want in (-1, have) for have, want in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        raise RequestError(
            400,
            f"input {spec.name!r}: shape {list(shape)} does not fit the model's {list(spec.shape)} (-1: any extent)",
        )
    if prod(extent for extent in shape if extent) > MAX_EXTENT and 0 in shape:
        raise RequestError(400, f"input {spec.name!r}: shape {list(shape)} is absurd")


def _elements(tensor: RequestInput, spec: TensorSpec) -> list[Any]:
    raw = tensor.data
    if not raw:
        raise RequestError(400, f"input {spec.name!r} has no data; this server reads tensors as JSON")
    try:
        return spec.datatype.decode(raw)
    except msgspec.ValidationError as flat:
        # Nested lists are as legal as flat ones and far rarer, so they are tried second.
        return _flattened(raw, spec, tensor.shape, str(flat))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, f"input {spec.name!r}: the data cannot be read: {error}") from None


def _flattened(raw: msgspec.Raw, spec: TensorSpec, shape: list[int], complaint: str) -> list[Any]:
    """The elements of nested lists, whose nesting must be that of ``shape``."""
    nested: Any = spec.datatype.element
    for _ in shape:
        nested = list[nested]
    try:
        values: list[Any] = msgspec.json.decode(raw, type=nested)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise RequestError(
            400, f"input {spec.name!r}: the data is not of datatype {spec.datatype.name}: {complaint}"
        ) from None
    extents_fit = len(values) == shape[0]
    for extent in shape[1:]:
        extents_fit = extents_fit and all(len(inner) == extent for inner in values)
        values = [element for inner in values for element in inner]
    if not extents_fit:
        raise RequestError(400, f"input {spec.name!r}: the data is not nested as its shape {shape} says")
    return values


def _converted(elements: list[Any], spec: TensorSpec) -> Array:
    dtype = spec.datatype.dtype
    try:
        with np.errstate(over="ignore"):
            array = np.array(elements, dtype)
    except OverflowError:
        array = None
    if array is None or (dtype.kind == "f" and not np.isfinite(array).all()):
        raise RequestError(400, f"input {spec.name!r}: a value lies outside the range of {spec.datatype.name}")
    return array


def _names(names: Any) -> str:
    return ", ".join(repr(name) for name in names)
