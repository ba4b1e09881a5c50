"""Small ONNX models, and requests to the application without a network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from workbench.server.app import App
from workbench.server.batcher import Limits
from workbench.server.repository import Loader, Repository

Answer = tuple[Any, ...]
Ask = Callable[..., Answer]

TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def write_model(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: Any = ()) -> Path:
    """A model file."""
    graph = helper.make_graph(nodes, "graph", inputs, outputs, list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def identity(path: Path) -> Path:
    """A model that gives back an input of each datatype: in_FP32 as out_FP32 and so on."""
    return write_model(
        path,
        [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in TYPES],
        [helper.make_tensor_value_info(f"in_{name}", kind, ["n"]) for name, kind in TYPES.items()],
        [helper.make_tensor_value_info(f"out_{name}", kind, ["n"]) for name, kind in TYPES.items()],
    )


def affine(path: Path, factor: float = 2.0) -> Path:
    """x (n, 3) gives double = factor * x and total (n, 1) = the sum of each row."""
    return write_model(
        path,
        [
            helper.make_node("Mul", ["x", "factor"], ["double"]),
            helper.make_node("ReduceSum", ["x", "axis"], ["total"], keepdims=1),
        ],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [
            helper.make_tensor_value_info("double", TensorProto.FLOAT, ["n", 3]),
            helper.make_tensor_value_info("total", TensorProto.FLOAT, ["n", 1]),
        ],
        [
            numpy_helper.from_array(np.array(factor, np.float32), "factor"),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
    )


def lookup(path: Path) -> Path:
    """index (1) gives the row of a table with 4 rows: an index beyond is found out by the operator only."""
    return write_model(
        path,
        [helper.make_node("Gather", ["table", "index"], ["row"])],
        [helper.make_tensor_value_info("index", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(4, 2), "table")],
    )


def slow(path: Path) -> Path:
    """x (n, 3) gives y (n, 3), whose rows are all the same; a run takes some tenths of a second of a processor."""
    size = 1024
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0, 1], keepdims=1),
        helper.make_node("Expand", ["mean", "square"], ["power_0"]),
        *[helper.make_node("MatMul", [f"power_{at}", "w"], [f"power_{at + 1}"]) for at in range(16)],
        helper.make_node("ReduceMean", ["power_16"], ["all"], axes=[0, 1], keepdims=1),
        helper.make_node("Add", ["x", "all"], ["y"]),
    ]
    return write_model(
        path,
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [
            numpy_helper.from_array(np.array([size, size], np.int64), "square"),
            numpy_helper.from_array(np.eye(size, dtype=np.float32), "w"),
        ],
    )


def chain(path: Path, layers: int, width: int, seed: int = 0) -> Path:
    """x (n, width) through ``layers`` products with weights of their own gives y (n, width)."""
    source = np.random.default_rng(seed)
    names = ["x", *[f"h{at}" for at in range(1, layers)], "y"]
    weights = [source.standard_normal((width, width)).astype(np.float32) / width**0.5 for _ in range(layers)]
    return write_model(
        path,
        [helper.make_node("MatMul", [names[at], f"w{at}"], [names[at + 1]]) for at in range(layers)],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])],
        [numpy_helper.from_array(each, f"w{at}") for at, each in enumerate(weights)],
    )


def load_models(files: Mapping[str, Mapping[str, Path]], limits: Limits = Limits()) -> Repository:  # noqa: B008
    """Model files by name and version, loaded."""
    loader = Loader(1, limits)
    return Repository(loader, loader.load_all(files, {}))


def asker(app: App) -> Ask:
    """A function that puts one request to ``app`` and returns status and decoded answer."""

    def ask(path: str, body: Any = None, method: str = "", headers: Any = (), pieces: int = 1) -> Answer:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        scope = {
            "type": "http",
            "method": method or ("POST" if body is not None else "GET"),
            "path": path,
            "headers": list(headers),
        }
        size = max(1, -(-len(raw) // pieces))
        parts = [raw[start : start + size] for start in range(0, len(raw), size)] or [b""]
        messages = [
            {"type": "http.request", "body": part, "more_body": number < len(parts) - 1}
            for number, part in enumerate(parts)
        ]
        sent: list[Any] = []

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(app(scope, receive, send))
        start, content = sent
        given = dict(start["headers"])
        assert given[b"content-length"] == b"%d" % len(content["body"])
        if given[b"content-type"] == b"application/octet-stream":
            return start["status"], content["body"], int(given[b"inference-header-content-length"])
        if given[b"content-type"] != b"application/json":
            return start["status"], content["body"], given[b"content-type"].decode()
        return start["status"], json.loads(content["body"])

    return ask
