"""What a model is made of: signature, operators by kind, parameters, FLOPs, size by layer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from workbench.errors import UsageError
from workbench.model.read import all_graphs, all_nodes, read_model, tensor_bytes, text_only
from workbench.model.signature import name_axes, opset_of, signature_of

MAX_LAYERS = 200
_FLOAT_BYTES = 4
_SMALL = 4096
"""Constants up to so many elements stay in the skeleton: shapes are computed from them (Reshape, Slice, Expand)."""

_LEARNED = frozenset(
    {"coefficients", "intercepts", "support_vectors", "rho", "prob_a", "prob_b", "scale", "offset"}
    | {"nodes_values", "nodes_splits", "leaf_weights", "target_weights", "class_weights", "base_values"}
)
"""Where operators of ai.onnx.ml have what they learned: in attributes, and not in weights."""

Shape = Sequence[int | str | None]
Shapes = Mapping[str, Shape]


def inspect(path: str | Path) -> dict[str, Any]:
    """Read the model file and summarise it, as ``workbench inspect`` shows it. Raises :class:`UsageError`."""
    location = str(path)
    if not Path(path).is_file():
        raise UsageError(f"There is no file {location}.", "Give the path of an ONNX model.")
    with text_only(location):
        model, also_read = read_model(Path(path), location)
        name_axes(model)
        infer_shapes(model)
        summary = summarise(model, signature_of(model, location))
    return {**summary, "size": Path(path).stat().st_size, "also_read": also_read}


def summarise(model: ModelProto, signature: Mapping[str, Any]) -> dict[str, Any]:
    """``signature``, ``opset``, ``parameters`` (elements), ``flops``, ``operators``, ``layers``.

    ``flops`` is for one sample, 2 for each multiply-add, of convolutions, matrix products, recurrent layers, linear
    models and support vectors; None where a shape that it needs is not known (a dynamic axis besides the batch).
    """
    weights = [tensor for graph in all_graphs(model) for tensor in graph.initializer]
    layers = _layers(model, _one_sample_shapes(model))
    heaviest = sorted(range(len(layers)), key=lambda i: (-layers[i]["bytes"], i))[:MAX_LAYERS]
    flops = [layer["flops"] for layer in layers]
    return {
        "signature": dict(signature),
        "opset": opset_of(model),
        "parameters": sum(math.prod(tensor.dims) for tensor in weights) + sum(map(_learned, all_nodes(model))),
        "flops": None if None in flops else sum(flops),
        "operators": dict(sorted(Counter(_kind(node) for node in all_nodes(model)).items())),
        "layers": [layers[i] for i in sorted(heaviest)],
    }


def infer_shapes(model: ModelProto) -> None:
    """Write what ONNX shape inference finds into the model's ``value_info`` and outputs.

    Runs on a skeleton without the large weights: inference serialises its argument twice over. What it cannot infer
    stays unknown, and onnxruntime has the last word on whether the types fit.
    """
    inferred = _inferred(_skeleton(model))
    if inferred is None:
        return
    known = {value.name for value in model.graph.value_info}
    model.graph.value_info.extend(value for value in inferred.graph.value_info if value.name not in known)
    found = {value.name: value for value in inferred.graph.output}
    for value in model.graph.output:
        if value.name in found and not value.type.tensor_type.HasField("shape"):
            value.type.CopyFrom(found[value.name].type)


def _skeleton(model: ModelProto) -> ModelProto:
    """The model with its large weights turned into inputs of the same type."""
    skeleton = ModelProto(ir_version=max(model.ir_version, 4))
    skeleton.opset_import.extend(model.opset_import)
    skeleton.functions.extend(model.functions)
    graph = skeleton.graph
    graph.name = model.graph.name or "model"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= _SMALL:
            graph.initializer.append(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return skeleton


def _inferred(skeleton: ModelProto) -> ModelProto | None:
    try:
        return onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return None


def _one_sample_shapes(model: ModelProto) -> Shapes:
    """Every tensor's shape for a batch of one: the dynamic first axis of the inputs is 1 everywhere."""
    skeleton = _skeleton(model)
    del skeleton.graph.value_info[:]
    for value in skeleton.graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = 1
    for value in skeleton.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    graph = (_inferred(skeleton) or skeleton).graph
    shapes = {value.name: _dims(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    shapes.update({tensor.name: list(tensor.dims) for tensor in model.graph.initializer})
    return shapes


def _dims(value: Any) -> Shape:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in dims]


def _layers(model: ModelProto, shapes: Shapes) -> list[dict[str, Any]]:
    """The nodes that hold weights or do heavy arithmetic. A weight counts where it is used first."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = []
    for index, node in enumerate(model.graph.node):
        own = [weights.pop(name) for name in _used(node) if name in weights]
        flops, learned = _flops(node, shapes), _learned(node)
        if own or learned or flops != 0:
            layers.append(
                {
                    "name": node.name or f"{node.op_type}_{index}",
                    "op": _kind(node),
                    "parameters": sum(math.prod(tensor.dims) for tensor in own) + learned,
                    "bytes": sum(_stored(tensor) for tensor in own) + learned * _FLOAT_BYTES,
                    "flops": flops,
                }
            )
    return layers


def _learned(node: NodeProto) -> int:
    """How many numbers the node has learned and keeps in attributes."""
    if node.domain != "ai.onnx.ml":
        return 0
    found = sum(_length(each) for each in node.attribute if each.name.removesuffix("_as_tensor") in _LEARNED)
    # Leaves of a tree have a value that nothing is compared with.
    modes = [mode for each in node.attribute if each.name == "nodes_modes" for mode in each.strings]
    return found - modes.count(b"LEAF")


def _length(attribute: AttributeProto) -> int:
    return math.prod(attribute.t.dims) if attribute.HasField("t") else len(attribute.floats)


def _used(node: NodeProto) -> list[str]:
    """Names that the node reads, those read inside its bodies too."""
    names = list(dict.fromkeys(node.input))
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            names.extend(_used_in(graph))
    return names


def _used_in(graph: GraphProto) -> list[str]:
    return [name for node in graph.node for name in _used(node)]


def _stored(tensor: TensorProto) -> int:
    return sum(map(len, tensor.string_data)) if tensor.data_type == TensorProto.STRING else tensor_bytes(tensor)


def _kind(node: NodeProto) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def _flops(node: NodeProto, shapes: Shapes) -> int | None:
    """FLOPs of one node: 2 x multiply-adds, by the operator's definition in the ONNX specification."""
    rule = _RULES.get(node.op_type)
    if rule is None:
        return 0
    try:
        return 2 * rule(node, shapes)
    except _UnknownShapeError:
        return None


class _UnknownShapeError(Exception):
    """A shape that the count needs is dynamic or unknown."""


def _shape(node: NodeProto, index: int, shapes: Shapes) -> list[int]:
    shape = shapes.get(node.input[index]) if index < len(node.input) else None
    return _known(shape)


def _out(node: NodeProto, shapes: Shapes) -> int:
    return math.prod(_known(shapes.get(node.output[0])))


def _known(shape: Shape | None) -> list[int]:
    if shape is None or not all(isinstance(dim, int) for dim in shape):
        raise _UnknownShapeError
    return [int(dim) for dim in shape if dim is not None]


def _attribute(node: NodeProto, name: str) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), 0)


def _conv(weight: int) -> Callable[[NodeProto, Shapes], int]:
    """Each output element sums over one filter: input channels of the group x kernel."""
    return lambda node, shapes: _out(node, shapes) * math.prod(_shape(node, weight, shapes)[1:])


def _conv_transpose(node: NodeProto, shapes: Shapes) -> int:
    """Each input element is spread over one filter: output channels of the group x kernel."""
    return math.prod(_shape(node, 0, shapes)) * math.prod(_shape(node, 1, shapes)[1:])


def _matmul(node: NodeProto, shapes: Shapes) -> int:
    """Each output element sums over the last axis of A."""
    return _out(node, shapes) * (_shape(node, 0, shapes) or [1])[-1]


def _gemm(node: NodeProto, shapes: Shapes) -> int:
    return _out(node, shapes) * _shape(node, 0, shapes)[0 if _attribute(node, "transA") else 1]


def _recurrent(node: NodeProto, shapes: Shapes) -> int:
    """Each time step of each sequence multiplies by W and by R."""
    steps_and_batch = _shape(node, 0, shapes)[:2]
    return math.prod(steps_and_batch) * sum(math.prod(_shape(node, index, shapes)) for index in (1, 2))


def _products(node: NodeProto, _shapes: Shapes) -> int:
    """A sample is multiplied by every coefficient, and by every support vector."""
    return sum(len(each.floats) for each in node.attribute if each.name in ("coefficients", "support_vectors"))


_RULES: Mapping[str, Callable[[NodeProto, Shapes], int]] = {
    "Conv": _conv(1),
    "ConvInteger": _conv(1),
    "QLinearConv": _conv(3),
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "LinearClassifier": _products,
    "LinearRegressor": _products,
    "SVMClassifier": _products,
    "SVMRegressor": _products,
}
