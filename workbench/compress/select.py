"""Which nodes static int8 takes: the heavy ones, and what lies between them."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable

from onnx import ModelProto, NodeProto, TensorProto

WEIGHTED = ("Conv", "MatMul", "Gemm")
BETWEEN = frozenset(
    {"Relu", "Clip", "LeakyRelu", "Sigmoid", "Add", "Mul", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool"}
    | {"Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Split", "Slice", "Pad", "Resize"}
)
"""Operators with an int8 kernel on a CPU. The others would be float islands: dequantize, compute, quantize again."""
_MERGED = ("Relu", "Clip")
"""Behind a convolution, whose result is 8 bits in any case, these cost nothing: the range does their work."""
_TABLE = 4096
"""Elements from which an embedding table is worth it."""


def nodes_to_quantize(model: ModelProto) -> list[str]:
    """Names of the nodes of static int8.

    Taken are convolutions, Gemm and MatMul with float32 weights (attention products of two activations are not: they
    cost accuracy and little time); embedding tables (for their size); and an operator in between only where what comes
    in is int8 already and everything it feeds is int8 too. So residual additions of a CNN stay in int8, and those of a
    transformer, which feed float normalisations, stay in float: quantizing these too took a real MiniLM to a cosine of
    0.80.
    """
    nodes = list(model.graph.node)
    weights = _float_weights(model)
    producers = {name: node for node in nodes for name in node.output}
    consumers: dict[str, list[NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    heavy = {node.name for node in nodes if _is_weighted(node, weights)}
    convolutions = {node.name for node in nodes if node.name in heavy and node.op_type == "Conv"}
    merged = {node.name for node in nodes if node.op_type in _MERGED and _from(node, producers, convolutions)}
    fixed = heavy | merged | set(tables(model))
    chosen = fixed | {node.name for node in nodes if node.op_type in BETWEEN}
    outputs = {value.name for value in model.graph.output}
    while True:
        kept = {
            node.name
            for node in nodes
            if node.name in fixed
            or (node.name in chosen and _from(node, producers, chosen) and _feeds(node, consumers, chosen, outputs))
        }
        if kept == chosen:
            return [node.name for node in nodes if node.name in chosen]
        chosen = kept


def tables(model: ModelProto) -> list[str]:
    """Names of the lookups (Gather) in large float32 tables."""
    large = {name for name, size in _float_weights(model).items() if size >= _TABLE}
    return [node.name for node in model.graph.node if node.op_type == "Gather" and node.input[0] in large]


def count_weighted(model: ModelProto, names: Iterable[str]) -> int:
    """How many of the named nodes are convolutions and matrix products."""
    wanted = set(names)
    return sum(node.name in wanted and node.op_type in WEIGHTED for node in model.graph.node)


def _float_weights(model: ModelProto) -> dict[str, int]:
    """Elements of each float32 initializer."""
    floats = (tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT)
    return {tensor.name: math.prod(tensor.dims) for tensor in floats}


def _is_weighted(node: NodeProto, weights: Container[str]) -> bool:
    return node.op_type in WEIGHTED and len(node.input) > 1 and node.input[1] in weights


def _from(node: NodeProto, producers: dict[str, NodeProto], chosen: set[str]) -> bool:
    return any(name in producers and producers[name].name in chosen for name in node.input)


def _feeds(node: NodeProto, consumers: dict[str, list[NodeProto]], chosen: set[str], outputs: set[str]) -> bool:
    """Everything that reads the node is chosen, and the caller does not see it (an output is better in float)."""
    readers = [reader for name in node.output for reader in consumers.get(name, [])]
    return bool(readers) and all(r.name in chosen for r in readers) and not outputs.intersection(node.output)
