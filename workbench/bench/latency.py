"""The ``latency`` step: a variant against its original, in alternating blocks across fresh processes.

For each pair two fresh processes, one of either model, take turns of some milliseconds in ABBA order: only one runs
at a time, and whatever the machine does meanwhile meets both alike. Each pair gives one ratio of medians; pairs differ
by what fresh processes differ by (memory layout, cores), and the interval comes from the pairs. Beside other work on
the machine the interval was ±1% where whole processes in ABBA order gave ±8%.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbench.bench import statistics
from workbench.bench.child import Child
from workbench.bench.conditions import Watch
from workbench.bench.recorder import Recorder
from workbench.errors import UsageError
from workbench.steps import Emit, Outputs

BLOCK_NS = 20_000_000
"""Length of a turn: long beside a change of turns, short beside the changes of the machine's load."""

TURNS = 10
"""Turns of each process of a pair."""

SLOW_TURNS = 4
"""Turns where a query takes longer than a block: each turn is one query then."""

CAPACITY = 2**20
"""Latencies kept of one process: more than fit into its turns at 0.2 µs a query."""

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
    names = {"original": "the original", "variant": f"variant {params.get('name', '')}".strip()}
    requests = {
        side: {
            "model": str(inputs[side]),
            "samples": str(inputs["evaluate"]),
            "threads": threads,
            "block_ns": BLOCK_NS,
            "name": names[side],
        }
        for side in names
        if side in inputs
    }
    taken: Latencies = {side: [] for side in requests}
    with Watch(threads) as watch:
        for pair in range(pairs):
            emit.progress(pair, pairs, f"pair {pair + 1} of {pairs}")
            for side, latencies in _pair(requests, pair).items():
                taken[side].append(latencies)
                histogram = statistics.histogram(latencies)
                emit.sample("latency", {"series": side, "process": pair, "histogram": histogram})
    emit.progress(pairs, pairs)
    return Outputs({"latencies": _save(taken, emit.scratch)}, values(taken, pairs) | {"conditions": watch.values()})


def abba(sides: Sequence[str], turns: int, start: int) -> list[str]:
    """The order of ``turns`` turns of each side: there and back again, the ``start``-th pair of turns from where."""
    there, back = list(sides), list(sides)[::-1]
    return [side for turn in range(turns) for side in (back if (turn + start) % 2 else there)]


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


def _pair(requests: Mapping[str, Mapping[str, Any]], number: int) -> dict[str, np.ndarray[Any, np.dtype[np.uint64]]]:
    """The latencies of one fresh process of each side, by side."""
    with contextlib.ExitStack() as stack:
        recorders, children = {}, {}
        for side in requests:
            recorders[side] = Recorder.create(CAPACITY)
            stack.callback(recorders[side].close)
            children[side] = stack.enter_context(Child("workbench.bench.timing", recorders[side]))
        for side in abba(list(requests), 1, number):
            children[side].tell(requests[side])
        slowest = max(child.hear(PATIENCE_S)["latency_ns"] for child in children.values())
        for side in abba(list(requests), TURNS if slowest < BLOCK_NS else SLOW_TURNS, number):
            children[side].tell({})
            children[side].hear(PATIENCE_S)
        return {side: recorder.values() for side, recorder in recorders.items()}


def _save(taken: Latencies, folder: Path) -> Path:
    path = folder / "latencies.npz"
    arrays: dict[str, Any] = {
        f"{side}-{number:02d}": latencies
        for side, processes in taken.items()
        for number, latencies in enumerate(processes)
    }
    np.savez(path, **arrays)
    return path
