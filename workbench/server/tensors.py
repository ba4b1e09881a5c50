"""Tensors as every transport has them: what a model's input takes, and tensors as plain bytes.

Plain bytes are row-major and little-endian; elements of BYTES each come after their length in four bytes. That is both
the binary tensor extension of the protocol over HTTP and ``raw_input_contents`` over gRPC
(https://github.com/kserve/open-inference-protocol, "Tensor Data").
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from workbench.server.datatypes import BY_NAME, Datatype
from workbench.server.errors import RequestError

Array = np.ndarray[Any, np.dtype[Any]]

MAX_EXTENT = 2**24
"""Most elements that the non-zero axes of a shape may span: a shape like [0, 2**40] costs the client nothing."""

_LENGTH = 4
_TOLD_AXES = 64
"""A shape with more is told by their number: it may have millions, and one that fits has as many as the model's."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model. A dynamic axis is -1 in ``shape``."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]

    def metadata(self) -> dict[str, Any]:
        """The protocol's tensor metadata."""
        return {"name": self.name, "datatype": self.datatype.name, "shape": list(self.shape)}


def spec_of(name: str, datatype: str, shape: Sequence[int], specs: Mapping[str, TensorSpec]) -> TensorSpec:
    """What the model takes as ``name``; RequestError 400 where it has no such input, or takes something else there."""
    spec = specs.get(name)
    if spec is None:
        raise RequestError(400, f"the model has no input {name!r}; its inputs are {named(specs)}")
    if datatype != spec.datatype.name:
        known = "" if datatype in BY_NAME else ", which the protocol does not know"
        raise RequestError(
            400, f"input {name!r}: datatype is {datatype!r}{known}; the model takes {spec.datatype.name}"
        )
    _check_shape(shape, spec)
    return spec


def add(arrays: dict[str, Array], name: str, array: Array) -> None:
    """Puts an input among the ``arrays``; RequestError 400 where it is there already."""
    if name in arrays:
        raise RequestError(400, f"input {name!r} is given twice")
    arrays[name] = array


def check_complete(arrays: Mapping[str, Array], specs: Mapping[str, TensorSpec]) -> None:
    """RequestError 400 where an input of the model is missing."""
    if len(arrays) != len(specs):
        raise RequestError(400, f"inputs are missing: {named(name for name in specs if name not in arrays)}")


def chosen_outputs(names: Sequence[str], specs: Mapping[str, TensorSpec]) -> list[str]:
    """The outputs to compute: those of ``names``, in that order, or all where there is none."""
    if not names:
        return list(specs)
    for name in names:
        if name not in specs:
            raise RequestError(400, f"the model has no output {name!r}; its outputs are {named(specs)}")
    if len(set(names)) != len(names):
        raise RequestError(400, f"an output is asked for twice: {named(names)}")
    return list(names)


def from_bytes(data: bytes | memoryview, spec: TensorSpec, shape: Sequence[int]) -> Array:
    """The array of ``shape`` in ``data``, which it may share; RequestError 400 where it is no such tensor."""
    if spec.datatype.element is str:
        return np.array(list(_strings(memoryview(data), spec, prod(shape))), object).reshape(shape)
    dtype = spec.datatype.dtype
    expected = prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise RequestError(
            400,
            f"input {spec.name!r}: shape {list(shape)} of {spec.datatype.name} takes {expected} bytes, "
            f"the data has {len(data)}",
        )
    array: Array = np.frombuffer(data, dtype).reshape(shape)
    if dtype.kind == "b" and (array.view(np.uint8) > 1).any():
        raise RequestError(400, f"input {spec.name!r}: a byte of a BOOL tensor is neither 0 nor 1")
    # A tensor may begin anywhere in a body; kernels are entitled to whole elements.
    return array if array.flags.aligned else array.copy()


def _strings(data: memoryview, spec: TensorSpec, count: int) -> Iterator[str]:
    at = 0
    for _ in range(count):
        begin = at + _LENGTH
        at = begin + int.from_bytes(data[at:begin], "little")
        if begin > len(data) or at > len(data):
            raise RequestError(400, f"input {spec.name!r}: the data ends within one of its {count} elements")
        yield text(data[begin:at], spec)
    if at != len(data):
        raise RequestError(400, f"input {spec.name!r}: the data goes on after its {count} elements")


def text(element: bytes | memoryview, spec: TensorSpec) -> str:
    """An element of a BYTES tensor; RequestError 400 where it is no string of ONNX."""
    try:
        return str(element, "utf-8")
    except UnicodeDecodeError:
        raise RequestError(400, f"input {spec.name!r}: an element is not UTF-8, as strings of ONNX are") from None


def wrong_count(spec: TensorSpec, shape: Sequence[int], count: int) -> RequestError:
    """What is said of an input whose data has ``count`` elements and not those of its shape."""
    return RequestError(
        400,
        f"input {spec.name!r}: shape {list(shape)} holds {prod(shape)} elements, the data has {count}",
    )


def to_bytes(array: Array, datatype: Datatype) -> bytes:
    """``array`` as plain bytes."""
    if datatype.element is not str:
        return array.tobytes()
    elements = [str(element).encode() for element in array.ravel()]
    return b"".join(part for element in elements for part in (len(element).to_bytes(_LENGTH, "little"), element))


def size_in_memory(array: Array) -> int:
    """Bytes that it takes, with its strings where it has some."""
    if array.dtype.hasobject:
        return array.nbytes + sum(map(sys.getsizeof, array.ravel()))
    return array.nbytes


def named(names: Iterable[str]) -> str:
    """Names for a sentence."""
    return ", ".join(map(repr, names))


def _check_shape(shape: Sequence[int], spec: TensorSpec) -> None:
    fits = len(shape) == len(spec.shape)
    for have, want in zip(shape, spec.shape, strict=False):  # it may have millions, and ends with the shorter one
        if have != want and (want != -1 or have < 0):
            fits = False
    if not fits:
        told = str(list(shape)) if len(shape) <= _TOLD_AXES else f"of {len(shape)} axes"
        raise RequestError(
            400, f"input {spec.name!r}: shape {told} does not fit the model's {list(spec.shape)} (-1: any extent)"
        )
    if 0 in shape and prod(extent for extent in shape if extent) > MAX_EXTENT:
        raise RequestError(400, f"input {spec.name!r}: shape {list(shape)} is absurd")
