"""Small models of the kinds that meet quantization in different ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = list[Any]


def model(nodes: list[onnx.NodeProto], x: Shape, y: Shape, weights: dict[str, Any], opset: int) -> onnx.ModelProto:
    """A checked model from x (float32) to y (float32)."""
    graph = helper.make_graph(
        nodes,
        "zoo",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    found = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(found, full_check=True)
    return found


def weight(seed: int, *shape: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    return values.astype(np.float32)


def mlp(opset: int = 17) -> onnx.ModelProto:
    """Gemm, Relu, Gemm: x[batch,16] -> y[batch,8]."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2"], ["y"]),
    ]
    weights = {"w1": weight(1, 64, 16), "b1": weight(2, 64), "w2": weight(3, 64, 8)}
    return model(nodes, ["batch", 16], ["batch", 8], weights, opset)


def convolutions(opset: int = 17, channels: int = 16) -> onnx.ModelProto:
    """Two convolutions with a residual addition: x[batch,3,8,8] -> y[batch,C,8,8]."""
    nodes = [
        helper.make_node("Conv", ["x", "k1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "k2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "r1"], ["s"]),
        helper.make_node("Relu", ["s"], ["r2"]),
        helper.make_node("Conv", ["r2", "k3"], ["y"], pads=[1, 1, 1, 1]),
    ]
    kernels = {"k1": weight(1, channels, 3, 3, 3)}
    kernels |= {f"k{i}": weight(i, channels, channels, 3, 3) for i in (2, 3)}
    return model(nodes, ["batch", 3, 8, 8], ["batch", channels, 8, 8], kernels, opset)


def attention(opset: int = 17) -> onnx.ModelProto:
    """A transformer-like block: products of weights, products of activations, softmax: x[batch,5,32] -> y."""
    nodes = [
        helper.make_node("MatMul", ["x", "wq"], ["q"]),
        helper.make_node("MatMul", ["x", "wk"], ["k"]),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["scores"]),
        helper.make_node("Add", ["scores", "mask"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["p"], axis=-1),
        helper.make_node("MatMul", ["x", "wv"], ["v"]),
        helper.make_node("MatMul", ["p", "v"], ["a"]),
        helper.make_node("MatMul", ["a", "wo"], ["o"]),
        helper.make_node("Add", ["o", "x"], ["y"]),
    ]
    mask = np.triu(np.full((5, 5), -np.inf, np.float32), 1)
    weights = {name: weight(i, 32, 32) * 3 for i, name in enumerate(("wq", "wk", "wv", "wo"))}
    return model(nodes, ["batch", 5, 32], ["batch", 5, 32], {**weights, "mask": mask}, opset)


def lstm(opset: int = 17) -> onnx.ModelProto:
    """One LSTM over 4 steps: x[4,batch,16] -> y[4,1,batch,32]."""
    nodes = [helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=32)]
    weights = {"w": weight(1, 1, 128, 16) * 4, "r": weight(2, 1, 128, 32) * 4}
    return model(nodes, [4, 1, 16], [4, 1, 1, 32], weights, opset)


def only_elementwise(opset: int = 17) -> onnx.ModelProto:
    """Nothing to quantize: x[batch,4] -> relu."""
    return model([helper.make_node("Relu", ["x"], ["y"])], ["batch", 4], ["batch", 4], {}, opset)
