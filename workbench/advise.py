"""What a first recipe says, chosen from a model and the data there is for it; each choice with its reason.

Pure functions, but for the look for a container engine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.errors import WorkbenchError
from workbench.fitting import Fitting
from workbench.model.signature import in_words
from workbench.units import format_size, parse_duration

_ROWS_OF_SCORES = ("float16", "float32", "float64")
_WEIGHTED = ("Conv", "MatMul", "Gemm")
_PRODUCTS = ("MatMul", "Gemm", "LSTM", "Attention", "Gather")
_STORED = (*_WEIGHTED, "ConvTranspose", "Gather", "LSTM", "GRU", "RNN")
_TABLE = 4096
"""Weights from which a lookup (Gather) is one in a table that is quantized."""
_LEAST_SHARE = 0.1
"""Of the weights that dynamic int8 has to get hold of: below that it changes nothing that can be measured."""

_BOUNDS = ("50ms", "100ms", "250ms", "500ms", "1s", "2s", "5s")
_RATES = (200, 100, 50, 20, 10, 5, 2, 1)
_SLOW, _USUAL = 10e9, 50e9
"""FLOPs a second of one core, with a model that suits it badly, and with most."""
_OVERHEAD = 0.5e-3
"""Seconds that a query over HTTP takes besides."""
_LOAD = 0.25
"""How busy the first benchmark keeps the core: so little that most machines hold the rate."""

_MOST = (16, 255, 1023, 65535)
"""What values of images, say, go up to."""

_MEMORY_STEP = 256 << 20


@dataclass(frozen=True)
class Choice:
    """One setting of the recipe by its dotted name, its value as YAML, and the reason in sentences."""

    what: str
    value: str
    why: str


def metric(signature: Mapping[str, Any], data: Fitting | None) -> Choice:
    """What variants are judged by, from the labels and the output they are compared with."""
    if data is None:
        return Choice("data.metric", "fidelity", "How close answers are to the original's; with labels, say, accuracy.")
    name, why = _metric(signature, data)
    return Choice("data.metric", name, why)


def _metric(signature: Mapping[str, Any], data: Fitting) -> tuple[str, str]:
    labels = data.labels
    if labels is None:
        return "fidelity", f"{data.path} has no labels (y), so answers are compared with the original's: their cosine."
    output = _judged(signature["outputs"])
    shape, scores = output["shape"], output["dtype"] in _ROWS_OF_SCORES
    whole = bool(np.all(np.mod(labels, 1) == 0) and np.all(labels >= 0))
    most = int(labels.max(initial=0)) if whole else 0
    if whole and scores and len(shape) > 1 and shape[-1] != 1 and _same(labels.shape[1:], shape[1:-1]):
        classes = shape[-1]
        if isinstance(classes, str) or most < classes:
            return "accuracy", f"Labels are class numbers; {output['name']} has a score for each class."
    if whole and not scores and len(shape) == 1 and labels.ndim == 1:
        return "accuracy", f"Labels are class numbers; {output['name']} gives the class."
    if whole and scores and most == 1 and labels.ndim == 1 and (len(shape) == 1 or list(shape[1:]) == [1]):
        return "accuracy", f"The labels are 0 and 1, and {output['name']} has one score: a yes or no."
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    if len(sizes) == len(shape) - 1 and labels.size == data.samples * math.prod(sizes) or _same(labels.shape, shape):
        return "mse", f"The labels are values of {output['name']}: the mean squared error, where less is better."
    return "fidelity", (
        f"The labels y {list(labels.shape)} do not belong to {in_words(output)}, "
        "so answers are compared with the original's: their cosine."
    )


def _judged(outputs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The output that the evaluation judges (workbench.evaluate.score)."""
    scores = [each for each in outputs if each["dtype"] in _ROWS_OF_SCORES and len(each["shape"]) > 1]
    return (scores or list(outputs))[0]


def _same(found: Sequence[int], wanted: Sequence[int | str]) -> bool:
    """Whether the sizes are those wanted, where a named axis has any."""
    if len(found) != len(wanted):
        return False
    return all(isinstance(want, str) or want == have for have, want in zip(found, wanted, strict=True))


def variants(summary: Mapping[str, Any], calibrate: Fitting | None) -> list[Choice]:
    """The ways to make the model smaller that its operators allow."""
    found = []
    weighted, products = _counted(summary, _WEIGHTED), _counted(summary, _PRODUCTS)
    if weighted and calibrate is not None:
        why = f"In 8 bits, ranges from the calibration data: {_listed(weighted)}."
        found.append(_quantized("int8", "static", why))
    if products and _weight_bytes(summary, _PRODUCTS) >= _LEAST_SHARE * _weight_bytes(summary, _STORED):
        left = ", not Conv" if "Conv" in summary["operators"] else ""
        why = f"Weights in 8 bits, ranges at each call: {_listed(products)}{left}."
        found.append(_quantized("int8-dynamic", "dynamic", why))
    if _counted(summary, _STORED):
        why = "Stored in 8 bits, computed in float32: a quarter of the size."
        found.append(_quantized("int8-weights", "weight-only", why))
    return found


def _quantized(name: str, mode: str, why: str) -> Choice:
    return Choice(f"variants.{name}", f"[{{quantize: {{to: int8, mode: {mode}}}}}]", why)


def _counted(summary: Mapping[str, Any], operators: Sequence[str]) -> dict[str, int]:
    """How many layers of these operators have float32 weights."""
    layers = [each for each in summary["layers"] if each["op"] in operators and _is_worth_it(each)]
    return {name: count for name in operators if (count := sum(each["op"] == name for each in layers))}


def _is_worth_it(layer: Mapping[str, Any]) -> bool:
    least = _TABLE if layer["op"] == "Gather" else 1
    return bool(layer["parameters"] >= least and layer["bytes"] == 4 * layer["parameters"])


def _weight_bytes(summary: Mapping[str, Any], operators: Sequence[str]) -> int:
    return sum(each["bytes"] for each in summary["layers"] if each["op"] in operators)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def gate(metric: str, data: Fitting | None) -> Choice | None:
    """How much of the metric a variant may lose; None where the labels give no scale for it."""
    if metric == "fidelity" or data is None:
        return Choice("gate.metric_drop", "0.01", "A variant's answers must stay this close to the original's.")
    if metric == "mse":
        assert data.labels is not None
        limit = float(f"{0.01 * float(np.var(data.labels.astype(np.float64))):.1g}")
        why = "Its error may grow by this, a hundredth of the labels' variance: R² falls by 0.01."
        return Choice("gate.metric_drop", f"{limit:g}", why) if limit else None
    shown = 1.5 * 1.96 * math.sqrt(2) / (data.samples + 2)  # workbench.evaluate.compare, and room for a change or two
    limit = 0.01 if shown <= 0.01 else min(1.0, math.ceil(shown / 0.005) * 0.005)
    why = f"A variant may lose at most this much {metric}."
    if limit > 0.01:
        why += f" With {data.samples} samples, less cannot be told from chance."
    return Choice("gate.metric_drop", f"{limit:g}", why)


def builder() -> Choice:
    """Who builds the image: the container engine of this machine where there is one that can."""
    from workbench.engine.connect import connect, engine_facts
    from workbench.image.buildkit import find_cli

    try:
        with connect() as client:
            facts = engine_facts(client)
        find_cli()
    except WorkbenchError:
        why = "Written by workbench itself: no engine that builds images answers."
        return Choice("image.builder", "oci", why)
    return Choice("image.builder", "docker", f"{facts.name} {facts.version} builds and runs the image.")


def limits(summary: Mapping[str, Any]) -> Choice:
    """What the container may use."""
    needed = max(2 * _MEMORY_STEP, _MEMORY_STEP + 4 * int(summary["size"]))
    steps = -(-needed // _MEMORY_STEP)
    memory = f"{steps // 4}GiB" if steps % 4 == 0 else f"{steps * 256}MiB"
    why = f"The container has a core, and memory for a model of {format_size(summary['size'])}."
    return Choice("image.limits", f"{{cpus: 1, memory: {memory}}}", why)


def benchmarks(summary: Mapping[str, Any]) -> list[Choice]:
    """The loads: one query after the other, and queries at random times, at a rate that most machines hold."""
    flops = summary["flops"]
    slow, usual = (1.0, 0.05) if flops is None else (flops / _SLOW, _OVERHEAD + flops / _USUAL)
    bound = next((each for each in _BOUNDS if parse_duration(each) >= slow), _BOUNDS[-1])
    rate = next((each for each in _RATES if each * usual <= _LOAD), _RATES[-1])
    return [
        Choice(
            "benchmark.alone",
            "{scenario: single-stream, duration: 10s}",
            "One query after the other: how long an answer takes.",
        ),
        Choice(
            "benchmark.busy",
            f"{{scenario: server, rate: {rate}/s, p99: {bound}, duration: 10s}}",
            f"{rate} queries a second at random times; max: as many as keep p99.",
        ),
    ]


def preprocessing(data: Fitting | None) -> tuple[str, ...]:
    """What may have to be folded into the graph, told from the values there are."""
    if data is None or data.low < 0 or data.high <= 1:
        return ("What your code does to the inputs before can move into the graph:", "preprocess: {scale: 0.00392157}")
    most = next((each for each in _MOST if data.high <= each), data.high)
    return (
        f"Inputs here are up to {data.high:g}. If your code scales them before the model, that moves into the graph:",
        f"preprocess: {{scale: {1 / most:.6g}}}",
    )
