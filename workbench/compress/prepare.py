"""A model made ready for quantization: an opset that has the operators, constants folded, shapes known, nodes named."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import ModelProto

from workbench.errors import StepFailed
from workbench.model.check import first_line
from workbench.model.inspect import infer_shapes
from workbench.model.signature import STANDARD_DOMAINS, opset_of

STATIC_OPSET = 13
"""QuantizeLinear takes an axis (a scale for each channel) from here on. Below, onnxruntime's quantizer writes an
invalid graph without complaint."""


def prepare(model: Path, scratch: Path, min_opset: int) -> tuple[ModelProto, list[str]]:
    """The model ready to be quantized, and notes on what was done to it.

    Three stages: the opset raised to ``min_opset`` where it is lower; onnxruntime's basic optimisations (constants
    folded, batch norms merged into convolutions, functions inlined); shapes by ONNX inference. What a folded constant
    comes to may depend on the instruction set. onnxruntime's symbolic shape inference is left out: it failed on each of
    three real models tried, and it depends on a package (sympy) that may or may not be there, which must not decide
    bytes.

    Raises :class:`StepFailed` where the model cannot be converted or optimised.
    """
    notes = []
    source = model
    proto = onnx.load(model, load_external_data=False)
    opset = opset_of(proto)
    if opset < min_opset:
        source = scratch / "converted.onnx"
        source.write_bytes(_converted(proto, min_opset).SerializeToString(deterministic=True))
        notes.append(f"The opset was raised from {opset} to {min_opset}, which scales for each channel need.")
    del proto
    optimised = scratch / "optimised.onnx"
    _optimise(source, optimised)
    ready = onnx.load(optimised, load_external_data=False)
    for leftover in {source, optimised} - {model}:
        leftover.unlink()
    infer_shapes(ready)
    name_nodes(ready)
    return ready, notes


def _converted(model: ModelProto, opset: int) -> ModelProto:
    try:
        converted: ModelProto = onnx.version_converter.convert_version(model, opset)
    except Exception as error:  # the converter raises RuntimeError and its own ConvertError for each missing adapter
        raise StepFailed(
            f"The model's opset {opset_of(model)} cannot be raised to {opset}, which static int8 needs: "
            f"{first_line(error)}",
            f"Export the model with opset {opset} or newer, or use mode: dynamic.",
        ) from error
    # The converter keeps imports of other domains only where it saw them used.
    have = {entry.domain for entry in converted.opset_import}
    converted.opset_import.extend(
        entry for entry in model.opset_import if entry.domain not in (*have, *STANDARD_DOMAINS)
    )
    return converted


def _optimise(source: Path, target: Path) -> None:
    import onnxruntime as ort

    from workbench.server.session import session_options

    options = session_options(1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    try:
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class for each status, with no common base below Exception
        raise StepFailed(
            f"The model could not be prepared for quantization: {first_line(error)}", "Export it with a newer opset."
        ) from error


def name_nodes(model: ModelProto) -> None:
    """Every node gets a name of its own: nodes are chosen for quantization by name."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
            while node.name in taken:
                node.name += "_"
        taken.add(node.name)
