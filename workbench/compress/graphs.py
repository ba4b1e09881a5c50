"""The three int8 forms of a prepared model, each made in memory from nothing but the model and its ranges.

Weights have 7 bits (-64..64) in the static and dynamic forms. Without VNNI the int8 kernels add pairs of u8 x s8
products in 16 bits with saturation: with 8-bit weights 2 x 255 x 128 = 65280 overflows, with 7 bits 2 x 255 x 64 =
32640 <= 32767 never does. Measured on the digits CNN (p50 of one sample, onnxruntime 1.32, 1 thread, AVX512-VNNI;
float32 134 us) and under a Haswell (qemu), cosine to the original's outputs:

=====================  =======  ===============  ======================
form                   VNNI us  cosine on VNNI   cosine on Haswell
=====================  =======  ===============  ======================
u8 x s8                   57.5          0.99997  0.99874, 2 of 360 flip
u8 x s8, 7-bit weights    57.1          0.99995  0.99995, same bytes
u8 x u8                  114.1          0.99996  0.99996, same bytes
s8 x s8                   57.7          0.99997  0.99874, 2 of 360 flip
=====================  =======  ===============  ======================

So 7 bits: as fast as any, accurate everywhere, and the same integers on both machines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from workbench.compress.calibrate import Range
from workbench.compress.prepare import name_nodes
from workbench.compress.select import tables
from workbench.model.inspect import infer_shapes

DYNAMIC_OPS = ("MatMul", "LSTM", "Attention")
WEIGHT_ONLY_OPS = ("MatMul", "Gemm", "Conv", "ConvTranspose", "Gather", "LSTM", "GRU", "RNN")
_SMALL = 1024
"""Weights of fewer elements are not worth a scale."""


def static_int8(model: ModelProto, names: Sequence[str], ranges: Mapping[str, Range], per_channel: bool) -> ModelProto:
    """QDQ form: u8 activations with fixed ranges, s8 weights of 7 bits. ``model`` is used up."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    data = {
        name: TensorData(lowest=np.array(low, dtype=np.float32), highest=np.array(high, dtype=np.float32))
        for name, (low, high) in ranges.items()
    }
    operators = sorted({node.op_type for node in model.graph.node})
    clipped = _clipped(model, set(names))
    with _shapes_known():
        quantizer = QDQQuantizer(
            model,
            per_channel,
            True,  # reduce_range: 7-bit weights
            QuantType.QInt8,
            QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, data),
            list(names),
            [],
            operators,
            {"DefaultTensorType": TensorProto.FLOAT},
        )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized: ModelProto = quantizer.model.model
    _leave_float_results(quantized, set(names), clipped)
    return quantized


@contextmanager
def _shapes_known() -> Iterator[None]:
    """onnxruntime's quantizers take the model as it is: its shapes have been inferred.

    They would infer them once more, through a copy on disk that is named by a UUID of host and time. For that name
    libuuid talks to uuidd, asks for the MAC address and, as root, writes below /var/lib.
    """
    from onnxruntime.quantization import base_quantizer, onnx_quantizer

    name = "save_and_reload_model_with_shape_infer"
    before = {module: getattr(module, name) for module in (base_quantizer, onnx_quantizer)}
    try:
        for module in before:
            setattr(module, name, lambda model: model)
        yield
    finally:
        for module, function in before.items():
            setattr(module, name, function)


def _clipped(model: ModelProto, names: set[str]) -> set[str]:
    """Nodes followed by a ReLU or Clip that the quantizer takes out: rounding to a range then does its work."""
    readers = [node for node in model.graph.node if node.op_type in ("Relu", "Clip") and node.name in names]
    read = {node.input[0] for node in readers}
    return {node.name for node in model.graph.node if read.intersection(node.output)}


def _leave_float_results(model: ModelProto, names: set[str], clipped: set[str]) -> None:
    """Drop the rounding of a product's result to 8 bits where only float operators, or the caller, read it.

    The kernels of MatMul and Gemm give float32 as fast (that of Conv does not exist). It took a real MiniLM from a
    cosine of 0.92 to 0.986.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    dropped = []
    for maker, narrow, wide in _roundings(graph.node, makers, readers):
        if maker.name in clipped or any(reader.name in names for reader in readers.get(wide.output[0], [])):
            continue
        for reader in readers.get(wide.output[0], []):
            for index, name in enumerate(reader.input):
                reader.input[index] = narrow.input[0] if name == wide.output[0] else name
        if wide.output[0] in outputs:
            maker.output[0] = wide.output[0]
        dropped += [narrow, wide]
    for node in dropped:
        graph.node.remove(node)
    used = {name for node in graph.node for name in _all_names(node)}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _roundings(
    nodes: Sequence[NodeProto], makers: Mapping[str, NodeProto], readers: Mapping[str, Sequence[NodeProto]]
) -> Iterator[tuple[NodeProto, NodeProto, NodeProto]]:
    """Each product with the QuantizeLinear and DequantizeLinear behind it, where nothing else reads what is between."""
    for narrow in nodes:
        maker = makers.get(narrow.input[0]) if narrow.op_type == "QuantizeLinear" else None
        if maker is None or maker.op_type not in ("MatMul", "Gemm") or len(readers[narrow.input[0]]) != 1:
            continue
        behind = readers.get(narrow.output[0], ())
        if len(behind) == 1 and behind[0].op_type == "DequantizeLinear":
            yield maker, narrow, behind[0]


def _all_names(node: NodeProto) -> Iterator[str]:
    """What the node reads, in nested graphs too."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from _all_names(inner)


def dynamic_names(model: ModelProto) -> list[str]:
    """Nodes that dynamic int8 takes: products and LSTMs with float32 weights, large embedding tables.

    A Gemm becomes MatMul and Add first, in place: there is no dynamic form of it. Convolutions are left out:
    ConvInteger is 4 to 10 times slower than float32 on a CPU.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel

    ONNXModel(model).replace_gemm_with_matmul()
    name_nodes(model)
    infer_shapes(model)
    weights = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    heavy = {
        n.name for n in model.graph.node if n.op_type in DYNAMIC_OPS and len(n.input) > 1 and n.input[1] in weights
    }
    heavy.update(tables(model))
    return [node.name for node in model.graph.node if node.name in heavy]


def dynamic_int8(model: ModelProto, names: Sequence[str], per_channel: bool) -> ModelProto:
    """Integer form: activations get their range as they come, s8 weights of 7 bits. ``model`` is used up."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
    from onnxruntime.quantization.quant_utils import QuantizationMode

    with _shapes_known():
        quantizer = ONNXQuantizer(
            model,
            per_channel,
            True,  # reduce_range: 7-bit weights
            QuantizationMode.IntegerOps,
            False,
            QuantType.QInt8,
            QuantType.QUInt8,
            None,
            list(names),
            [],
            [*DYNAMIC_OPS, "Gather"],
            {"MatMulConstBOnly": True, "DefaultTensorType": TensorProto.FLOAT},
        )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized: ModelProto = quantizer.model.model
    return quantized


def count_integer_nodes(model: ModelProto) -> int:
    """How many nodes read int8 weights themselves, as all of the dynamic form do."""
    small = {t.name for t in model.graph.initializer if t.data_type in (TensorProto.INT8, TensorProto.UINT8) and t.dims}
    return sum(bool(small.intersection(node.input)) for node in model.graph.node)


def weights_int8(model: ModelProto, per_channel: bool) -> tuple[ModelProto, int]:
    """Weights stored as 8-bit integers and scales; computes in float32. Returns the model and how many nodes it is for.

    Written as Cast and Mul, not DequantizeLinear: onnxruntime folds the first two into a float32 constant as it loads
    the model, with any session options, and would carry the other out at every call.
    """
    graph = model.graph
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    chosen = [tensor for tensor in graph.initializer if _worth_storing(tensor, readers.get(tensor.name, []))]
    nodes: list[NodeProto] = []
    for tensor in chosen:
        axis = _channel_axis(readers[tensor.name], len(tensor.dims)) if per_channel else None
        nodes.extend(_store(graph, tensor, axis))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    return model, sum(len(readers[tensor.name]) for tensor in chosen)


def _worth_storing(tensor: TensorProto, readers: Sequence[NodeProto]) -> bool:
    heavy = bool(readers) and all(node.op_type in WEIGHT_ONLY_OPS for node in readers)
    return (
        heavy and tensor.data_type == TensorProto.FLOAT and len(tensor.dims) >= 2 and math.prod(tensor.dims) >= _SMALL
    )


def _channel_axis(readers: Sequence[NodeProto], rank: int) -> int:
    """The axis of output channels: 0 for convolutions and rows of a table, the columns of a product."""
    node = readers[0]
    if node.op_type == "MatMul":
        return rank - 1
    if node.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return 1 if node.op_type in ("ConvTranspose", "LSTM", "GRU", "RNN") else 0


def _store(graph: Any, tensor: TensorProto, axis: int | None) -> Iterator[NodeProto]:
    """Replace the initializer by its integers and scales, and yield the nodes that make it float again."""
    name = tensor.name
    values = numpy_helper.to_array(tensor)
    scale = _scales(values, axis)
    integers = np.clip(np.rint(values / scale), -127, 127).astype(np.int8)
    graph.initializer.remove(tensor)
    graph.initializer.append(numpy_helper.from_array(integers, f"{name}//int8"))
    graph.initializer.append(numpy_helper.from_array(scale, f"{name}//scale"))
    yield helper.make_node("Cast", [f"{name}//int8"], [f"{name}//float"], name=f"{name}//cast", to=TensorProto.FLOAT)
    yield helper.make_node("Mul", [f"{name}//float", f"{name}//scale"], [name], name=f"{name}//mul")


def _scales(values: NDArray[Any], axis: int | None) -> NDArray[np.float32]:
    others = None if axis is None else tuple(i for i in range(values.ndim) if i != axis)
    largest = np.max(np.abs(values), axis=others, keepdims=True)
    return np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
