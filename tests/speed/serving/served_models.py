"""The models that all sides serve, and the input that each is asked about.

Weights are random: what is measured does not depend on them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save

from workbench.server.session import open_session

Array = np.ndarray[Any, np.dtype[np.float32]]

FEATURES = 30
IMAGE = (3, 48, 192)
SLOW_SECONDS = 0.020
_SIDE, _CHANNELS = 28, 64


def path_of(folder: Path, name: str) -> Path:
    """Where a model lies in ``folder``, which is laid as a server takes it: ``<name>/m/1/model.onnx``."""
    return folder / name / "m" / "1" / "model.onnx"


def write_all(folder: Path) -> None:
    """Writes the models anew: ``mlp`` with 30 features, ``image`` of 3x48x192, and ``slow`` with 30 features and about
    20 ms a run on this machine, row by row."""
    _save(path_of(folder, "mlp"), [FEATURES], *_mlp())
    _save(path_of(folder, "image"), list(IMAGE), *_convolutions())
    one, several = (_seconds_of(folder, layers) for layers in (1, 5))
    layer = (several - one) / 4
    _save(path_of(folder, "slow"), [FEATURES], *_slow(max(1, round((SLOW_SECONDS - one) / layer) + 1)))


def example(name: str) -> Array:
    """One row of input to the model ``name``: measurements, or an image of 8 bits scaled to 0 and 1."""
    source = np.random.default_rng(0)
    if name == "image":
        return (source.integers(0, 256, (1, *IMAGE)) / 255).astype(np.float32)
    return source.standard_normal((1, FEATURES), dtype=np.float32)


Part = tuple[list[Any], dict[str, Array]]


def _mlp() -> Part:
    """30 - 64 - 32 - 2, with a softmax."""
    nodes, weights, before = [], {}, "x"
    for index, (rows, columns) in enumerate([(FEATURES, 64), (64, 32), (32, 2)]):
        weights |= {f"w{index}": _random(rows, columns), f"b{index}": np.zeros(columns, np.float32)}
        nodes.append(helper.make_node("Gemm", [before, f"w{index}", f"b{index}"], [f"g{index}"]))
        nodes.append(helper.make_node("Relu", [f"g{index}"], [f"h{index}"]))
        before = f"h{index}"
    nodes[-1] = helper.make_node("Softmax", ["g2"], ["y"], axis=-1)
    return nodes, weights


def _convolutions() -> Part:
    """A small classifier of text lines: four convolutions, mean over the image, ten classes."""
    nodes, weights, before = [], {}, "x"
    for index, (channels, filters, stride) in enumerate([(3, 16, 2), (16, 32, 2), (32, 64, 1), (64, 64, 1)]):
        weights[f"w{index}"] = _random(filters, channels, 3, 3)
        nodes.append(_convolution(before, index, stride))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"h{index}"]))
        before = f"h{index}"
    weights["w"] = _random(64, 10)
    nodes += [
        helper.make_node("GlobalAveragePool", [before], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["y"], axis=-1),
    ]
    return nodes, weights


def _slow(layers: int) -> Part:
    """Convolutions one after the other, over a few features: a small request and much to compute."""
    weights = {
        "spread": _random(FEATURES, _CHANNELS * _SIDE * _SIDE),
        "shape": np.array([-1, _CHANNELS, _SIDE, _SIDE], np.int64),
        **{f"w{index}": _random(_CHANNELS, _CHANNELS, 3, 3) for index in range(layers)},
    }
    nodes = [
        helper.make_node("MatMul", ["x", "spread"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["c"]),
        *[_convolution(f"c{index - 1}" if index else "c", index, 1) for index in range(layers)],
        helper.make_node("ReduceMean", [f"c{layers - 1}"], ["y"], axes=[2, 3], keepdims=0),
    ]
    return nodes, weights


def _convolution(before: str, index: int, stride: int) -> Any:
    sizes = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [stride, stride]}
    return helper.make_node("Conv", [before, f"w{index}"], [f"c{index}"], **sizes)


def _random(*shape: int) -> Array:
    fan_in = shape[0] if len(shape) == 2 else int(np.prod(shape[1:]))
    return np.random.default_rng(len(shape)).standard_normal(shape, dtype=np.float32) / np.float32(fan_in**0.5)


def _save(path: Path, row: list[int], nodes: list[Any], weights: Mapping[str, Array]) -> None:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *row])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", None])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(model, path)


def _seconds_of(folder: Path, layers: int) -> float:
    """The median run of the slow model with so many layers."""
    path = path_of(folder, "slow")
    _save(path, [FEATURES], *_slow(layers))
    session, feed = open_session(path), {"x": example("slow")}
    taken = []
    for _ in range(21):
        start = time.perf_counter()
        session.run(None, feed)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)
