"""MLPerf LoadGen: load by the rules of MLPerf's single-stream and server scenarios, judged by LoadGen itself.

What it reports is a figure of an MLPerf scenario, never an MLPerf result: those are reviewed and published by
MLCommons. LoadGen knows no failed request and waits for ever for a lost one: the first is counted by the system under
test, the second ended by the parent of this process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from workbench.bench import statistics

Scenario = Literal["single-stream", "server"]

MOST_QUERIES = 1_000_000
"""LoadGen makes every query before it starts, 2 µs and 100 bytes each."""

HEADROOM = 0.7
"""The expected latency given to LoadGen, as a share of the warm-up's: a run that is faster must not run dry."""

_GENERATED = 2
"""LoadGen makes this many times the queries that duration / expected latency asks for."""


class SystemUnderTest(Protocol):
    """What LoadGen drives: gets queries, and completes each sooner or later."""

    def issue(self, samples: Any) -> None:
        """Take LoadGen's query samples; called from LoadGen's thread."""


@dataclass(frozen=True)
class Load:
    """The load of one run. Single-stream: one query after the other for the duration. Server: Poisson arrivals.

    ``expected_ns`` is the latency that the warm-up saw; ``rate`` (queries/s) and ``bound_ns`` (p99) are the server's.
    """

    scenario: Scenario
    duration_s: float
    max_duration_s: float
    expected_ns: float
    samples: int
    seed: int = 0
    min_queries: int = 0
    rate: float | None = None
    bound_ns: int | None = None


def run(sut: SystemUnderTest, load: Load, logs: Path) -> dict[str, Any]:
    """Put ``load`` on ``sut``; what LoadGen says of it, its log files left in ``logs``.

    Returns ``valid``, ``short`` (invalid for want of queries alone), ``reasons``, ``queries``, ``qps`` and
    ``percentiles`` (ns by fraction), as LoadGen logged them.
    """
    # The wheel's other module, mlcommons_loadgen, hides this one where it is imported first.
    import mlperf_loadgen as lg

    output = lg.LogOutputSettings()
    output.outdir = str(logs)
    output.copy_summary_to_stdout = False
    log = lg.LogSettings()
    log.log_output = output
    log.enable_trace = False
    system = lg.ConstructSUT(sut.issue, _nothing)
    library = lg.ConstructQSL(load.samples, load.samples, _nothing, _nothing)
    try:
        lg.StartTestWithLogSettings(system, library, _settings(lg, load), log)
    finally:
        lg.DestroyQSL(library)
        lg.DestroySUT(system)
    return read_log(logs / "mlperf_log_detail.txt", load)


def warm_up(call: Callable[[int], object], samples: int, budget_ns: int = 500_000_000, most: int = 200) -> float:
    """The median latency (ns) of the later half of up to ``most`` calls of ``call`` with sample numbers."""
    clock = time.perf_counter_ns
    end = clock() + budget_ns
    taken: list[int] = []
    while len(taken) < 3 or (len(taken) < most and clock() < end):
        start = clock()
        call(len(taken) % samples)
        taken.append(clock() - start)
    return statistics.percentile(taken[len(taken) // 2 :], 0.5)


def read_log(path: Path, load: Load) -> dict[str, Any]:
    """What LoadGen's detail log at ``path`` says of a run of ``load``: see :func:`run`."""
    entries: dict[str, Any] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line.removeprefix(":::MLLOG "))
        entries[record["key"]] = record["value"]
    fractions = (0.5, *statistics.PERCENTILES)
    valid = entries.get("result_validity") == "VALID"
    return {
        "valid": valid,
        "short": not valid and entries.get("result_perf_constraints_met", True) and not _enough(entries),
        "reasons": [] if valid else reasons(entries, load),
        "queries": int(entries.get("result_query_count", 0)),
        "qps": entries.get("result_completed_samples_per_sec", entries.get("result_qps_with_loadgen_overhead")),
        "percentiles": {str(f): entries.get(f"result_{100 * f:.2f}_percentile_latency_ns") for f in fractions},
    }


def reasons(entries: Mapping[str, Any], load: Load) -> list[str]:
    """Why LoadGen calls a run invalid, in sentences."""
    found = []
    if not entries.get("result_perf_constraints_met", True) and load.bound_ns:
        found.append(f"More than 1% of the queries took longer than the bound of {load.bound_ns / 1e6:g} ms.")
    elif not _enough(entries):
        told = " ".join(str(entries.get("early_stopping_result", "")).replace("*", " ").split())
        found.append(f"Not enough samples within {load.max_duration_s:g} s. {told}".strip())
    if not entries.get("result_min_duration_met", True):
        found.append(f"The run ended before its {load.duration_s:g} s were over.")
    return found or [f"LoadGen: {entries.get('result_invalid_reason', 'no reason given')}"]


def _enough(entries: Mapping[str, Any]) -> bool:
    return bool(entries.get("result_min_queries_met", True) and entries.get("early_stopping_met", True))


def _settings(lg: Any, load: Load) -> Any:
    settings = lg.TestSettings()
    settings.mode = lg.TestMode.PerformanceOnly
    duration = load.duration_s
    if load.scenario == "single-stream":
        settings.scenario = lg.TestScenario.SingleStream
        expected = max(1.0, load.expected_ns * HEADROOM)
        settings.single_stream_expected_latency_ns = round(expected)
        duration = min(duration, MOST_QUERIES * expected / 1e9 / _GENERATED)
    else:
        settings.scenario = lg.TestScenario.Server
        settings.server_target_qps = float(load.rate or 1.0)
        settings.server_target_latency_ns = int(load.bound_ns or load.max_duration_s * 1e9)
        settings.server_coalesce_queries = False
    settings.min_duration_ms = max(1, round(duration * 1000))
    settings.max_duration_ms = max(1, round(load.max_duration_s * 1000))
    settings.min_query_count = max(1, load.min_queries)
    settings.qsl_rng_seed = settings.sample_index_rng_seed = settings.schedule_rng_seed = load.seed
    return settings


def _nothing(*_: object) -> None:
    return None
