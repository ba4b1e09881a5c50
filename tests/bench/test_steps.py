"""The latency and benchmark steps, whole, on small models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_parts import Said, evaluation, mlp

from workbench.bench import aa, benchmark, latency
from workbench.errors import StepFailed, UsageError
from workbench.process import children_of


@pytest.fixture
def said(tmp_path: Path) -> Said:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return Said(folder)


@pytest.fixture(autouse=True)
def _no_process_left() -> Iterator[None]:
    import os

    before = set(children_of(os.getpid()))
    yield
    assert set(children_of(os.getpid())) == before


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "BLOCK_NS", 2_000_000)
    monkeypatch.setattr(latency, "TURNS", 4)


@pytest.mark.usefixtures("quick")
def test_a_much_heavier_variant_is_slower(tmp_path: Path, said: Said) -> None:
    inputs = {
        "original": mlp(tmp_path / "small.onnx"),
        "variant": mlp(tmp_path / "large.onnx", layers=8, width=512),
        "evaluate": evaluation(tmp_path / "evaluate"),
    }
    outputs = latency.compare(inputs, {"threads": 1, "name": "large", "seed": 0, "pairs": 4}, said)
    values = json.loads(json.dumps(outputs.values, allow_nan=False))
    assert values["verdict"] == "slower"
    assert 1 < values["ratio_interval"][0] <= values["ratio"] <= values["ratio_interval"][1]
    assert values["pairs"] == 4
    assert values["conditions"]["threads"] == 1
    with np.load(outputs.files["latencies"]) as archive:
        assert sorted(archive) == [f"{side}-{n:02d}" for side in ("original", "variant") for n in range(4)]
        assert sum(archive[name].size for name in archive if name.startswith("v")) == values["variant"]["queries"]
    assert [kind for kind, _ in said.samples] == ["latency"] * 8


@pytest.mark.usefixtures("quick")
def test_the_original_alone_has_no_ratio(tmp_path: Path, said: Said) -> None:
    inputs = {"original": mlp(tmp_path / "m.onnx"), "evaluate": evaluation(tmp_path / "evaluate")}
    values = latency.compare(inputs, {"threads": 1, "pairs": 2}, said).values
    assert not {"ratio", "variant", "verdict"} & set(values)
    assert values["original"]["p50_ns"] > 0


@pytest.mark.usefixtures("quick")
def test_a_model_that_does_not_run_is_named(tmp_path: Path, said: Said) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"no model")
    inputs = {
        "original": mlp(tmp_path / "m.onnx"),
        "variant": broken,
        "evaluate": evaluation(tmp_path / "evaluate"),
    }
    with pytest.raises(StepFailed, match="variant int8 cannot be run"):
        latency.compare(inputs, {"threads": 1, "name": "int8", "pairs": 2}, said)


def test_one_pair_is_no_comparison(said: Said) -> None:
    with pytest.raises(UsageError, match="interval"):
        latency.compare({}, {"pairs": 1}, said)


@pytest.mark.usefixtures("quick")
def test_the_aa_test_counts_its_verdicts(tmp_path: Path) -> None:
    result = aa.same_model(mlp(tmp_path / "m.onnx"), evaluation(tmp_path / "evaluate"), trials=2, pairs=2)
    assert result["trials"] == 2
    assert 0 <= result["no_difference"] <= 2
    assert len(result["ratios"]) == 2


@pytest.fixture(autouse=True)
def _twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "REPETITIONS", 2)


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    return {"variant": mlp(tmp_path / "object"), "evaluate": evaluation(tmp_path / "evaluate")}


PARAMS: dict[str, Any] = {"name": "m", "benchmark": "alone", "scenario": "single-stream", "threads": 1, "seed": 0}


def test_single_stream_against_process_and_server(inputs: dict[str, Path], said: Said) -> None:
    params = PARAMS | {"duration_s": 0.6, "against": ["process", "server"]}
    outputs = benchmark.measure(inputs, params, said)
    values = json.loads(json.dumps(outputs.values, allow_nan=False))
    assert values["statement"] == "MLPerf scenario single-stream (not an MLPerf result)"
    for series in ("process", "server"):
        figure = values[series]
        assert figure["valid"], figure
        assert figure["failed"] == 0
        assert figure["p50_interval_ns"][0] <= figure["p50_ns"] <= figure["p50_interval_ns"][1]
        assert figure["client_cost_ns"]["p50"] > 0
    assert values["server"]["peak_memory_bytes"] > 2**20
    assert values["server"]["start_to_first_answer_s"] > 0
    assert {kind for kind, _ in said.samples} == {"latency", "container"}
    assert all(each["tree"]["memory"] > 0 for kind, each in said.samples if kind == "container")
    with np.load(outputs.files["latencies"]) as archive:
        assert {"process-0", "process-1", "server-0", "server-1"} <= set(archive)


def test_the_highest_rate_is_searched_and_held(
    inputs: dict[str, Path], said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is tested is the way, not this machine: two probes, the first at a rate that any machine keeps.
    monkeypatch.setattr(benchmark, "RATE_STEPS", 2)
    monkeypatch.setattr(benchmark, "RATE_SPAN", 400.0)
    params = PARAMS | {
        "scenario": "server",
        "rate": "max",
        "p99_s": 0.05,
        "duration_s": 1.5,
        "against": ["process"],
    }
    figure = benchmark.measure(inputs, params, said).values["process"]
    assert figure["rate"] > 0
    assert figure["bound_ms"] == 50


def test_a_run_that_is_too_short_to_tell_is_made_once_more_for_the_whole_duration(
    inputs: dict[str, Path], said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "REPETITIONS", 10)  # each lasts a tenth of the duration
    durations: list[float] = []

    def short(self: Any, target: Any, load: Any, series: str) -> dict[str, Any]:
        durations.append(load.duration_s)
        valid = load.duration_s >= 4
        return {
            "valid": valid,
            "short": not valid,
            "reasons": [],
            "queries": 2000,
            "failed": 0,
            "qps": 500.0,
            "percentiles": dict.fromkeys(["0.5", "0.9", "0.95", "0.99", "0.999"], 1000),
        }

    monkeypatch.setattr(benchmark.Bench, "drive", short)
    params = PARAMS | {"scenario": "server", "rate": 500.0, "p99_s": 0.01, "duration_s": 4.0, "against": ["process"]}
    figure = benchmark.measure(inputs, params, said).values["process"]
    assert figure["valid"]
    assert durations[:4] == [0.4, 4.0, 0.4, 4.0]


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"scenario": "offline"}, "scenario"),
        ({"scenario": "server"}, "rate"),
        ({"scenario": "server", "rate": "max"}, "bound"),
        ({"against": ["moon"]}, "moon"),
    ],
)
def test_what_cannot_be_measured_is_said(said: Said, changed: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        benchmark.measure({}, PARAMS | {"duration_s": 1} | changed, said)
