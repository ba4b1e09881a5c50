"""Synthetic models: as large as asked for, of random weights, written without being held in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper


def write_model(path: Path, width: int, layers: int, seed: int) -> int:
    """Writes an ONNX model of ``layers`` matrix products, float32 [batch, width] to the same; its size in bytes.

    Weights are normal with variance 1 / width: random, so that they compress as trained ones do.
    """
    names = [f"h{index}" for index in range(layers)]
    nodes = [
        helper.make_node("MatMul", [before, f"w{index}"], [name])
        for index, (before, name) in enumerate(zip(["x", *names], names, strict=False))
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]) for name in ("x", names[-1])]
    graph = helper.make_graph(nodes, "products", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    head = graph.SerializeToString()
    model.ClearField("graph")
    heads = [_tensor_head(f"w{index}", width) for index in range(layers)]
    weights = 4 * width * width
    graph_size = len(head) + sum(len(_field(5, len(each) + weights)) + len(each) + weights for each in heads)
    generator = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        # Fields of a protocol buffer may come in any order and in pieces: the graph is ours and its initializers after.
        file.write(model.SerializeToString() + _field(7, graph_size) + head)
        for each in heads:
            file.write(_field(5, len(each) + weights) + each)
            for _ in range(width):
                row = generator.standard_normal(width, dtype=np.float32) / np.float32(width**0.5)
                file.write(row.tobytes())
    return path.stat().st_size


def write_samples(path: Path, width: int, count: int) -> None:
    """Writes ``count`` inputs for such a model, without labels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x=np.random.default_rng(0).standard_normal((count, width), dtype=np.float32))


def _tensor_head(name: str, width: int) -> bytes:
    """A tensor without its last field, the raw data, of which the head is here."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[width, width])
    return bytes(tensor.SerializeToString()) + _field(9, 4 * width * width)


def _field(number: int, size: int) -> bytes:
    """The key and length of a length-delimited field (wire type 2)."""
    return _varint(number << 3 | 2) + _varint(size)


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])
