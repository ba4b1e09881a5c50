"""Ranges of activations over a calibration sample, in strides, with memory that does not grow with the sample.

onnxruntime's own calibrators are not used: its Entropy gives MinMax's ranges (128 bins for 128 levels), Percentile
keeps the activations of the whole sample (over 100 GB seen) and fails on inputs of varying length.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from workbench.errors import StepFailed
from workbench.model.batches import batches
from workbench.model.check import first_line
from workbench.model.read import all_nodes
from workbench.steps import Emit

Array = NDArray[Any]
Range = tuple[float, float]

STRIDE_BYTES = 256 * 2**20
"""Activations of one stride, all layers together: decides how many samples go through the model at once."""
HISTOGRAM_BYTES = 64 * 2**20
"""Activations that leave the session at once to be counted."""
MAX_ROWS = 64
KEPT_BITS = 6
"""Mantissa bits of a range. At most 1.6% of the 256 levels are given away for ranges that do not change when the last
digits of an activation do, as with another thread count or, mostly, another instruction set."""
_SLACK = 2.0**-14
_BINS = 1 << 16


def tensors_of(model: ModelProto, names: Sequence[str]) -> list[str]:
    """The float32 activations that the named nodes read and write, in graph order."""
    wanted = set(names)
    weights = {tensor.name for tensor in model.graph.initializer}
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    found: dict[str, None] = {}
    for node in model.graph.node:
        if node.name in wanted:
            found.update(dict.fromkeys(n for n in (*node.input, *node.output) if n in floats and n not in weights))
    return list(found)


def minmax(
    model: ModelProto, tensors: Sequence[str], sample: Mapping[str, Array], rows: int | None, scratch: Path, emit: Emit
) -> tuple[dict[str, Range], int]:
    """The smallest and largest value of each tensor over the sample, and the stride (samples a call) that was used.

    ``rows`` is the fixed size of the model's first axis, None where it is dynamic: then the first sample's activations
    are measured and the stride is as many as fit :data:`STRIDE_BYTES`.
    """
    session = _session(_with_reductions(model, tensors), scratch)
    names = [name for tensor in tensors for name in _reduced(tensor)]
    samples = len(_any(sample))
    low, high = np.full(len(tensors), np.inf), np.full(len(tensors), -np.inf)
    start, stride = 0, rows or 1
    while start < samples:
        feed = {name: np.ascontiguousarray(array[start : start + stride]) for name, array in sample.items()}
        found = np.asarray(_run(session, names, feed), dtype=np.float64).reshape(-1, 3)
        low, high = np.minimum(low, found[:, 0]), np.maximum(high, found[:, 1])
        start += stride
        if rows is None and start == 1:
            stride = max(1, min(MAX_ROWS, STRIDE_BYTES // max(1, int(found[:, 2].sum()) * 4)))
        emit.progress(min(start, samples), samples, "ranges")
    return {tensor: (float(low[i]), float(high[i])) for i, tensor in enumerate(tensors)}, stride


def percentile(
    model: ModelProto,
    ranges: Mapping[str, Range],
    sample: Mapping[str, Array],
    stride: int,
    keep: float,
    scratch: Path,
    emit: Emit,
) -> dict[str, Range]:
    """Each range narrowed so that ``keep`` percent of the values lie inside, the rest cut evenly from both ends.

    Values are counted by their sign, exponent and 7 bits of mantissa: 65,536 bins that fit any outlier, where evenly
    spaced bins between the extremes put everything into one. Tensors go in groups of :data:`HISTOGRAM_BYTES`.
    """
    cut = (100.0 - keep) / 200.0
    narrowed: dict[str, Range] = {}
    sizes = _sizes(model, list(ranges), sample, stride, scratch)
    groups = list(_groups(sizes, HISTOGRAM_BYTES))
    for index, group in enumerate(groups):
        counts = {tensor: np.zeros(_BINS, dtype=np.int64) for tensor in group}
        session = _session(_with_outputs(model, group), scratch)
        for feed in batches(sample, stride):
            for tensor, values in zip(group, _run(session, group, feed), strict=True):
                counts[tensor] += np.bincount(_bins(values), minlength=_BINS)
        for tensor, histogram in counts.items():
            low, high = _quantiles(histogram, cut)
            narrowed[tensor] = (max(low, ranges[tensor][0]), min(high, ranges[tensor][1]))
        emit.progress(index + 1, len(groups), "percentiles")
    return narrowed


def rounded(ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Each range with zero inside, its ends rounded outward to :data:`KEPT_BITS` bits of mantissa."""
    return {name: (-_outward(-min(low, 0.0)), _outward(max(high, 0.0))) for name, (low, high) in ranges.items()}


def usable(bounds: Range) -> bool:
    """False for ranges that 256 levels cannot divide: attention masks hold -inf or the smallest float32 there is."""
    return all(math.isfinite(end) and abs(end) < 1e18 for end in bounds)


def digest(ranges: Mapping[str, Range]) -> str:
    """``sha256:`` of the ranges as canonical JSON."""
    text = json.dumps({name: list(ends) for name, ends in ranges.items()}, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _outward(magnitude: float) -> float:
    """The next number of :data:`KEPT_BITS` mantissa bits at or above a magnitude of at least 0.

    A value a hair (2**-14 of it) above such a number counts as that number: exact values (a softmax's 1.0, a ReLU6's
    6.0) are common, and one instruction set gives 1.0000001 for them.
    """
    if magnitude == 0.0 or not math.isfinite(magnitude):
        return magnitude
    fraction, exponent = math.frexp(magnitude * (1.0 - _SLACK))
    return math.ldexp(math.ceil(fraction * 2 ** (KEPT_BITS + 1)), exponent - KEPT_BITS - 1)


def _reduced(tensor: str) -> tuple[str, str, str]:
    return f"{tensor}//min", f"{tensor}//max", f"{tensor}//size"


def _with_reductions(model: ModelProto, tensors: Sequence[str]) -> ModelProto:
    """The model with smallest value, largest value and number of elements of each tensor as its outputs."""
    augmented = _without_outputs(model)
    for tensor in tensors:
        low, high, size = _reduced(tensor)
        for op, name in (("ReduceMin", low), ("ReduceMax", high)):
            augmented.graph.node.append(helper.make_node(op, [tensor], [name], name=name, keepdims=0))
            augmented.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, []))
        augmented.graph.node.append(helper.make_node("Size", [tensor], [size], name=size))
        augmented.graph.output.append(helper.make_tensor_value_info(size, TensorProto.INT64, []))
    return augmented


def _with_outputs(model: ModelProto, tensors: Sequence[str]) -> ModelProto:
    augmented = _without_outputs(model)
    inputs = {value.name for value in model.graph.input}
    for tensor in tensors:
        name = tensor
        if tensor in inputs:  # onnxruntime refuses an input as an output
            name = f"{tensor}//same"
            augmented.graph.node.append(helper.make_node("Identity", [tensor], [name], name=name))
        augmented.graph.output.append(ValueInfoProto(name=name, type=helper.make_tensor_type_proto(1, None)))
    return augmented


def _without_outputs(model: ModelProto) -> ModelProto:
    augmented = ModelProto()
    augmented.CopyFrom(model)
    del augmented.graph.output[:]
    return augmented


def _session(model: ModelProto, scratch: Path) -> Any:
    """A session without graph optimisations: every tensor that was asked for exists, computed operator by operator."""
    import onnxruntime as ort

    from workbench.server.session import session_options

    path = scratch / "augmented.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    options = session_options(1)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Without the arena, memory of one stride is given back before the next.
    options.enable_cpu_mem_arena = False
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class for each status, with no common base below Exception
        raise StepFailed(f"The model could not be calibrated: {first_line(error)}", "Use mode: dynamic.") from error
    finally:
        path.unlink()


def _run(session: Any, names: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
    wanted = [output.name for output in session.get_outputs()]
    assert len(wanted) == len(names)
    try:
        outputs: list[Array] = session.run(wanted, dict(feed))
    except Exception as error:  # as above
        raise StepFailed(
            f"The model does not run on the calibration sample: {first_line(error)}",
            "Check data.calibrate against the model's inputs (`workbench inspect`).",
        ) from error
    return outputs


def _any(arrays: Mapping[str, Array]) -> Array:
    return next(iter(arrays.values()))


def _sizes(
    model: ModelProto, tensors: Sequence[str], sample: Mapping[str, Array], stride: int, scratch: Path
) -> dict[str, int]:
    """Bytes of each tensor in one stride, by running one."""
    session = _session(_with_reductions(model, tensors), scratch)
    names = [name for tensor in tensors for name in _reduced(tensor)]
    found = _run(session, names, next(batches(sample, stride)))
    return {tensor: int(found[3 * i + 2]) * 4 for i, tensor in enumerate(tensors)}


def _groups(sizes: Mapping[str, int], budget: int) -> Iterator[list[str]]:
    group: list[str] = []
    used = 0
    for tensor, size in sizes.items():
        if group and used + size > budget:
            yield group
            group, used = [], 0
        group.append(tensor)
        used += size
    if group:
        yield group


def _bins(values: Array) -> Array:
    """The bin of each float32: its upper 16 bits, mapped so that bins are in the order of the numbers."""
    bits = np.ascontiguousarray(values, dtype=np.float32).reshape(-1).view(np.uint32)
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> np.uint32(16)).astype(np.int64)


def _edge(ordered: int) -> float:
    bits = ordered & 0x7FFFFFFF if ordered >> 31 else ~ordered & 0xFFFFFFFF
    return float(np.array(bits, dtype=np.uint32).view(np.float32))


def _quantiles(histogram: Array, cut: float) -> Range:
    """Outer edges of the bins in which ``cut`` of the values, counted from each end, are reached."""
    total = np.cumsum(histogram)
    allowed = cut * total[-1]
    low = int(np.searchsorted(total, allowed, side="right"))
    high = int(np.searchsorted(total, total[-1] - allowed, side="left"))
    return _edge(low << 16), _edge((high << 16) | 0xFFFF)


def nodes_touching(model: ModelProto, tensors: set[str]) -> set[str]:
    """Names of the nodes that read or write one of the tensors."""
    return {node.name for node in all_nodes(model) if tensors.intersection((*node.input, *node.output))}
