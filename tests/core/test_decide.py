"""Choosing: the locked variant while it keeps the gates, else the best that does, else none, the closest named."""

from __future__ import annotations

from typing import Any

from workbench.decide import choose, gates_after
from workbench.errors import GateFailed
from workbench.plan import Ref, Step
from workbench.store import Result


def result(**values: Any) -> Result:
    return Result({}, values, {})


def latency(p50: int, ratio: float | None = None) -> Result:
    own = {"p50_ns": p50, "p50_interval_ns": [p50 - 5, p50 + 5], "p99_ns": 2 * p50, "p99_interval_ns": [p50, 3 * p50]}
    if ratio is None:
        return result(original=own)
    interval = [ratio - 0.05, ratio + 0.05]
    verdict = "faster" if interval[1] < 1 else "slower" if interval[0] > 1 else "no difference"
    return result(original=own, variant=own, ratio=ratio, ratio_interval=interval, verdict=verdict)


def evaluate(size: int, drop: float | None = None) -> Result:
    metric = {"name": "accuracy", "value": 0.98, "higher_is_better": True, "interval": [0.97, 0.99]}
    if drop is None:
        return result(samples=1000, metric=metric, size=size)
    compare = {"drop": drop, "interval": [drop - 0.002, drop + 0.002], "flipped": 1, "p_value": 1.0, "fidelity": 0.99}
    return result(samples=1000, metric=metric, size=size, compare={**compare, "method": "bootstrap"})


RESULTS = {
    "evaluate/original": evaluate(1000),
    "latency/original": latency(100),
    "evaluate/int8": evaluate(300, 0.001),
    "latency/int8": latency(50, 0.5),
    "evaluate/slow": evaluate(300, 0.0),
    "latency/slow": latency(200, 2.0),
}


def step(
    gate: dict[str, Any],
    pinned: str | None = None,
    variants: tuple[str, ...] = ("int8", "slow"),
    named: str | None = None,
) -> Step:
    inputs = {name: Ref(f"{name}/quantize", "model") for name in ("original", *variants)}
    judged = {"gate": {"undecided": "fail", **gate}, "minimize": "p50", "variants": list(variants)}
    return Step("choose", "choose", inputs, {**judged, "pinned": pinned, "named": named})


def test_the_fastest_that_keeps_the_gates_is_taken() -> None:
    decided = choose(step({"metric_drop": 0.01}), RESULTS)
    assert decided.values["choice"] == "int8"
    assert decided.model == Ref("int8/quantize", "model")
    assert decided.error is None


def test_none_is_exit_3_naming_the_closest_and_why_and_all_stay_visible() -> None:
    decided = choose(step({"metric_drop": 0.01, "model_size": 10}), RESULTS)
    assert isinstance(decided.error, GateFailed)
    assert decided.model is None
    assert "model_size fails" in decided.error.message
    assert str(decided.values["closest"]) in decided.error.message
    assert set(decided.values["decisions"]) == {"original", "int8", "slow"}


def test_a_variant_that_is_slower_than_the_original_is_not_taken_over_it() -> None:
    decided = choose(step({}, variants=("slow",)), RESULTS)
    assert decided.values["choice"] == "original"
    assert any("slower" in remark for remark in decided.values["remarks"]["slow"])


def test_the_locked_choice_stays_and_what_today_would_choose_is_told() -> None:
    decided = choose(step({}, pinned="slow"), RESULTS)
    assert decided.values["choice"] == "slow"
    assert decided.values["today"] == "int8"
    assert decided.error is None


def test_a_choice_that_nothing_pins_is_the_one_of_today() -> None:
    decided = choose(step({}), RESULTS)
    assert decided.values["today"] == decided.values["choice"] == "int8"


def test_the_locked_choice_must_keep_the_gates() -> None:
    decided = choose(step({"metric_drop": 0.0}, pinned="int8"), RESULTS)
    assert isinstance(decided.error, GateFailed)
    assert decided.model == Ref("int8/quantize", "model")


def test_the_variant_that_the_recipe_names_is_taken_over_a_faster_one() -> None:
    decided = choose(step({}, named="slow"), RESULTS)
    assert decided.values["choice"] == decided.values["today"] == "slow"
    assert decided.values["why"] == "the recipe names it"
    assert decided.model == Ref("slow/quantize", "model")
    assert decided.error is None


def test_the_variant_that_the_recipe_names_is_taken_over_the_locked_one() -> None:
    assert choose(step({}, pinned="int8", named="slow"), RESULTS).values["choice"] == "slow"


def test_the_variant_that_the_recipe_names_must_keep_the_gates() -> None:
    decided = choose(step({"metric_drop": 0.0}, named="int8"), RESULTS)
    assert isinstance(decided.error, GateFailed)
    assert "int8 does not keep the gates, and the recipe names it: metric_drop undecided" in decided.error.message
    assert "choose.variant" in decided.error.cure


def test_a_benchmark_that_the_named_variant_does_not_hold_says_who_chose_it() -> None:
    gate = {"undecided": "fail", "p99": {"of": "busy", "max": 1e-3}}
    figures = {"valid": True, "p99_ns": 2_000_000, "p99_interval_ns": [1_900_000, 2_100_000], "queries": 10000}
    chosen = choose(step({}, named="slow"), RESULTS)
    results = RESULTS | {"choose": result(**chosen.values), "benchmark/busy": result(image=figures)}
    after = gates_after(Step("gates", "gates", {}, {"gate": gate}), results)
    assert after.error is not None
    assert "the recipe names it" in after.error.message


def test_a_gate_on_a_benchmark_is_judged_after_it() -> None:
    gate = {"p99": {"of": "busy", "max": 1e-3}}
    chosen = choose(step(gate), RESULTS)
    assert chosen.error is None
    figures = {"valid": True, "p99_ns": 2_000_000, "p99_interval_ns": [1_900_000, 2_100_000], "queries": 10000}
    results = RESULTS | {"choose": result(**chosen.values), "benchmark/busy": result(image=figures, process=figures)}
    after = gates_after(Step("gates", "gates", {}, {"gate": {"undecided": "fail", **gate}}), results)
    assert isinstance(after.error, GateFailed)
    figures |= {"p99_ns": 200_000, "p99_interval_ns": [190_000, 210_000]}
    assert gates_after(Step("gates", "gates", {}, {"gate": {"undecided": "fail", **gate}}), results).error is None


def test_an_invalid_benchmark_decides_nothing_and_says_why() -> None:
    gate = {"undecided": "fail", "p99": {"of": "busy", "max": 1e-3}}
    invalid = {"valid": False, "reasons": ["the rate was not reached"]}
    results = RESULTS | {"choose": result(choice="int8"), "benchmark/busy": result(image=invalid)}
    after = gates_after(Step("gates", "gates", {}, {"gate": gate}), results)
    assert after.error is not None
    assert "the rate was not reached" in after.error.message
