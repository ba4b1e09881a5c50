"""Intervals for a metric, and a variant against its original on the same samples."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.evaluate.metrics import PROPORTIONS, Scored, family, higher_is_better

Array = NDArray[Any]

RESAMPLES = 2000
CONFIDENCE = 0.95
_Z = 1.959963984540054  # the normal quantile of 0.975
_CHUNK = 4_000_000
"""Weights held at once: 32 MB."""


def interval(name: str, scored: Scored, samples: int, seed: int) -> list[float]:
    """The 95% interval of a metric's value over ``samples`` samples.

    Proportions get Wilson's (E. B. Wilson 1927): a bootstrap of 360 right answers out of 360 would claim certainty.
    The others get the percentile bootstrap (B. Efron 1979).
    """
    if family(name) in PROPORTIONS:
        return list(_wilson(scored.value, samples))
    values = np.concatenate([scored.weighted(weights) for weights in _resamples(samples, seed)])
    return _percentiles(values)


def compare(name: str, variant: Scored, original: Scored, samples: int, seed: int) -> dict[str, Any]:
    """The paired comparison: ``drop`` (positive: worse), its 95% ``interval``, ``flipped``, ``p_value``, ``method``.

    The interval is a paired percentile bootstrap: both models are scored on the same resamples, so what makes samples
    hard or easy cancels out. Where no sample changed between right and wrong, the bootstrap sees no spread at all,
    however few the samples; then the interval for paired proportions of D. G. Bonett and R. M. Price (2012) is taken:
    360 samples without a change show that a drop is below 0.8%, 100 samples that it is below 2.8%.

    ``flipped`` counts changed decisions; ``p_value`` is McNemar's exact test of right against wrong.
    """
    sign = 1.0 if higher_is_better(name) else -1.0
    drop = sign * (original.value - variant.value)
    result: dict[str, Any] = {"drop": drop, "flipped": None, "p_value": None}
    if variant.decisions is not None and original.decisions is not None:
        result["flipped"] = int(np.count_nonzero(variant.decisions != original.decisions))
    if variant.right is not None and original.right is not None:
        result["p_value"] = _mcnemar(original.right, variant.right)
    if variant.right is not None and _agree(variant, original):
        half = _bonett_price_without_change(samples)
        result |= {
            "interval": [-half, half],
            "method": f"Bonett-Price, none of {samples} samples changed between right and wrong",
        }
        return result
    drops = [sign * (original.weighted(w) - variant.weighted(w)) for w in _resamples(samples, seed)]
    method = f"paired bootstrap, {RESAMPLES} resamples of {samples} samples"
    if result["p_value"] is not None:
        method += "; McNemar exact"
    result |= {"interval": _percentiles(np.concatenate(drops)), "method": method}
    return result


def _agree(variant: Scored, original: Scored) -> bool:
    """No sample is right in one model and wrong in the other."""
    return original.right is not None and bool(np.array_equal(variant.right, original.right))  # type: ignore[arg-type]


def _mcnemar(original: Array, variant: Array) -> float:
    """Two-sided exact p-value that wins and losses among the changed samples are equally likely (Q. McNemar 1947)."""
    from scipy.stats import binomtest

    lost = int(np.count_nonzero(original & ~variant))
    won = int(np.count_nonzero(~original & variant))
    return float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0


def _wilson(value: float, n: int) -> tuple[float, float]:
    centre = (value + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(value * (1 - value) / n + _Z**2 / (4 * n * n))
    return max(0.0, min(value, centre - half)), min(1.0, max(value, centre + half))


def _bonett_price_without_change(n: int) -> float:
    """Half the 95% interval of a difference of paired proportions where no pair of ``n`` differs.

    Bonett and Price add one pair to each kind of change: p = 1 / (n + 2) for both, half = z sqrt(2 p / (n + 2)).
    """
    return _Z * math.sqrt(2.0) / (n + 2)


def _resamples(samples: int, seed: int) -> Iterator[Array]:
    """Bootstrap weights, [up to a chunk, samples]: how often each sample was drawn. The same for the same seed."""
    generator = np.random.default_rng(seed)
    left = RESAMPLES
    while left:
        rows = min(left, max(1, _CHUNK // samples))
        yield generator.multinomial(samples, np.full(samples, 1.0 / samples), size=rows).astype(np.float64)
        left -= rows


def _percentiles(values: Array) -> list[float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return [float(low), float(high)]
