"""The protocol's statistics extension: what a version has answered since it was loaded
(https://github.com/triton-inference-server/server, docs/protocol/extension_statistics.md).

What is not measured apart is 0: getting inputs ready and outputs out is part of ``compute_infer``, and failures have
a count and no time. Rows of runs beyond 256 are told as the next power of two.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from workbench.server.batcher import Batcher

if TYPE_CHECKING:
    from workbench.server.shared import Counted, Shared


async def model_stats(batchers: Collection[Batcher], shared: Shared | None) -> dict[str, Any]:
    """The statistics of each of ``batchers``, as the extension answers them; those of all workers where they share
    their numbers."""
    if shared is None:
        return {"model_stats": [_of(each) for each in batchers]}
    await shared.gather()
    asked = {(each.model.name, each.model.version) for each in batchers}
    return {"model_stats": [_of(each) for each in shared if (each.model.name, each.model.version) in asked]}


def _of(batcher: Batcher | Counted) -> dict[str, Any]:
    meter = batcher.meter
    computed = sum(count for count, _ in meter.runs.values())
    return {
        "name": batcher.model.name,
        "version": batcher.model.version,
        "last_inference": meter.last_ns // 1_000_000,
        "inference_count": meter.rows,
        "execution_count": int(computed),
        "inference_stats": {
            "success": _duration(meter.answered, meter.answered_seconds),
            "fail": _duration(sum(meter.failed.values()), 0),
            "queue": _duration(meter.queue.count, meter.queue.total),
            "compute_input": _duration(0, 0),
            "compute_infer": _duration(computed, meter.compute.total),
            "compute_output": _duration(0, 0),
            "cache_hit": _duration(meter.cache_hits, 0),
            "cache_miss": _duration(meter.cache_misses, 0),
        },
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": _duration(0, 0),
                "compute_infer": _duration(count, seconds),
                "compute_output": _duration(0, 0),
            }
            for rows, (count, seconds) in sorted(meter.runs.items())
        ],
    }


def _duration(count: float, seconds: float) -> dict[str, int]:
    return {"count": int(count), "ns": round(seconds * 1e9)}
