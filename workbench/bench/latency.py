"""The ``latency`` step: a variant against its original, in alternating blocks across fresh processes.

Pairs of processes in ABBA order (original, variant, variant, original, ...): slow drift of the machine meets
both alike. Each process gives one median; the logarithms of the pairs' ratios give the interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbench.bench import child, statistics
from workbench.bench.conditions import Watch
from workbench.bench.recorder import Recorder
from workbench.errors import UsageError
from workbench.steps import Emit, Outputs

BUDGET_NS = 200_000_000
"""Time a process spends on timed queries. With about 0.3 s to start it, ten pairs take 12 s."""

CAPACITY = 2**20
"""Latencies kept of one process: more than fit into the budget at 0.2 µs a query."""

PATIENCE_S = 600.0

Latencies = dict[str, list[np.ndarray[Any, np.dtype[np.uint64]]]]


def compare(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:
    """Time ``inputs["original"]`` and, where given, ``inputs["variant"]`` on samples of ``inputs["evaluate"]``.

    Params: threads, pairs (10), name (of the variant), seed. Values: original and variant (percentiles with intervals,
    ns), ratio (variant / original) with its interval, verdict, conditions. Raises StepFailed where one cannot be run.
    """
    threads, pairs = int(params.get("threads", 1)), int(params.get("pairs", 10))
    if pairs < 2:
        raise UsageError(f"{pairs} pair of processes gives no interval.", "Give at least 2.")
    models = {side: inputs[side] for side in ("original", "variant") if side in inputs}
    names = {"original": "the original", "variant": f"variant {params.get('name', '')}".strip()}
    order = abba(pairs) if len(models) == 2 else ["original"] * pairs
    requests = [
        {
            "model": str(models[side]),
            "samples": str(inputs["evaluate"]),
            "threads": threads,
            "budget_ns": BUDGET_NS,
            "name": names[side],
        }
        for side in order
    ]
    with Watch(threads) as watch:
        taken = _take(order, requests, emit)
    return Outputs({"latencies": _save(taken, emit.scratch)}, values(taken, pairs) | {"conditions": watch.values()})


def abba(pairs: int) -> list[str]:
    """The order of the processes of ``pairs`` pairs."""
    forward, backward = ["original", "variant"], ["variant", "original"]
    return [side for pair in range(pairs) for side in (backward if pair % 2 else forward)]


def values(taken: Latencies, pairs: int) -> dict[str, Any]:
    """What the latencies say: see :func:`compare`. The n-th processes of both sides are a pair."""
    result: dict[str, Any] = {
        "confidence": statistics.CONFIDENCE,
        "pairs": pairs,
        "samples": min(sum(map(len, each)) for each in taken.values()),
    }
    for side, processes in taken.items():
        result[side] = {"queries": sum(map(len, processes)), **statistics.summary(processes)}
    if "variant" in taken:
        medians = {side: [statistics.percentile(each, 0.5) for each in taken[side]] for side in taken}
        interval = statistics.ratio(medians["original"], medians["variant"])
        result |= {
            "ratio": round(interval.estimate, 4),
            "ratio_interval": [round(interval.low, 4), round(interval.high, 4)],
            "verdict": statistics.verdict(medians["original"], medians["variant"]),
        }
    return result


def _take(order: Sequence[str], requests: Sequence[Mapping[str, Any]], emit: Emit) -> Latencies:
    taken: Latencies = {side: [] for side in dict.fromkeys(order)}
    recorder = Recorder.create(CAPACITY)
    try:
        for number, (side, request) in enumerate(zip(order, requests, strict=True)):
            emit.progress(number, len(order), f"timing {request['name']}")
            recorder.clear()
            child.run("workbench.bench.timing", request, recorder, PATIENCE_S)
            latencies = recorder.values()
            taken[side].append(latencies)
            emit.sample("latency", {"series": side, "process": number, "histogram": statistics.histogram(latencies)})
    finally:
        recorder.close()
    emit.progress(len(order), len(order))
    return taken


def _save(taken: Latencies, folder: Path) -> Path:
    path = folder / "latencies.npz"
    arrays: dict[str, Any] = {
        f"{side}-{number:02d}": latencies
        for side, processes in taken.items()
        for number, latencies in enumerate(processes)
    }
    np.savez(path, **arrays)
    return path
