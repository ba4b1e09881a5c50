"""What may be said from measured latencies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from workbench.bench import statistics
from workbench.bench.conditions import FOREIGN_LIMIT, STEAL_LIMIT, Watch, verdict
from workbench.bench.latency import abba, values

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("fraction", "count"), [(0.9, 64), (0.95, 130), (0.97, 219), (0.99, 662), (0.999, 6636)])
def test_the_fewest_samples_are_those_of_mlperf(fraction: float, count: int) -> None:
    assert statistics.minimum_count(fraction) == count


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = np.arange(1, 101)
    assert statistics.percentile(values, 0.99) == 99
    assert statistics.percentile(values[::-1], 0.5) == 50
    assert statistics.percentile([7], 0.999) == 7
    assert statistics.percentile([1, 10], 0.9) == 10


def test_the_interval_is_students_on_logarithms() -> None:
    values = [100.0, 110.0, 105.0, 120.0]
    logs = np.log(values)
    low, high = stats.t.interval(0.95, 3, loc=logs.mean(), scale=stats.sem(logs))
    interval = statistics.repeated(values)
    assert interval.estimate == pytest.approx(stats.gmean(values))
    assert (interval.low, interval.high) == pytest.approx((np.exp(low), np.exp(high)))


def test_pairs_take_out_what_both_share() -> None:
    drift = np.linspace(100, 300, 10)
    interval = statistics.ratio(drift, drift * np.linspace(0.79, 0.81, 10))
    assert interval.low < 0.8 < interval.high
    assert interval.high - interval.low < 0.02


def test_a_verdict_needs_more_than_noise() -> None:
    original = 100 * np.exp(RNG.normal(0, 0.04, 10))
    variant = 100 * np.exp(RNG.normal(0, 0.04, 10))
    assert statistics.verdict(original, variant) == "no difference"
    assert statistics.verdict(original, variant / 2) == "faster"
    assert statistics.verdict(original, variant * 2) == "slower"


def test_a_model_does_not_differ_from_itself() -> None:
    found = [statistics.verdict(np.exp(RNG.normal(0, 0.05, 10)), np.exp(RNG.normal(0, 0.05, 10))) for _ in range(1000)]
    assert found.count("no difference") >= 975


def test_a_tail_percentile_needs_samples_in_at_least_three_groups() -> None:
    processes = [RNG.integers(100, 200, 200) for _ in range(12)]
    summary = statistics.summary(processes)
    assert {"p50_ns", "p90_ns", "p95_ns", "p99_ns"} <= set(summary)
    assert "p99.9_ns" not in summary
    low, high = summary["p99_interval_ns"]
    assert low <= summary["p99_ns"] <= high
    # 11 processes of 200 make two groups of at least 662, and not three.
    assert "p99_ns" not in statistics.summary(processes[:11])


def test_the_median_is_there_from_few_samples() -> None:
    assert set(statistics.summary([[1, 2, 3], [2, 3, 4]])) == {"p50_ns", "p50_interval_ns"}


def test_histogram_buckets_are_at_most_a_sixteenth_wide_and_lose_nothing() -> None:
    taken = RNG.lognormal(11, 2, 5000).astype(np.uint64) + np.uint64(1)
    buckets = statistics.histogram(taken)
    assert sum(count for _, count in buckets) == 5000
    bounds = np.array([bound for bound, _ in buckets])
    below = bounds[np.searchsorted(bounds, taken, side="right") - 1]
    assert (below <= taken).all()
    assert ((taken - below) / taken < 1 / 16).all()
    assert statistics.histogram([]) == []


def test_the_order_is_abba() -> None:
    sides = ["original", "variant"]
    assert [side[0] for side in abba(sides, 4, 0)] == list("ovvoovvo")
    assert [side[0] for side in abba(sides, 2, 1)] == list("voov")
    assert abba(["original"], 2, 0) == ["original"] * 2


def test_latency_values_of_a_variant_and_of_the_original_alone() -> None:
    original = [RNG.integers(1000, 1100, 100) for _ in range(10)]
    both = values({"original": original, "variant": [each // 2 for each in original]}, 10)
    assert both["verdict"] == "faster"
    assert both["ratio_interval"][0] <= both["ratio"] <= both["ratio_interval"][1]
    assert both["ratio"] == pytest.approx(0.5, abs=0.01)
    assert both["samples"] == both["variant"]["queries"] == 1000
    alone = values({"original": original}, 10)
    assert "ratio" not in alone
    assert alone["original"] == both["original"]


def test_conditions_name_what_disturbed() -> None:
    assert verdict(0.0, 0.0) == {"disturbed": False}
    assert verdict(FOREIGN_LIMIT, STEAL_LIMIT) == {"disturbed": False}
    busy = verdict(0.7, 0.0)
    assert busy["disturbed"]
    assert "0.7 cores" in busy["sentence"]
    both = verdict(0.7, 0.05)["sentence"]
    assert "0.7 cores" in both
    assert "5.0%" in both


def test_a_watch_records_the_conditions() -> None:
    with Watch(2) as watch:
        pass
    conditions = watch.values()
    assert conditions["threads"] == 2
    assert conditions["spinning"] is False
    assert conditions["cpus"]
    assert {"governor", "steal", "foreign_load", "disturbed", "duration_s"} <= set(conditions)
