"""int8: static (QDQ, calibrated), dynamic, or weights only."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from workbench.compress import calibrate, graphs, verify
from workbench.compress.prepare import STATIC_OPSET, prepare
from workbench.compress.select import count_weighted, nodes_to_quantize
from workbench.errors import StepFailed, UsageError
from workbench.model.batches import rows_per_call
from workbench.model.canonical import canonicalise, serialise
from workbench.model.check import MIN_OPSET, first_line
from workbench.model.npz import read_npz
from workbench.model.signature import signature_of
from workbench.steps import Emit, Outputs

MODES = ("static", "dynamic", "weight-only")
CALIBRATIONS = ("minmax", "percentile")

Array = NDArray[Any]


@dataclass
class _Candidate:
    """A quantized model and what is to be said of it."""

    model: ModelProto
    nodes: int
    ranges: str | None = None
    notes: list[str] = field(default_factory=list)


def quantize(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:
    """Step ``quantize``: ``model``, ``calibrate``? (npz, needed for static) -> ``model``.

    ``params``: ``to`` (int8), ``mode`` (static, dynamic, weight-only), ``calibration`` (minmax, percentile),
    ``percentile`` (99.99), ``per_channel`` (true). Values: ``operators``, ``quantized_nodes``, ``notes``
    and ``calibration_ranges`` (a digest).

    The candidate has been loaded and run. Raises :class:`UsageError` for parameters and data that do not fit,
    :class:`StepFailed` for a model that cannot be quantized this way.
    """
    mode = _checked(params)
    source = inputs["model"]
    sample = read_npz(inputs["calibrate"], "the calibration sample") if "calibrate" in inputs else None
    signature = signature_of(onnx.load(source, load_external_data=False), "the model")
    with _scratch_as_temporary(emit.scratch):
        candidate, path, data = _first_working(mode, source, sample, signature, params, emit)
    notes = candidate.notes
    notes += _in_words(candidate, len(data), source.stat().st_size)
    for note in notes:
        emit.note(note)
    values: dict[str, Any] = {
        "operators": _operators(candidate.model),
        "quantized_nodes": candidate.nodes,
        "notes": notes,
    }
    if candidate.ranges:
        values["calibration_ranges"] = candidate.ranges
    return Outputs({"model": path}, values)


def _checked(params: Mapping[str, Any]) -> str:
    mode = str(params.get("mode") or "static")
    allowed = {"to": ("int8",), "mode": MODES, "calibration": CALIBRATIONS}
    given = {"to": params.get("to", "int8"), "mode": mode, "calibration": params.get("calibration") or "minmax"}
    for key, value in given.items():
        if value not in allowed[key]:
            raise UsageError(f"quantize: {key} {value!r} is not known.", f"Allowed: {', '.join(allowed[key])}.")
    keep = params.get("percentile", 99.99)
    if not isinstance(keep, int | float) or not 50 < keep <= 100:
        raise UsageError(f"quantize: percentile {keep!r} is not between 50 and 100.", "99.99 is a good choice.")
    return mode


def _first_working(
    mode: str,
    source: Path,
    sample: Mapping[str, Array] | None,
    signature: Mapping[str, Any],
    params: Mapping[str, Any],
    emit: Emit,
) -> tuple[_Candidate, Path, bytes]:
    """The candidate with a scale for each channel, or, where that does not work, with one for each tensor."""
    per_channel = bool(params.get("per_channel", True))
    rows = rows_per_call(signature, 0) or None
    feed = _feed(sample, signature, rows)
    path = emit.scratch / "quantized.onnx"
    try:
        return _working(mode, source, sample, rows, feed, per_channel, params, emit, path)
    except StepFailed as error:
        if not per_channel:
            raise
        try:
            candidate, path, data = _working(mode, source, sample, rows, feed, False, params, emit, path)
        except StepFailed:
            raise error from None
        candidate.notes.append(f"One scale for each tensor, not for each channel, was taken: {error.message}")
        return candidate, path, data


def _working(
    mode: str,
    source: Path,
    sample: Mapping[str, Array] | None,
    rows: int | None,
    feed: Mapping[str, Array],
    per_channel: bool,
    params: Mapping[str, Any],
    emit: Emit,
    path: Path,
) -> tuple[_Candidate, Path, bytes]:
    if mode == "static":
        candidate = _static(source, sample, rows, per_channel, params, emit)
    elif mode == "dynamic":
        candidate = _dynamic(source, per_channel, emit)
    else:
        candidate = _weight_only(source, per_channel, emit)
    if candidate.nodes == 0:
        candidate.model = onnx.load(source, load_external_data=False)
    canonicalise(candidate.model)
    data = serialise(candidate.model, "the quantized model")
    path.write_bytes(data)
    emit.progress(9, 10, "loading and running it")
    said = verify.check(path, source, feed, trusted=sample is not None)
    candidate.notes += [said] if said else []
    return candidate, path, data


def _static(
    source: Path,
    sample: Mapping[str, Array] | None,
    rows: int | None,
    per_channel: bool,
    params: Mapping[str, Any],
    emit: Emit,
) -> _Candidate:
    if sample is None:
        raise UsageError(
            "Static int8 needs a calibration sample, and the recipe has none.",
            "Give data.calibrate (some hundred samples without labels), or use mode: dynamic.",
        )
    model, notes = prepare(source, emit.scratch, STATIC_OPSET)
    names = nodes_to_quantize(model)
    if not count_weighted(model, names):
        return _Candidate(model, 0, notes=notes)
    tensors = calibrate.tensors_of(model, names)
    ranges, stride = calibrate.minmax(model, tensors, sample, rows, emit.scratch, emit)
    masks = {name for name, bounds in ranges.items() if not calibrate.usable(bounds)}
    if masks:
        touched = calibrate.nodes_touching(model, masks)
        left = [name for name in names if name in touched]
        names = [name for name in names if name not in touched]
        notes.append(f"{len(left)} operators stay in float32: they meet values without bounds (attention masks).")
    ranges = {name: ranges[name] for name in calibrate.tensors_of(model, names) if name not in masks}
    if params.get("calibration") == "percentile":
        keep = float(params.get("percentile", 99.99))
        ranges = calibrate.percentile(model, ranges, sample, stride, keep, emit.scratch, emit)
    ranges = calibrate.rounded(ranges)
    if not count_weighted(model, names):
        return _Candidate(model, 0, notes=notes)
    with _as_step_failed():
        quantized = graphs.static_int8(model, names, ranges, per_channel)
    wanted = set(names)  # a ReLU among them may be gone: the range of what follows does its work
    count = sum(node.name in wanted for node in quantized.graph.node)
    return _Candidate(quantized, count, calibrate.digest(ranges), notes)


def _dynamic(source: Path, per_channel: bool, emit: Emit) -> _Candidate:
    model, notes = prepare(source, emit.scratch, MIN_OPSET)
    convolutions = sum(node.op_type in ("Conv", "ConvTranspose") for node in model.graph.node)
    if convolutions:
        notes.append(
            f"{convolutions} convolutions stay in float32: dynamic int8 makes them several times slower on a CPU. "
            "Use mode: static for them."
        )
    with _as_step_failed():
        names = graphs.dynamic_names(model)
        if not names:
            return _Candidate(model, 0, notes=notes)
        quantized = graphs.dynamic_int8(model, names, per_channel)
    return _Candidate(quantized, graphs.count_integer_nodes(quantized), notes=notes)


def _weight_only(source: Path, per_channel: bool, emit: Emit) -> _Candidate:
    model, notes = prepare(source, emit.scratch, MIN_OPSET)
    quantized, nodes = graphs.weights_int8(model, per_channel)
    if nodes:
        notes.append("Only the stored weights are int8: the file is smaller, the computation is float32 as before.")
    return _Candidate(quantized, nodes, notes=notes)


def _feed(sample: Mapping[str, Array] | None, signature: Mapping[str, Any], rows: int | None) -> dict[str, Array]:
    if sample is None:
        return verify.made_up(signature)
    wanted = {entry["name"] for entry in signature["inputs"]}
    if wanted != set(sample):
        raise UsageError(
            f"The calibration sample has {sorted(sample)}, the model takes {sorted(wanted)}.", "Fit the data first."
        )
    return {name: array[: rows or 1] for name, array in sample.items()}


def _in_words(candidate: _Candidate, size: int, original: int) -> list[str]:
    if candidate.nodes == 0:
        why = "the model has no operator with float32 weights that this mode takes"
        return [f"Nothing was quantized: {why}. The variant is the original."]
    if size > original:
        return [f"The variant is larger than the original: {size} bytes, not {original}."]
    return []


def _operators(model: ModelProto) -> dict[str, int]:
    return dict(sorted(Counter(node.op_type for node in model.graph.node).items()))


@contextmanager
def _as_step_failed() -> Iterator[None]:
    """onnxruntime's quantizer meets a graph that it does not expect with any exception there is."""
    try:
        yield
    except Exception as error:
        raise StepFailed(
            f"onnxruntime cannot quantize this model: {first_line(error)}", "Try another mode, or export it anew."
        ) from error


@contextmanager
def _scratch_as_temporary(scratch: Path) -> Iterator[None]:
    """onnxruntime's quantizer keeps intermediate models in temporary files: in the step's own folder, not /tmp."""
    before = tempfile.tempdir
    tempfile.tempdir = str(scratch)
    try:
        yield
    finally:
        tempfile.tempdir = before
