"""The ``benchmark`` step: MLPerf's single-stream and server scenarios on the model in process and on the running image.

Each figure comes from repetitions in fresh processes (a fresh start of the image each time), and only from runs that
LoadGen calls valid and in which no request failed. What the client itself costs is measured against a null responder.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from workbench.bench import child, statistics, targets
from workbench.bench.conditions import Watch
from workbench.bench.loadgen import Load
from workbench.bench.recorder import Recorder
from workbench.errors import StepFailed, UsageError
from workbench.host.sensors import Sampler
from workbench.steps import Emit, Outputs

REPETITIONS = 5
"""Of three, Student's interval is twice as wide as of five."""

RATE_STEPS = 7
"""Probes of a search for the highest rate: it is found within 5%."""

RATE_SPAN = 16.0
"""The search goes from what one query after the other would give, times 2, down to this fraction of it."""

RATE_RETREATS = 3
"""How often a rate that was found, and then fails, is lowered by a fifth and tried again."""

LATE_ONES = 3
"""Queries over the bound that a run should be able to bear: with the fewest queries of p99, two void it."""

PROBE_BOUNDS = 10
"""A probe lasts this many bounds: a rate that is a tenth too high has then grown a queue as long as the bound."""

CLIENT_COST_S = 0.5

Start = Callable[[], AbstractContextManager[targets.Running | None]]


@dataclass
class Bench:
    """A benchmark under way: what stays the same for every run, and what is collected."""

    name: str
    params: Mapping[str, Any]
    samples: Path
    variant: Path
    emit: Emit
    latencies: dict[str, Any] = field(default_factory=dict)
    runs: int = 0

    @property
    def threads(self) -> int:
        """Intra-op threads of the system under test."""
        return int(self.params.get("threads", 1))

    def load(self, rate: float | None, duration_s: float, max_duration_s: float) -> Load:
        """The load of one run; as many queries at least as its percentile needs, where the time allows."""
        bound = self.params.get("p99_s")
        return Load(
            scenario=self.params["scenario"],
            duration_s=duration_s,
            max_duration_s=max_duration_s,
            expected_ns=0.0,
            samples=0,
            seed=int(self.params.get("seed", 0)),
            min_queries=_enough(rate, max_duration_s),
            rate=rate,
            bound_ns=None if bound is None else round(float(bound) * 1e9),
        )

    def drive(self, target: Mapping[str, Any], load: Load, series: str) -> dict[str, Any]:
        """Put ``load`` on ``target`` from a fresh process; latency histograms of ``series`` are sent while it runs."""
        self.runs += 1
        logs = self.emit.scratch / f"loadgen-{self.runs:02d}"
        logs.mkdir()
        request = {"target": target, "load": asdict(load), "samples": str(self.samples), "logs": str(logs)}
        # Room for a query every 2 µs; the memory is taken only as it is filled.
        recorder = Recorder.create(max(2**16, round(load.max_duration_s * 500_000)))
        seen = 0

        def tick() -> None:
            nonlocal seen
            new = recorder.values(seen)
            if len(new):
                seen += len(new)
                histogram = statistics.histogram(new)
                self.emit.sample("latency", {"series": series, "histogram": histogram, "waiting": recorder.waiting})

        try:
            patience = 60 + 3 * load.max_duration_s
            result = child.run("workbench.bench.driver", request, recorder, patience, tick)
            tick()
            self.latencies[series] = recorder.values()
        finally:
            recorder.close()
        return result


def measure(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:
    """Run one benchmark of a recipe.

    Inputs: variant (onnx), evaluate; for the image config and layer-… (blobs, lowest first).
    Params: name (of the model in the image), benchmark (its name in the recipe), scenario, duration_s, rate (queries/s
    or "max"), p99_s (the bound), threads, seed, limits (of the image: cpus, memory), against: of "process", "image"
    and "server" (the image's server as a plain process). Values: by target ``valid``, ``reasons``, ``queries``,
    ``failed`` and, where valid, percentiles in ns with intervals, ``throughput_qps``, ``rate``, ``client_cost_ns``; of
    servers also ``peak_memory_bytes``, ``start_to_first_answer_s`` and ``limits`` (what the image was held to). Raises
    StepFailed where a target does not answer or a completion is lost.
    """
    _check(params)
    bench = Bench(str(params["name"]), params, inputs["evaluate"], inputs["variant"], emit)
    values: dict[str, Any] = {
        "benchmark": params.get("benchmark", ""),
        "scenario": params["scenario"],
        "statement": f"MLPerf scenario {params['scenario']} (not an MLPerf result)",
        "repetitions": REPETITIONS,
        "confidence": statistics.CONFIDENCE,
    }
    against = list(params.get("against", ("process", "image")))
    with _starts(inputs, bench, against) as starts, Watch(bench.threads) as watch:
        for number, (series, start) in enumerate(starts.items()):
            emit.progress(number, len(starts), f"{params['scenario']} on {series}")
            values[series] = _measure_one(bench, series, start)
    emit.progress(len(starts), len(starts))
    path = emit.scratch / "latencies.npz"
    np.savez(path, **bench.latencies)
    return Outputs({"latencies": path}, values | {"conditions": watch.values()})


def highest_rate(holds: Callable[[float], bool], ceiling: float) -> float | None:
    """The highest rate up to ``ceiling`` that ``holds``, by few probes; None if not even a small one does."""
    low, high = ceiling / RATE_SPAN, ceiling
    if not holds(low):
        return None
    for _ in range(RATE_STEPS - 1):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def combine(results: Sequence[Mapping[str, Any]], load: Load) -> dict[str, Any]:
    """One figure from the results of repeated runs. Where one of them is not valid there are no numbers."""
    queries = [int(result["queries"]) for result in results]
    valid = all(result["valid"] for result in results)
    figure: dict[str, Any] = {
        "valid": valid,
        "reasons": list(dict.fromkeys(reason for result in results for reason in result["reasons"])),
        "queries": sum(queries),
        "failed": sum(int(result["failed"]) for result in results),
    }
    if load.scenario == "server":
        figure |= {"rate": load.rate, "bound_ms": None if load.bound_ns is None else load.bound_ns / 1e6}
    if not valid:
        return figure
    for fraction in (0.5, *statistics.PERCENTILES):
        if fraction == 0.5 or min(queries) >= statistics.minimum_count(fraction):
            taken = [float(result["percentiles"][str(fraction)]) for result in results]
            figure |= statistics.figure(fraction, statistics.repeated(taken))
    needed = statistics.minimum_count(0.99)
    if load.scenario == "server" and min(queries) < needed:
        figure["reasons"].append(f"Not enough samples for p99: {min(queries)} queries a run, {needed} are needed.")
    throughput = statistics.repeated([float(result["qps"]) for result in results])
    return figure | {
        "throughput_qps": round(throughput.estimate, 2),
        "throughput_interval_qps": [round(throughput.low, 2), round(throughput.high, 2)],
    }


def _measure_one(bench: Bench, series: str, start: Start) -> dict[str, Any]:
    rate = bench.params.get("rate")
    if rate != "max":
        return _repeat(bench, series, start, None if rate is None else float(rate))
    found = _search(bench, series, start)
    if found is None:
        return {"valid": False, "reasons": ["No rate was found that holds the bound."], "queries": 0, "failed": 0}
    for _ in range(RATE_RETREATS):
        figure = _repeat(bench, series, start, found)
        if figure["valid"]:
            break
        found = _rounded(0.8 * found)
    return figure


def _repeat(bench: Bench, series: str, start: Start, rate: float | None) -> dict[str, Any]:
    """The figure of repeated runs, each on a fresh start of the target."""
    duration = float(bench.params["duration_s"])
    load = bench.load(rate, duration / REPETITIONS, duration)
    results, extras = [], []
    for number in range(REPETITIONS):
        bench.emit.progress(number, REPETITIONS, f"{series}: run {number + 1} of {REPETITIONS}")
        with start() as running, _observed(bench, series, running) as extra:
            target = _target(bench, running, extra)
            result = bench.drive(target, load, f"{series}-{number}")
            if result["short"] and not result["failed"]:
                # LoadGen could not tell from so few: once more, as long as it takes within the whole duration.
                result = bench.drive(target, replace(load, duration_s=duration), f"{series}-{number}")
            results.append(result)
        extras.append(extra)
    return combine(results, load) | _extras(extras) | {"client_cost_ns": _client_cost(bench, series, target, load)}


def _search(bench: Bench, series: str, start: Start) -> float | None:
    """The highest rate at which the bound holds, tried on one start of the target."""
    duration = float(bench.params["duration_s"])
    with start() as running:
        target = _target(bench, running, {})

        def holds(rate: float) -> bool:
            bench.emit.progress(bench.runs, bench.runs + 1, f"{series}: trying {rate:.4g}/s")
            seconds = max(
                0.5, 1.1 * statistics.minimum_count(0.99, LATE_ONES) / rate, PROBE_BOUNDS * bench.params["p99_s"]
            )
            load = bench.load(rate, min(seconds, duration), max(seconds, duration))
            return bool(bench.drive(target, load, f"{series}-search")["valid"])

        alone = Load("single-stream", 0.2, duration, 0.0, 0)
        warm = float(bench.drive(target, alone, f"{series}-search")["warm_up_ns"])
        found = highest_rate(holds, 2e9 / warm)
    # A tenth below: at the very edge every other run fails its bound.
    return None if found is None else _rounded(0.9 * found)


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")


def _enough(rate: float | None, max_duration_s: float) -> int:
    """The fewest queries of a run: what its percentile needs, as far as the rate gives them in time."""
    within = 0.0 if rate is None else rate * max_duration_s
    counts = (statistics.minimum_count(0.99, LATE_ONES), statistics.minimum_count(0.99))
    return next((count for count in counts if within >= count), statistics.minimum_count(0.9))


def _target(bench: Bench, running: targets.Running | None, extra: dict[str, Any]) -> dict[str, Any]:
    """The driver's target; a server's first answer is timed on the way."""
    if running is None:
        return {"kind": "session", "model": str(bench.variant), "threads": bench.threads}
    target = targets.http_target(running, bench.name, targets.metadata_of(running, bench.name))
    extra["start_to_first_answer_s"] = targets.first_answer(running, target, bench.samples)
    return target


@contextlib.contextmanager
def _observed(bench: Bench, series: str, running: targets.Running | None) -> Iterator[dict[str, Any]]:
    """A server watched 4 times a second, and its peak memory at the end."""
    extra: dict[str, Any] = {}
    if running is None:
        yield extra
        return
    if running.held is not None:
        extra["limits"] = dict(running.held)
    with Sampler(lambda record: bench.emit.sample("container", {"series": series, **record}), running.pid):
        yield extra
        extra["peak_memory_bytes"] = targets.peak_memory(running.pid)


def _extras(extras: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The servers' own figures over the repetitions: the middle first answer, the highest peak."""
    if not extras[0]:
        return {}
    starts = statistics.repeated([float(extra["start_to_first_answer_s"]) for extra in extras])
    return {
        "start_to_first_answer_s": round(starts.estimate, 3),
        "start_to_first_answer_interval_s": [round(starts.low, 3), round(starts.high, 3)],
        "peak_memory_bytes": max(int(extra["peak_memory_bytes"]) for extra in extras),
        **({"limits": extras[0]["limits"]} if "limits" in extras[0] else {}),
    }


def _client_cost(bench: Bench, series: str, target: Mapping[str, Any], load: Load) -> dict[str, int]:
    """The median latency of the same load on a null responder: what the client and the loopback cost."""
    short = Load(load.scenario, CLIENT_COST_S, 2 * CLIENT_COST_S, 0.0, 0, load.seed, 1, load.rate)
    if target["kind"] == "session":
        result = bench.drive({"kind": "null"}, short, f"{series}-null")
    else:
        with targets.null_server() as null:
            result = bench.drive({**target, "host": null.host, "port": null.port}, short, f"{series}-null")
    if result["failed"]:
        raise StepFailed(f"The null responder failed: {result['first_failure']}", "See the step's log.")
    return {"p50": int(result["percentiles"]["0.5"])}


@contextlib.contextmanager
def _starts(inputs: Mapping[str, Path], bench: Bench, against: Sequence[str]) -> Iterator[dict[str, Start]]:
    """How each target is started, by name. Prepared things are removed at the end."""
    with contextlib.ExitStack() as stack:
        starts: dict[str, Start] = {}
        for series in against:
            if series == "process":
                starts[series] = functools.partial(contextlib.nullcontext, None)
            elif series == "server":
                folder = bench.emit.scratch / "models"
                (folder / bench.name / "1").mkdir(parents=True)
                (folder / bench.name / "1" / "model.onnx").symlink_to(bench.variant.resolve())
                starts[series] = functools.partial(targets.local_server, folder, bench.threads)
            else:
                from workbench.image.runtime import prepared

                start = stack.enter_context(prepared(inputs, bench.params, bench.emit.scratch))
                starts[series] = functools.partial(targets.image, start)
        yield starts


def _check(params: Mapping[str, Any]) -> None:
    if params["scenario"] not in ("single-stream", "server"):
        raise UsageError(f"No scenario {params['scenario']!r}.", "Use single-stream or server.")
    if params["scenario"] == "server" and not params.get("rate"):
        raise UsageError("The server scenario needs a rate.", "Give rate: 200/s, or rate: max with p99.")
    if params.get("rate") == "max" and params.get("p99_s") is None:
        raise UsageError("rate: max needs a bound to hold.", "Give p99: 10ms, say.")
    unknown = set(params.get("against", ())) - {"process", "image", "server"}
    if unknown:
        raise UsageError(f"No target {', '.join(sorted(unknown))}.", "Use process, image or server.")
