"""Is this a model workbench can work with? Each refusal is one sentence that names the file and the cure."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from workbench.errors import UsageError
from workbench.model.read import all_graphs, all_nodes
from workbench.model.signature import opset_of

MIN_OPSET = 11
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Operators onnxruntime brings itself. Its layout-optimised domains are not among them: they fit one machine only."""

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_WEIGHTED = frozenset(
    {"Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum", "LSTM", "GRU", "RNN", "PRelu", "Gather"}
    | {"BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization"}
)


def check_operators(model: ModelProto, location: str) -> None:
    """Opset at least 11, and only operators that a plain onnxruntime has."""
    opset = opset_of(model)
    if opset < MIN_OPSET:
        raise UsageError(
            f"{location} uses opset {opset}; the oldest supported is {MIN_OPSET}.",
            "Export it with a newer opset (17 is a good choice).",
        )
    own = {(function.domain, function.name) for function in model.functions}
    foreign = [node for node in all_nodes(model) if _foreign(node, own)]
    if foreign:
        names = ", ".join(sorted({node.op_type for node in foreign})[:5])
        raise UsageError(
            f"{location} uses operators ({names}) of the domain {foreign[0].domain!r}, which onnxruntime lacks.",
            "Export the model with standard ONNX operators.",
        )


def check_weights(model: ModelProto, location: str) -> None:
    """No NaN, and no infinite weights.

    Infinities are legitimate in two places and allowed there: as a scalar bound, and as -inf in an attention mask (a
    constant that no weighted operator reads).
    """
    weighted = _read_by_weighted(all_nodes(model))
    for name, tensor in _constants(model):
        if tensor.data_type not in _FLOATS:
            continue
        values = _values(tensor, name, location)
        if np.all(np.isfinite(values)):
            continue
        mask_or_bound = values.size == 1 or (name not in weighted and not np.any(np.isposinf(values)))
        if np.any(np.isnan(values)) or not mask_or_bound:
            bad = int(np.count_nonzero(~np.isfinite(values)))
            raise UsageError(
                f"{location}: the weight {name!r} has {bad} values that are NaN or infinite.",
                "Training diverged or the file is damaged: export an earlier checkpoint.",
            )


def check_standard(data: bytes, location: str) -> None:
    """The ONNX checker accepts it."""
    try:
        onnx.checker.check_model(data)
    except (onnx.checker.ValidationError, ValueError) as error:
        reason = first_line(error)
        raise UsageError(f"{location} is not a valid ONNX model: {reason}", "Export it again.") from error


def check_loads(path: Path, location: str, threads: int = 1) -> None:
    """onnxruntime opens it: the types fit and every operator has an implementation on this device."""
    from workbench.server.session import open_session

    try:
        open_session(path, threads)
    except Exception as error:  # onnxruntime raises a class for each status, with no common base below Exception
        raise UsageError(
            f"{location} does not load in onnxruntime: {first_line(error)}",
            "Export it for a released opset, and try it with onnxruntime.InferenceSession.",
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of what a library said, without the scratch paths it quotes."""
    text = str(error).strip().splitlines()
    line = next((part.strip() for part in text if part.strip()), type(error).__name__)
    words = ["the model" if _is_path(word) else word for word in line.split(" ")]
    return " ".join(words)[:300].rstrip(".") + "."


def _is_path(word: str) -> bool:
    return "/" in word and word.strip("'\",.:").endswith(".onnx")


def _foreign(node: NodeProto, own: set[tuple[str, str]]) -> bool:
    return node.domain not in DOMAINS and (node.domain, node.op_type) not in own


def _constants(model: ModelProto) -> Iterable[tuple[str, TensorProto]]:
    """Initializers and the tensors of Constant nodes, by the name they are read under."""
    for graph in all_graphs(model):
        for tensor in graph.initializer:
            yield tensor.name, tensor
        for sparse in graph.sparse_initializer:
            yield sparse.values.name, sparse.values
    for node in all_nodes(model):
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield node.output[0], attribute.t


def _read_by_weighted(nodes: Iterable[NodeProto]) -> set[str]:
    return {name for node in nodes if node.op_type in _WEIGHTED for name in node.input}


def _values(tensor: TensorProto, name: str, location: str) -> np.ndarray:
    try:
        return np.asarray(
            numpy_helper.to_array(tensor), dtype=np.float64 if tensor.data_type == TensorProto.DOUBLE else np.float32
        )
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"{location}: the values of tensor {name!r} do not fit its shape.", "Export or download the file again."
        ) from error
