"""What may be said from measured latencies: percentiles, how many samples each needs, intervals, a verdict.

Intervals come from repetition in fresh processes. Resampling the single calls of one process gives ±0.3% where fresh
processes differ by 4%: calls within a process share its memory layout, its core and its moment.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Numbers = Sequence[float] | np.ndarray[Any, np.dtype[Any]]
Verdict = Literal["faster", "slower", "no difference"]

CONFIDENCE = 0.95
"""Of the intervals that are shown."""

VERDICT_CONFIDENCE = 0.99
"""Of the interval behind a verdict. At 95% one model in twenty would by design differ from itself."""

PERCENTILES = (0.90, 0.95, 0.99, 0.999)
"""The tail percentiles that are reported where there are samples enough. The median always is."""


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval around it."""

    estimate: float
    low: float
    high: float


@functools.cache
def minimum_count(fraction: float, above: int = 1, confidence: float = 0.99) -> int:
    """The fewest samples from which the percentile ``fraction`` may be estimated.

    MLPerf's early stopping: with n samples of which ``above`` lie above, the chance to see so few is at most
    1 - confidence if the true percentile were higher: the smallest n with
    P(Binomial(n, 1 - fraction) <= above) <= 0.01.
    Gives 64 for p90, 130 for p95, 219 for p97, 662 for p99 and 6,636 for p99.9, as LoadGen's table does.
    """
    # Late: it takes longer to import than all the rest of a measuring process, which needs no intervals.
    from scipy.special import bdtr

    n = above + 1
    while bdtr(above, n, 1 - fraction) > 1 - confidence:
        n += 1
    return n


def percentile(values: Numbers, fraction: float) -> float:
    """The order statistic of rank ceil(fraction * n): a value that was measured, never one between two."""
    ordered = np.sort(np.asarray(values))
    rank = max(1, math.ceil(round(fraction * len(ordered), 9)))
    return float(ordered[rank - 1])


def key_of(fraction: float) -> str:
    """The name of a percentile in values: ``p50``, ``p99``, ``p99.9``."""
    return f"p{100 * fraction:g}"


def repeated(values: Numbers, confidence: float = CONFIDENCE) -> Interval:
    """The geometric mean of one figure from each of at least 2 repetitions, with Student's t-interval on logarithms."""
    from scipy.special import stdtrit

    logs = np.log(np.asarray(values, dtype=np.float64))
    n = len(logs)
    half = float(stdtrit(n - 1, (1 + confidence) / 2) * logs.std(ddof=1) / math.sqrt(n))
    middle = float(logs.mean())
    return Interval(math.exp(middle), math.exp(middle - half), math.exp(middle + half))


def ratio(original: Numbers, variant: Numbers, confidence: float = CONFIDENCE) -> Interval:
    """variant / original from paired process medians, with the t-interval on the logarithm of each pair's ratio."""
    return repeated(np.asarray(variant, dtype=np.float64) / np.asarray(original, dtype=np.float64), confidence)


def verdict(original: Numbers, variant: Numbers) -> Verdict:
    """Whether the variant's latency differs from the original's, at :data:`VERDICT_CONFIDENCE`."""
    interval = ratio(original, variant, VERDICT_CONFIDENCE)
    if interval.high < 1:
        return "faster"
    return "slower" if interval.low > 1 else "no difference"


def tail(processes: Sequence[Numbers], fraction: float) -> Interval | None:
    """A tail percentile over repeated processes, or None where there are too few samples for it.

    Neighbouring processes are joined into as many equal groups as leave each group :func:`minimum_count` samples; the
    groups' percentiles are the repetitions. Fewer than three groups say nothing about the spread.
    """
    needed = minimum_count(fraction)
    for groups in range(len(processes), 2, -1):
        parts = [
            np.concatenate([np.asarray(processes[index]) for index in indices])
            for indices in np.array_split(np.arange(len(processes)), groups)
        ]
        if min(map(len, parts)) >= needed:
            return repeated([percentile(part, fraction) for part in parts])
    return None


def summary(processes: Sequence[Numbers]) -> dict[str, Any]:
    """``p50_ns`` and each tail percentile that has samples enough, in ns, with ``…_interval_ns`` from the processes.

    The median needs no minimum: each process gives one, and they are the repetitions.
    """
    medians = [percentile(each, 0.5) for each in processes]
    figures: dict[str, Any] = {}
    found = {0.5: repeated(medians)} | {fraction: tail(processes, fraction) for fraction in PERCENTILES}
    for fraction, interval in found.items():
        if interval is not None:
            figures |= figure(fraction, interval)
    return figures


def figure(fraction: float, interval: Interval) -> dict[str, Any]:
    """A percentile and its interval as values, whole nanoseconds."""
    key = key_of(fraction)
    return {
        f"{key}_ns": round(interval.estimate),
        f"{key}_interval_ns": [math.floor(interval.low), math.ceil(interval.high)],
    }


def histogram(values: Numbers) -> list[list[int]]:
    """``[lower bound, count]`` of the occupied log-linear buckets (the layout of HDR): 16 to an octave, 6.25% wide."""
    whole = np.maximum(np.asarray(values, dtype=np.int64), 1)
    shift = np.maximum(np.frexp(whole.astype(np.float64))[1] - 5, 0)
    bounds, counts = np.unique((whole >> shift) << shift, return_counts=True)
    return [[int(bound), int(count)] for bound, count in zip(bounds, counts, strict=True)]
