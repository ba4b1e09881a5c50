"""Open Inference Protocol V2 over HTTP: request bytes to arrays, arrays to response bytes.

Tensors are JSON, or binary sections after the JSON as the binary tensor extension has them
(https://github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md): ``binary_data_size`` says
how long an input's section is, ``binary_data`` and ``binary_data_output`` how outputs are wanted.

Floats are written with the shortest text that reads back as the same float64, so a float32 survives the way through
JSON bit for bit. JSON has no word for NaN and the infinities: in a response they are ``null``, in a request they are
refused. Binary sections carry them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np

from workbench.server import nested
from workbench.server.errors import RequestError
from workbench.server.tensors import (
    Array,
    TensorSpec,
    add,
    check_complete,
    chosen_outputs,
    from_bytes,
    spec_of,
    to_bytes,
    wrong_count,
)

JSON = b"application/json"
BINARY = b"application/octet-stream"
HEADER_LENGTH = b"inference-header-content-length"
MAX_TIMEOUT_US = 2**53


Element = TypeVar("Element", float, int, bool, str)


class InputParameters(msgspec.Struct):
    """What a client adds to an input. ``binary_data_size``: bytes of its section after the JSON."""

    binary_data_size: int | None = None
    shared_memory_region: str | None = None


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: InputParameters | None = None


class RequestInput(_Input):
    """An input as the client sends it; ``data`` is left unread until the datatype is known."""

    data: msgspec.Raw = msgspec.Raw(b"")


class TypedInput(_Input, Generic[Element]):
    """An input of a model whose inputs all have elements of one type, as most clients send it: flat."""

    data: list[Element] | msgspec.UnsetType = msgspec.UNSET


AnyInput = RequestInput | TypedInput[Any]
Input = TypeVar("Input", RequestInput, TypedInput[Any])


class OutputParameters(msgspec.Struct):
    """What a client adds to an output that it asks for."""

    binary_data: bool | None = None
    classification: int = 0
    shared_memory_region: str | None = None


class RequestOutput(msgspec.Struct):
    """An output that the client asks for."""

    name: str
    parameters: OutputParameters | None = None


class RequestParameters(msgspec.Struct):
    """What a client adds to its request. ``timeout``: microseconds that it waits for the answer."""

    binary_data_output: bool = False
    timeout: int = 0


class InferRequest(msgspec.Struct, Generic[Input]):
    """The JSON of an inference request. Other parameters are accepted and not used."""

    inputs: list[Input]
    id: str | None = None
    outputs: list[RequestOutput] | None = None
    parameters: RequestParameters | None = None


class ResponseOutput(msgspec.Struct, omit_defaults=True):
    """An output as it is sent: elements flat, in row-major order, or ``parameters`` with its section's length."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any] | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, int] | None = None


class InferResponse(msgspec.Struct, omit_defaults=True):
    """The JSON of an inference response."""

    model_name: str
    model_version: str
    outputs: list[ResponseOutput]
    id: str | None = None


class Asked(msgspec.Struct, frozen=True):
    """A request, understood: arrays by input name, the outputs to compute, which of them go as binary sections."""

    feed: dict[str, Array]
    outputs: list[str]
    binary: frozenset[str] = frozenset()
    id: str | None = None
    timeout: float | None = None
    """Seconds that the client waits; None where it did not say."""


_decoder = msgspec.json.Decoder(InferRequest[RequestInput])
_typed: Mapping[type | None, msgspec.json.Decoder[InferRequest[Any]]] = {
    element: msgspec.json.Decoder(InferRequest[TypedInput[element]])  # type: ignore[valid-type]
    for element in (float, int, bool, str)
}
_encoder = msgspec.json.Encoder()
_NONE: frozenset[str] = frozenset()
_NO_BYTES = memoryview(b"")


def encode(value: Any) -> bytes:
    """``value`` (plain data or a struct of this module) as JSON bytes."""
    return _encoder.encode(value)


def decode(
    body: bytes | memoryview,
    header: int | None,
    inputs: Mapping[str, TensorSpec],
    outputs: Mapping[str, TensorSpec],
    element: type | None = None,
) -> Asked:
    """The request in ``body`` to a model with these ``inputs`` and ``outputs``; RequestError 400 where it is not one.

    ``header`` is the length of its JSON in bytes where binary sections follow, None where all of it is JSON.
    ``element`` is what the elements of all inputs are in JSON, where they are the same; it only makes it quicker.
    Arrays may share the memory of ``body``.
    """
    sections = _NO_BYTES
    if header is not None:
        if header > len(body):
            raise RequestError(400, f"the JSON is said to have {header} bytes, the body has {len(body)}")
        sections = memoryview(body)[header:]
        body = body[:header]
    request = _request(body, element)
    feed = _feed(request.inputs, sections, inputs)
    if request.outputs is None and request.parameters is None:
        return Asked(feed, list(outputs), id=request.id)
    names = chosen_outputs([output.name for output in request.outputs or ()], outputs)
    more = request.parameters or RequestParameters()
    binary = frozenset(_wanted_binary(request.outputs or (), names, default=more.binary_data_output))
    return Asked(feed, names, binary, request.id, timeout_seconds(more.timeout))


def _request(body: bytes | memoryview, element: type | None) -> InferRequest[Any]:
    if (typed := _typed.get(element)) is not None:
        try:
            return typed.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass  # nested, of another datatype, or wrong, which is said below
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, f"the body is not an inference request: {error}") from None


def timeout_seconds(timeout: int) -> float | None:
    """A client's ``timeout`` (microseconds, 0 for none) in seconds; RequestError 400 where it is out of range."""
    if not 0 <= timeout <= MAX_TIMEOUT_US:
        raise RequestError(400, f"timeout is {timeout}; it takes microseconds from 1 to {MAX_TIMEOUT_US}")
    return timeout / 1e6 if timeout else None


def answer(
    model: str, version: str, asked: Asked, results: Sequence[Array], specs: Mapping[str, TensorSpec]
) -> tuple[bytes, int | None]:
    """The body that answers ``asked``; with the length of its JSON where binary sections follow."""
    outputs, sections = [], []
    for name, array in zip(asked.outputs, results, strict=True):
        datatype = specs[name].datatype
        output = ResponseOutput(name, datatype.name, array.shape)
        if name in asked.binary:
            section = to_bytes(array, datatype)
            sections.append(section)
            output.parameters = {"binary_data_size": len(section)}
        else:
            output.data = array.ravel().tolist()
        outputs.append(output)
    head = _encoder.encode(InferResponse(model, version, outputs, asked.id))
    if not asked.binary:
        return head, None
    return b"".join([head, *sections]), len(head)


def _feed(tensors: Sequence[AnyInput], sections: memoryview, specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    at = 0
    for tensor in tensors:
        spec = spec_of(tensor.name, tensor.datatype, tensor.shape, specs)
        parameters = tensor.parameters
        size = None if parameters is None else parameters.binary_data_size
        if size is None:
            array = _from_json(tensor, spec)
        else:
            array, at = _from_section(tensor, spec, sections, at, size)
        add(arrays, tensor.name, array)
    if at != len(sections):
        raise RequestError(400, f"{len(sections) - at} bytes follow the JSON that no input's binary_data_size covers")
    check_complete(arrays, specs)
    return arrays


def _from_section(tensor: AnyInput, spec: TensorSpec, sections: memoryview, at: int, size: int) -> tuple[Array, int]:
    if tensor.data or isinstance(tensor.data, list):
        raise RequestError(400, f"input {spec.name!r} has both data and binary_data_size")
    if size < 0 or at + size > len(sections):
        raise RequestError(
            400, f"input {spec.name!r}: binary_data_size is {size}, {len(sections) - at} bytes are left of the body"
        )
    return from_bytes(sections[at : at + size], spec, tensor.shape), at + size


def _wanted_binary(wanted: Sequence[RequestOutput], names: Sequence[str], *, default: bool) -> set[str]:
    binary = set(names) if default else set()
    for output in wanted:
        if output.parameters is None:
            continue
        if output.parameters.classification or output.parameters.shared_memory_region is not None:
            raise RequestError(
                400, f"output {output.name!r}: the classification and shared memory extensions are not spoken here"
            )
        if output.parameters.binary_data is not None:
            (binary.add if output.parameters.binary_data else binary.discard)(output.name)
    return binary


def _from_json(tensor: AnyInput, spec: TensorSpec) -> Array:
    elements, shape = _elements(tensor, spec), tensor.shape
    if len(elements) != prod(shape):
        raise wrong_count(spec, shape, len(elements))
    return converted(elements, spec).reshape(shape)


def _elements(tensor: AnyInput, spec: TensorSpec) -> list[Any]:
    raw = tensor.data
    if isinstance(raw, list):
        return raw
    if not raw:
        if tensor.parameters and tensor.parameters.shared_memory_region is not None:
            raise RequestError(400, f"input {spec.name!r}: the shared memory extension is not spoken here")
        raise RequestError(400, f"input {spec.name!r} has no data")
    try:
        return spec.datatype.decode(raw)
    except msgspec.ValidationError as flat:
        # Nested lists are as legal as flat ones and far rarer, so they are tried second.
        return _flattened(raw, spec, tensor.shape, str(flat))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, f"input {spec.name!r}: the data cannot be read: {error}") from None


def _flattened(raw: msgspec.Raw, spec: TensorSpec, shape: list[int], complaint: str) -> list[Any]:
    """The elements of nested lists, whose nesting must be that of ``shape``."""
    if spec.datatype.element is not str and not nested.are_few(memoryview(raw)):
        return _numbers(bytes(raw), spec, shape, complaint)
    kind: Any = spec.datatype.element
    for _ in shape:
        kind = list[kind]
    try:
        values: Any = msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise RequestError(
            400, f"input {spec.name!r}: the data is not of datatype {spec.datatype.name}: {complaint}"
        ) from None
    if not shape:
        return [values]
    extents_fit = len(values) == shape[0]
    for extent in shape[1:]:
        extents_fit = extents_fit and all(len(inner) == extent for inner in values)
        values = [element for inner in values for element in inner]
    if not extents_fit:
        raise RequestError(400, f"input {spec.name!r}: the data is not nested as its shape {shape} says")
    found: list[Any] = values
    return found


def _numbers(raw: bytes, spec: TensorSpec, shape: list[int], complaint: str) -> list[Any]:
    wrong = f"input {spec.name!r}: the data is not of datatype {spec.datatype.name}"
    if not nested.has_shape(raw, shape):
        if nested.depth(raw) != len(shape):
            raise RequestError(400, f"{wrong}: {complaint}")
        raise RequestError(400, f"input {spec.name!r}: the data is not nested as its shape {shape} says")
    try:
        return spec.datatype.decode(msgspec.Raw(nested.flat(raw)))
    except msgspec.MsgspecError as error:
        raise RequestError(400, f"{wrong}: {error}") from None


def converted(elements: Sequence[Any], spec: TensorSpec) -> Array:
    """Numbers or strings of a request as an array; RequestError 400 where the datatype cannot hold one.

    There is no NaN among the numbers: JSON has no word for it.
    """
    dtype = spec.datatype.dtype
    try:
        if dtype.kind == "f":
            # Twice as quick as numpy, which besides makes an infinity of what is out of range.
            return np.frombuffer(struct.pack(f"<{len(elements)}{dtype.char}", *elements), dtype)
        return np.array(elements, dtype)
    except (OverflowError, struct.error):
        raise out_of_range(spec) from None


def out_of_range(spec: TensorSpec) -> RequestError:
    """What is said of a number that the datatype cannot hold."""
    return RequestError(400, f"input {spec.name!r}: a value lies outside the range of {spec.datatype.name}")
