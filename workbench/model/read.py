"""Reading an ONNX file that nothing is known of: truncated, hostile, or with its weights in files beside it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from workbench.errors import UsageError

MAX_BYTES = 2**31 - 1
"""A protobuf message cannot be larger (2 GiB); the canonical model is one message with all weights inside."""

_NARROW_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}


def read_model(path: Path, location: str) -> tuple[ModelProto, dict[str, str]]:
    """The model in ``path`` with external data taken inside, and the external files read: ``{path: "sha256:…"}``.

    ``location`` is where the user has the file: errors name it, and external data is looked up in its folder only.
    Raises :class:`UsageError` for anything that is not a whole ONNX model of at most 2 GiB.
    """
    model = _parse(path, location)
    tensors = [tensor for tensor in all_tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    files = {_external(tensor, "location"): tensor for tensor in tensors}
    resolved = {name: _resolve(name, Path(location).parent, location) for name in sorted(files)}
    _check_total(path.stat().st_size, tensors, location)
    for tensor in tensors:
        _take_in(tensor, resolved[_external(tensor, "location")], location)
    for tensor in all_tensors(model):
        _check_size(tensor, location)
    folder = Path(location).parent
    return model, {(folder / name).as_posix(): _digest(file) for name, file in resolved.items()}


def external_files(path: Path) -> list[Path]:
    """The files beside the model in ``path`` that hold weights of it, there or not. Raises as :func:`read_model`."""
    tensors = [
        tensor for tensor in all_tensors(_parse(path, str(path))) if tensor.data_location == TensorProto.EXTERNAL
    ]
    return [path.parent / name for name in sorted({_external(tensor, "location") for tensor in tensors})]


def all_graphs(model: ModelProto) -> Iterator[GraphProto]:
    """Every graph of the model: the main one and the bodies of If, Loop and Scan."""
    yield model.graph
    for node in _deep_nodes(model):
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield attribute.g
            yield from attribute.graphs


def all_nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Every node of the model, those of nested graphs and of model-local functions too."""
    yield from _deep_nodes(model)


def all_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor stored in the model: initializers and attributes, nested ones too."""
    for graph in all_graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in _deep_nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (*([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),):
                yield from (sparse.values, sparse.indices)
            for sparse in attribute.sparse_tensors:
                yield from (sparse.values, sparse.indices)


def tensor_bytes(tensor: TensorProto) -> int:
    """Bytes that the tensor's values take: elements times the width of its type (0 for strings)."""
    elements: int = math.prod(tensor.dims)
    if tensor.data_type == TensorProto.STRING:
        return 0
    narrow = _NARROW_BITS.get(TensorProto.DataType.Name(tensor.data_type))
    if narrow:
        return -(-elements * narrow // 8)
    return elements * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _parse(path: Path, location: str) -> ModelProto:
    size = path.stat().st_size
    if size == 0:
        raise UsageError(f"{location} is empty.", "Export the model again.")
    if size > MAX_BYTES:
        raise _too_large(location, size)
    data = path.read_bytes()
    if data.startswith(b"version https://git-lfs"):
        raise UsageError(f"{location} is a Git LFS pointer, not the model itself.", "Fetch it with `git lfs pull`.")
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise UsageError(
            f"{location} is not an ONNX model, or it is truncated or damaged.", "Export or download it again."
        ) from None
    if not model.HasField("graph") or not model.graph.node or not model.opset_import:
        raise UsageError(f"{location} holds no ONNX graph.", "Give the .onnx file that the exporter wrote.")
    _check_text(model, location)
    model.ClearField("training_info")  # inference never reads it, and it may hold tensors and graphs of its own
    return model


def _check_text(model: ModelProto, location: str) -> None:
    """Names are text: protobuf hands bytes that are not UTF-8 through as they are."""
    names: list[Any] = [entry.domain for entry in model.opset_import]
    for node in all_nodes(model):
        names += [node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute)]
    for graph in all_graphs(model):
        for value in (*graph.input, *graph.output, *graph.value_info):
            names += [value.name, *(dim.dim_param for dim in value.type.tensor_type.shape.dim)]
    names += [tensor.name for tensor in all_tensors(model)]
    if not all(isinstance(name, str) for name in names):
        raise _not_text(location)


@contextmanager
def text_only(location: str) -> Iterator[None]:
    """Turn protobuf's complaint about some strings that are not UTF-8, raised as they are read, into a sentence."""
    try:
        yield
    except UnicodeDecodeError:
        raise _not_text(location) from None


def _not_text(location: str) -> UsageError:
    return UsageError(f"{location} holds names that are not text: it is damaged.", "Export or download it again.")


def _deep_nodes(model: ModelProto) -> Iterator[NodeProto]:
    stack = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while stack:
        node = stack.pop()
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                stack.extend(attribute.g.node)
            for graph in attribute.graphs:
                stack.extend(graph.node)


def _external(tensor: TensorProto, key: str) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == key), "")


def _number(tensor: TensorProto, key: str, location: str) -> int | None:
    text = _external(tensor, key)
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise UsageError(
            f"{location}: tensor {tensor.name!r} has {key} {text[:40]!r} in its external data, which is not a size.",
            "Export the model again.",
        )
    return int(text)


def _resolve(name: str, folder: Path, location: str) -> Path:
    parts = PurePosixPath(name).parts
    outside = UsageError(
        f"{location} wants its weights from {name[:200]!r}, which is outside the model's folder.",
        "Only files in the model's own folder are read; export the model with its data beside it.",
    )
    absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute() or PureWindowsPath(name).drive
    if not parts or absolute or ".." in parts or "\\" in name or "\0" in name:
        raise outside
    try:
        file = (folder / name).resolve(strict=True)
    except (OSError, RuntimeError):
        raise UsageError(
            f"{location}: the file {name[:200]!r} with the model's weights is missing.",
            f"Put it into {folder.as_posix()}.",
        ) from None
    if not file.is_relative_to(folder.resolve()):
        raise outside  # a symbolic link that leads out
    if not file.is_file():
        raise UsageError(f"{location}: {name[:200]!r} is not an ordinary file.", "Export the model again.")
    return file


def _check_total(size: int, tensors: list[TensorProto], location: str) -> None:
    """Refuse before anything is read: hostile sizes must not be allocated."""
    for tensor in tensors:
        if any(dim < 0 for dim in tensor.dims) or tensor.data_type == TensorProto.STRING:
            raise _bad_shape(tensor, location)
        size += tensor_bytes(tensor)
    if size > MAX_BYTES:
        raise _too_large(location, size)


def _take_in(tensor: TensorProto, file: Path, location: str) -> None:
    """Replace the reference to ``file`` by the bytes it refers to."""
    expected = tensor_bytes(tensor)
    offset = _number(tensor, "offset", location) or 0
    length = _number(tensor, "length", location)
    if length not in (None, expected) or offset + expected > file.stat().st_size:
        raise UsageError(
            f"{location}: tensor {tensor.name!r} needs {expected} bytes at {offset} of {file.name}, "
            f"which has {file.stat().st_size} bytes.",
            "The two files do not belong together, or one is truncated: export or download both again.",
        )
    with file.open("rb") as stream:
        stream.seek(offset)
        tensor.raw_data = stream.read(expected)
    del tensor.external_data[:]
    tensor.ClearField("data_location")


def _check_size(tensor: TensorProto, location: str) -> None:
    """A tensor has as many bytes as its shape says; typed fields are left to the ONNX checker."""
    if any(dim < 0 for dim in tensor.dims):
        raise _bad_shape(tensor, location)
    try:
        expected = tensor_bytes(tensor)
    except (KeyError, ValueError, TypeError):
        raise UsageError(
            f"{location}: tensor {tensor.name!r} has the unknown element type {tensor.data_type}.",
            "Export the model with a released version of ONNX.",
        ) from None
    # The widest typed element (a complex number in two floats) takes 16 bytes: less data than that cannot fill it.
    stored = len(tensor.raw_data) if tensor.HasField("raw_data") else None
    if (stored is not None and stored != expected) or (stored is None and expected > 16 * tensor.ByteSize()):
        raise _bad_shape(tensor, location)


def _bad_shape(tensor: TensorProto, location: str) -> UsageError:
    shape = list(tensor.dims[:8])
    return UsageError(
        f"{location}: tensor {tensor.name!r} says its shape is {shape}, which its data does not fit.",
        "The file is damaged: export or download it again.",
    )


def _too_large(location: str, size: int) -> UsageError:
    return UsageError(
        f"{location} needs {size / 2**30:.1f} GiB with all its weights; the limit of one ONNX file is 2 GiB.",
        "Export it in float16, or bring a smaller model.",
    )


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
