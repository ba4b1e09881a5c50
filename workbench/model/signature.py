"""What goes into a model and what comes out: names, dtypes, shapes, the opset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto

from workbench.errors import UsageError

STANDARD_DOMAINS = ("", "ai.onnx")


def opset_of(model: ModelProto) -> int:
    """The version of the standard operator set, 0 where the model imports none."""
    return max((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), default=0)


def signature_of(model: ModelProto, location: str) -> dict[str, Any]:
    """``{"inputs": [{"name", "dtype", "shape"}], "outputs": [...], "opset"}``.

    dtypes are numpy names (``object`` for strings); a shape holds integers and names of dynamic axes. Raises
    :class:`UsageError` for inputs and outputs that are not dense tensors of known rank.
    """
    return {
        "inputs": [_entry(value, "input", location) for value in model.graph.input],
        "outputs": [_entry(value, "output", location) for value in model.graph.output],
        "opset": opset_of(model),
    }


def name_axes(model: ModelProto) -> None:
    """Give every unnamed dynamic axis of an input or output a name, so that graph and signature say the same.

    The first axis becomes ``batch``, another ``<tensor>_<axis>``. Sizes of 0 and less mean "any" to some exporters.
    """
    for value in (*model.graph.input, *model.graph.output):
        if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
            continue
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.dim_param and dim.dim_value <= 0:
                dim.dim_param = "batch" if axis == 0 else f"{value.name}_{axis}"


def write_signature(signature: Mapping[str, Any], path: Path) -> None:
    """Write the canonical JSON bytes."""
    path.write_text(json.dumps(signature, sort_keys=True, separators=(",", ":"), ensure_ascii=False), encoding="utf-8")


def read_signature(path: Path) -> dict[str, Any]:
    """What :func:`write_signature` wrote."""
    signature: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return signature


def in_words(entry: Mapping[str, Any]) -> str:
    """``pixels: float32[batch,1,8,8]``."""
    return f"{entry['name']}: {entry['dtype']}{shape_in_words(entry['shape'])}"


def shape_in_words(shape: Sequence[int | str]) -> str:
    """``[batch,1,8,8]``."""
    return "[" + ",".join(map(str, shape)) + "]"


def _entry(value: ValueInfoProto, role: str, location: str) -> dict[str, Any]:
    if not value.type.HasField("tensor_type"):
        kind = value.type.WhichOneof("value") or "value without a type"
        raise UsageError(
            f"{location}: the {role} {value.name!r} is not a tensor but a {kind.removesuffix('_type')}.",
            "Export it with tensors only (for scikit-learn models: options={'zipmap': False}).",
        )
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise UsageError(
            f"{location}: the {role} {value.name!r} has no shape.",
            "Export the model with shapes (axes may be dynamic).",
        )
    shape = [dim.dim_param or int(dim.dim_value) for dim in tensor.shape.dim]
    return {"name": value.name, "dtype": _dtype(tensor.elem_type, value.name, location), "shape": shape}


def _dtype(element: int, name: str, location: str) -> str:
    if element == TensorProto.STRING:
        return "object"
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(element).name)
    except (KeyError, ValueError, TypeError):
        raise UsageError(
            f"{location}: {name!r} has the unknown element type {element}.",
            "Export it with a released version of ONNX.",
        ) from None
