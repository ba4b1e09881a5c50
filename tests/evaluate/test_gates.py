"""Gates hold, fail or are undecided; the choice among those that hold; what is said of the others."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import pytest

from workbench.evaluate.gates import Choice, Decision, choose, decide, remarks

MS = 1_000_000


def evaluated(
    value: float = 0.99, drop: float | None = None, interval: tuple[float, float] = (0.0, 0.0), more: bool = True
) -> dict[str, Any]:
    metric = {"name": "accuracy", "value": value, "higher_is_better": more, "interval": [value - 0.01, value + 0.01]}
    found: dict[str, Any] = {"samples": 360, "metric": metric}
    if drop is not None:
        found["compare"] = {"drop": drop, "interval": list(interval), "flipped": 3, "p_value": 1.0}
    return found


def timed(ratio: float, low: float, high: float, p99: tuple[int, int, int] | None = None) -> dict[str, Any]:
    own: dict[str, Any] = {"p50_ns": int(ratio * MS)}
    if p99:
        own |= {"p99_ns": p99[0], "p99_interval_ns": list(p99[1:])}
    verdict = "faster" if high < 1 else "slower" if low > 1 else "no difference"
    beside = {"p50_ns": MS, "p99_ns": 2 * MS, "p99_interval_ns": [int(1.9 * MS), int(2.1 * MS)]}
    return {"ratio": ratio, "ratio_interval": [low, high], "verdict": verdict, "original": beside, "variant": own}


ORIGINAL: dict[str, Any] = {
    "size": 4000,
    "evaluate": evaluated(),
    "latency": {"original": {"p50_ns": MS, "p99_ns": 2 * MS, "p99_interval_ns": [int(1.9 * MS), int(2.1 * MS)]}},
}


def figures(size: int = 1000, latency: Any = None, **options: Any) -> dict[str, Any]:
    evaluate = evaluated(**{"drop": 0.0, **options})
    return {"size": size, "evaluate": evaluate, "latency": latency or timed(0.5, 0.4, 0.6), "original": ORIGINAL}


def only(gate: dict[str, Any], found: dict[str, Any], variant: str = "int8") -> Decision:
    (decision,) = decide(gate, variant, found)
    return decision


class TestMetricDrop:
    @pytest.mark.parametrize(
        ("interval", "state"),
        [
            ((-0.002, 0.01), "holds"),
            ((0.011, 0.03), "fails"),
            ((-0.01, 0.02), "undecided"),
            ((0.01, 0.02), "undecided"),
        ],
    )
    def test_the_whole_interval_decides(self, interval: tuple[float, float], state: str) -> None:
        decision = only({"metric_drop": 0.01}, figures(drop=0.005, interval=interval))
        assert decision.state == state
        assert decision.gate == "metric_drop"
        assert "3 of 360 decisions changed" in decision.why

    def test_undecided_passes_where_the_recipe_says_so_and_is_still_called_undecided(self) -> None:
        spanning = figures(drop=0.005, interval=(-0.01, 0.02))
        decision = only({"metric_drop": 0.01, "undecided": "pass"}, spanning)
        assert decision.state == "holds"
        assert "undecided" in decision.why

    def test_failing_does_not_pass_by_that(self) -> None:
        decision = only({"metric_drop": 0.01, "undecided": "pass"}, figures(drop=0.05, interval=(0.04, 0.06)))
        assert decision.state == "fails"

    def test_the_original_keeps_it(self) -> None:
        assert only({"metric_drop": 0.0}, {**ORIGINAL, "original": ORIGINAL}, "original").state == "holds"

    def test_a_variant_that_was_not_compared_is_undecided(self) -> None:
        assert only({"metric_drop": 0.01}, figures(drop=None)).state == "undecided"


class TestMetricMin:
    @pytest.mark.parametrize(("limit", "state"), [(0.97, "holds"), (0.985, "undecided"), (1.01, "fails")])
    def test_more_is_better(self, limit: float, state: str) -> None:
        assert only({"metric_min": limit}, figures(value=0.99)).state == state

    @pytest.mark.parametrize(("limit", "state"), [(0.52, "holds"), (0.505, "undecided"), (0.4, "fails")])
    def test_less_is_better_for_an_error(self, limit: float, state: str) -> None:
        assert only({"metric_min": limit}, figures(value=0.5, more=False)).state == state


class TestModelSize:
    @pytest.mark.parametrize(("limit", "state"), [(1000, "holds"), (999, "fails"), (1001, "holds")])
    def test_it_is_exact(self, limit: int, state: str) -> None:
        assert only({"model_size": limit}, figures(size=1000)).state == state


GATE = {"p99": {"of": "variant", "max": 0.005}}


class TestP99:
    @pytest.mark.parametrize(
        ("p99", "state"),
        [((3, 2, 5), "holds"), ((7, 6, 8), "fails"), ((5, 4, 6), "undecided")],
    )
    def test_the_whole_interval_decides(self, p99: tuple[int, int, int], state: str) -> None:
        low, high = p99[1] * MS, p99[2] * MS
        assert only(GATE, figures(latency=timed(0.5, 0.4, 0.6, (p99[0] * MS, low, high)))).state == state

    def test_too_few_samples_for_a_percentile_is_undecided(self) -> None:
        decision = only(GATE, figures())
        assert decision.state == "undecided"
        assert "too few samples" in decision.why

    def test_the_original_is_judged_by_its_own_latency(self) -> None:
        assert only(GATE, {**ORIGINAL, "original": ORIGINAL}, "original").state == "holds"

    def test_a_named_benchmark_is_judged_in_the_image(self) -> None:
        image = {"valid": True, "p99_ns": 7 * MS, "p99_interval_ns": [6 * MS, 8 * MS]}
        process = {"valid": True, "p99_ns": MS, "p99_interval_ns": [MS, MS]}
        found = {**figures(), "benchmarks": {"busy": {"image": image, "process": process}}}
        decision = only({"p99": {"of": "busy", "max": 0.005}}, found)
        assert (decision.gate, decision.state) == ("p99 of busy", "fails")

    @pytest.mark.parametrize("benchmarks", [{}, {"busy": {"image": {"valid": False, "p99_ns": MS}}}])
    def test_an_invalid_or_missing_benchmark_is_undecided(self, benchmarks: dict[str, Any]) -> None:
        decision = only({"p99": {"of": "busy", "max": 0.005}}, {**figures(), "benchmarks": benchmarks})
        assert decision.state == "undecided"
        assert "busy" in decision.why


def test_every_gate_of_the_recipe_gives_one_decision_and_no_gate_gives_none() -> None:
    gate = {"metric_drop": 0.1, "metric_min": 0.5, "model_size": 10**6, "p99": {"of": "variant", "max": 1.0}}
    assert [d.gate for d in decide(gate, "int8", figures())] == ["metric_drop", "metric_min", "model_size", "p99"]
    assert decide({"undecided": "fail"}, "int8", figures()) == []


def test_decisions_are_plain_json() -> None:
    (decision,) = decide({"model_size": 10}, "int8", figures())
    assert Decision(**json.loads(json.dumps(asdict(decision)))) == decision


HOLDS, FAILS = (Decision("g", state, "", "", "") for state in ("holds", "fails"))  # type: ignore[arg-type]


class TestChoose:
    def take(self, candidates: dict[str, Any], minimize: str = "p50", failing: tuple[str, ...] = ()) -> Choice:
        whole = {"original": {**ORIGINAL, "original": ORIGINAL}, **candidates}
        return choose(whole, {name: [FAILS if name in failing else HOLDS] for name in whole}, minimize)

    def test_the_fastest_that_keeps_its_gates_is_taken(self) -> None:
        found = {"a": figures(latency=timed(0.5, 0.45, 0.55)), "b": figures(latency=timed(0.3, 0.25, 0.35))}
        assert self.take(found).variant == "b"
        assert self.take(found, failing=("b",)).variant == "a"

    def test_a_variant_not_faster_beyond_the_noise_is_never_taken_over_the_original(self) -> None:
        choice = self.take({"a": figures(latency=timed(0.95, 0.85, 1.05))})
        assert choice.variant == "original"
        assert "a" in choice.why

    def test_it_is_taken_where_the_original_does_not_keep_the_gates(self) -> None:
        assert self.take({"a": figures(latency=timed(1.5, 1.4, 1.6))}, failing=("original",)).variant == "a"

    def test_the_verdict_is_obeyed_where_it_is_stricter_than_the_interval(self) -> None:
        unsure = {**timed(0.97, 0.95, 0.999), "verdict": "no difference"}
        assert self.take({"a": figures(latency=unsure)}).variant == "original"

    def test_what_the_noise_cannot_tell_apart_is_told_apart_by_size_then_by_name(self) -> None:
        near = {name: figures(size=size, latency=timed(r, r - 0.1, r + 0.1)) for name, size, r in
                (("fast", 900, 0.50), ("small", 500, 0.55), ("also", 500, 0.56))}  # fmt: skip
        assert self.take(near).variant == "also"
        assert self.take(dict(reversed(near.items()))).variant == "also"
        assert "fast" in self.take(near).why

    def test_by_size_it_is_exact(self) -> None:
        assert self.take({"a": figures(size=3999), "b": figures(size=4001)}, "size").variant == "a"
        assert self.take({"b": figures(size=4000)}, "size").variant == "original"

    def test_by_p99_the_original_beside_it_counts(self) -> None:
        faster = figures(latency=timed(0.5, 0.4, 0.6, (MS, int(0.9 * MS), int(1.1 * MS))))
        alike = figures(latency=timed(0.5, 0.4, 0.6, (2 * MS, int(1.8 * MS), int(2.2 * MS))))
        assert self.take({"a": faster}, "p99").variant == "a"
        assert self.take({"a": alike}, "p99").variant == "original"
        assert self.take({"a": figures()}, "p99").variant == "original"

    def test_by_metric_drop_only_a_better_metric_beats_the_original(self) -> None:
        better, alike = figures(drop=-0.05, interval=(-0.08, -0.02)), figures(drop=-0.01, interval=(-0.03, 0.01))
        assert self.take({"a": better, "b": alike}, "metric_drop").variant == "a"
        assert self.take({"b": alike}, "metric_drop").variant == "original"

    def test_none_keeps_its_gates_and_the_closest_is_named_with_its_reason(self) -> None:
        whole = {"original": {**ORIGINAL, "original": ORIGINAL}, "a": figures(), "b": figures()}
        undecided = Decision("metric_drop", "undecided", "at most 0.01", "0.005", "")
        decisions = {"original": [FAILS], "a": [FAILS, undecided], "b": [undecided]}
        choice = choose(whole, decisions, "p50")
        assert (choice.variant, choice.closest) == (None, "b")
        assert "metric_drop undecided" in choice.why

    def test_a_variant_is_closer_than_the_original_at_a_draw(self) -> None:
        choice = self.take({"a": figures(size=9000)}, failing=("a", "original"))
        assert choice.closest == "a"


class TestRemarks:
    def test_larger_slower_and_worse_are_said_with_figures(self) -> None:
        bad = figures(size=5000, latency=timed(1.5, 1.4, 1.6), drop=0.03, interval=(0.01, 0.05))
        larger, slower, worse = remarks(bad)
        assert "larger than the original" in larger
        assert "1.50 times" in slower
        assert "worse than the original: accuracy by 0.03" in worse

    def test_a_good_variant_gets_none(self) -> None:
        assert remarks(figures()) == []

    def test_noise_is_called_noise(self) -> None:
        found = remarks(figures(latency=timed(0.98, 0.9, 1.1), drop=0.001, interval=(-0.01, 0.01)))
        assert all("within the noise" in remark for remark in found)
        assert len(found) == 2


def test_judging_imports_nothing_heavy() -> None:
    code = (
        "import sys, workbench.evaluate.gates\n"
        "print([m for m in ('numpy', 'onnx', 'onnxruntime', 'sklearn', 'scipy') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
