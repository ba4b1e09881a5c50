"""LoadGen judges its own runs, and what it calls invalid is no figure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from bench_parts import evaluation, mlp, ok, scripted

from workbench.bench import child
from workbench.bench.benchmark import combine, highest_rate
from workbench.bench.loadgen import Load, reasons
from workbench.bench.recorder import Recorder
from workbench.errors import StepFailed, UsageError

INPUTS = [{"name": "x", "datatype": "FP32", "shape": [-1, 16]}]


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder.create(1_000_000)
    yield made
    made.close()


@pytest.fixture
def drive(tmp_path: Path, recorder: Recorder) -> Any:
    def driven(target: dict[str, Any], load: Load) -> dict[str, Any]:
        logs = tmp_path / "logs"
        logs.mkdir()
        samples = evaluation(tmp_path / "evaluate")
        request = {"target": target, "load": asdict(load), "samples": str(samples), "logs": str(logs)}
        return child.run("workbench.bench.driver", request, recorder, 60)

    return driven


def http_target(port: int) -> dict[str, Any]:
    return {"kind": "http", "host": "127.0.0.1", "port": port, "path": "/v2/models/m/infer", "inputs": INPUTS}


def single_stream(seconds: float = 0.3, **changed: Any) -> Load:
    return Load("single-stream", seconds, 10.0, 0.0, 0, **{"min_queries": 64, **changed})


def server(rate: float, bound_ms: float | None, seconds: float = 0.5, **changed: Any) -> Load:
    bound = None if bound_ms is None else round(bound_ms * 1e6)
    return Load("server", seconds, changed.pop("most", 10.0), 0.0, 0, rate=rate, bound_ns=bound, **changed)


def test_single_stream_in_process(drive: Any, tmp_path: Path, recorder: Recorder) -> None:
    result = drive({"kind": "session", "model": str(mlp(tmp_path / "m.onnx")), "threads": 1}, single_stream())
    assert result["valid"]
    assert result["reasons"] == []
    assert result["failed"] == 0
    percentiles = [result["percentiles"][key] for key in ("0.5", "0.9", "0.99")]
    assert percentiles == sorted(percentiles)
    assert recorder.values().size == result["queries"]


def test_the_server_scenario_holds_or_fails_its_bound(drive: Any, tmp_path: Path) -> None:
    target = {"kind": "session", "model": str(mlp(tmp_path / "m.onnx")), "threads": 1}
    result = drive(target, server(1000, 0.001))
    assert not result["valid"]
    assert not result["short"]
    assert "longer than the bound of 0.001 ms" in result["reasons"][0]


def test_a_run_with_too_few_queries_says_so(drive: Any) -> None:
    result = drive({"kind": "null"}, server(100, 1000, most=0.5, min_queries=662))
    assert not result["valid"]
    assert result["short"]
    assert "Not enough samples within 0.5 s" in result["reasons"][0]


def test_a_server_over_http(drive: Any) -> None:
    with scripted(lambda n, request: [ok()]) as port:
        result = drive(http_target(port), single_stream())
    assert result["valid"]
    assert result["failed"] == 0


def test_one_failed_request_voids_the_figure(drive: Any) -> None:
    refusal = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"
    with scripted(lambda n, request: [refusal if n == 300 else ok()]) as port:
        result = drive(http_target(port), single_stream())
    assert result["failed"] == 1
    assert not result["valid"]
    assert "1 of" in result["reasons"][0]
    assert "429" in result["reasons"][0]


def test_a_failed_request_counts_in_the_server_scenario_too(drive: Any) -> None:
    refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    with scripted(lambda n, request: [refusal if n == 300 else ok()]) as port:
        result = drive(http_target(port), server(400, 5000))
    assert result["failed"] == 1
    assert not result["valid"]


def test_overload_is_cut_short_and_counts_as_failure(drive: Any, tmp_path: Path) -> None:
    slow = mlp(tmp_path / "m.onnx", layers=6, width=1024)
    result = drive({"kind": "session", "model": str(slow), "threads": 1}, server(20_000, 1, most=1.0))
    assert not result["valid"]
    assert "overload" in result["reasons"][0]


def test_a_target_that_does_not_answer_is_a_failed_step(drive: Any) -> None:
    with scripted(lambda n, request: [ok()]) as port:
        pass  # nothing listens there any more
    with pytest.raises(StepFailed, match="does not answer"):
        drive(http_target(port), single_stream())


def test_samples_that_do_not_fit_are_named(drive: Any, tmp_path: Path) -> None:
    target = http_target(1) | {"inputs": [{"name": "other", "datatype": "FP32", "shape": [-1, 16]}]}
    with pytest.raises(UsageError, match="evaluate"):
        drive(target, single_stream())


def test_reasons_are_sentences_with_loadgens_own_words() -> None:
    entries = {
        "result_perf_constraints_met": True,
        "result_min_queries_met": False,
        "result_min_duration_met": False,
        "early_stopping_result": " * Only processed 30 queries.  * Need to process at least 64 queries.",
    }
    assert reasons(entries, single_stream(2.0)) == [
        "Not enough samples within 10 s. Only processed 30 queries. Need to process at least 64 queries.",
        "The run ended before its 2 s were over.",
    ]
    assert reasons({"result_invalid_reason": "because"}, single_stream()) == ["LoadGen: because"]


def result(queries: int = 1000, p50: int = 100, **changed: Any) -> dict[str, Any]:
    percentiles = {"0.5": p50, "0.9": 2 * p50, "0.95": 3 * p50, "0.99": 4 * p50, "0.999": 5 * p50}
    base = {"valid": True, "reasons": [], "queries": queries, "failed": 0, "qps": 50.0, "percentiles": percentiles}
    return base | changed


def test_repeated_runs_become_figures_with_intervals() -> None:
    figure = combine([result(p50=95), result(p50=100), result(p50=106)], single_stream())
    assert figure["valid"]
    assert figure["queries"] == 3000
    assert figure["p50_interval_ns"][0] < figure["p50_ns"] < figure["p50_interval_ns"][1]
    assert {"p90_ns", "p95_ns", "p99_ns", "throughput_qps"} <= set(figure)
    assert "p99.9_ns" not in figure


def test_an_invalid_run_is_never_shown_as_a_number() -> None:
    broken = result(valid=False, reasons=["It was."], failed=2)
    figure = combine([result(), broken, broken], server(10, 5))
    assert figure == {
        "valid": False,
        "reasons": ["It was."],
        "queries": 3000,
        "failed": 4,
        "rate": 10,
        "bound_ms": 5.0,
    }


def test_p99_is_absent_and_said_so_where_samples_are_too_few() -> None:
    figure = combine([result(queries=500)] * 3, server(10, 5))
    assert figure["valid"]
    assert "p99_ns" not in figure
    assert "Not enough samples for p99" in figure["reasons"][0]


@pytest.mark.parametrize("limit", [70.0, 370.0, 990.0])
def test_the_highest_rate_is_found_within_ten_percent(limit: float) -> None:
    tried: list[float] = []

    def holds(rate: float) -> bool:
        tried.append(rate)
        return rate <= limit

    found = highest_rate(holds, 1000)
    assert found is not None
    assert 0.9 * limit <= found <= limit
    assert len(tried) <= 8


def test_no_rate_holds() -> None:
    assert highest_rate(lambda rate: False, 1000) is None
