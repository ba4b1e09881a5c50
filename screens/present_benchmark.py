"""Benchmarks as blocks: a column a target, a row a figure. An invalid run has reasons and no figure."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from screens import words
from screens.blocks import Block, Cell, cell
from screens.words import ABSENT, items, mapping, number, part, quantity
from workbench.events import RunState, StepState

TARGETS: Mapping[str, str] = {"process": "process", "server": "server", "image": "image over HTTP"}
"""What a benchmark may be against, and how it is headed."""

LEVELS = ("p50", "p90", "p95", "p99", "p99.9")
_ALWAYS = ("p50", "p95", "p99")
Show = Callable[[Mapping[str, Any], Mapping[str, Any]], Cell]
_FIGURE = re.compile(r"(p\d+(\.\d+)?(_interval)?_ns|throughput(_interval)?_qps|max_rate(_interval)?_qps)")


def benchmarks(state: RunState) -> Iterator[Block]:
    """A block for each benchmark that has its values."""
    for step in state.steps.values():
        if step.kind == "benchmark" and step.values:
            yield _benchmark(step)


def figures(target: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a target without the numbers that its load voided: those of a run that is not valid."""
    if target.get("valid") is True:
        return dict(target)
    return {name: value for name, value in target.items() if not _FIGURE.fullmatch(name)}


def _benchmark(step: StepState) -> Block:
    values = step.values
    found = {name: figures(mapping(values, name)) for name in TARGETS if mapping(values, name)}
    name = step.id.partition("/")[2] or step.id
    scenario = words.safe(values.get("scenario", "unknown"))
    rows = tuple((Cell(label), *(show(target, values) for target in found.values())) for label, show in _rows(found))
    return Block(
        f"Benchmark {words.safe(name)}: MLPerf scenario {scenario} (not an MLPerf result)",
        ("", *(TARGETS[name] for name in found)),
        rows,
        tuple(_below(values, found)),
    )


def _rows(found: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Show]]:
    """Each row's label, and what gives its cell from a target and the benchmark's values."""
    for level in LEVELS:
        if level in _ALWAYS or any(f"{level}_ns" in target for target in found.values()):
            yield level, functools.partial(_percentile, level)
    yield "throughput", lambda target, _: _throughput(target)
    yield "load", load
    yield "queries", lambda target, _: _queries(target)
    yield "client's own cost", lambda target, _: _client(target)
    yield "start to first answer", lambda target, _: _first_answer(target)
    yield "peak memory", lambda target, _: cell(words.size(target.get("peak_memory_bytes")))


def percentile(target: Mapping[str, Any], level: str) -> Cell:
    """A percentile with its interval, or in words why there is none."""
    valid = target.get("valid")
    if valid is None:
        return Cell(ABSENT)
    if not valid:
        return Cell("INVALID", "bad")
    if number(target.get(f"{level}_ns")) is None:
        return Cell("not enough samples", "warn")
    return Cell(words.latency(target[f"{level}_ns"], target.get(f"{level}_interval_ns")))


def _percentile(level: str, target: Mapping[str, Any], _: object) -> Cell:
    return percentile(target, level)


def load(target: Mapping[str, Any], values: Mapping[str, Any]) -> Cell:
    """The load that was put on a target."""
    if values.get("scenario") != "server":
        return Cell("one query at a time" if values.get("scenario") == "single-stream" else ABSENT)
    rate, bound = number(target.get("rate")), number(target.get("bound_ms"))
    said = ABSENT if rate is None else f"{rate:g} queries/s"
    return Cell(said if bound is None else f"{said}, p99 at most {bound:g} ms")


def _throughput(target: Mapping[str, Any]) -> Cell:
    if not target.get("valid"):
        return Cell(ABSENT)
    text = words.measured(target.get("throughput_qps"), target.get("throughput_interval_qps"), unit="/s")
    return Cell(text if text == ABSENT or "\n" in text else f"{text}\n(no interval)")


def _queries(target: Mapping[str, Any]) -> Cell:
    failed = number(target.get("failed"))
    said = words.count(target.get("queries"))
    return Cell(f"{said}, {words.count(failed)} failed", "bad") if failed else Cell(said)


def _client(target: Mapping[str, Any]) -> Cell:
    cost = number(part(target, "client_cost_ns", "p50"))
    return Cell(ABSENT if cost is None else f"{words.seconds(cost / 1e9)} median, null responder")


def _first_answer(target: Mapping[str, Any]) -> Cell:
    taken = target.get("start_to_first_answer_s")
    text = words.measured(taken, target.get("start_to_first_answer_interval_s"), unit=" s")
    return Cell(text if text == ABSENT or "\n" in text else f"{text}\n(no interval)")


def _below(values: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]]) -> Iterator[Cell]:
    for name, target in found.items():
        if target.get("valid") is False:
            reasons = " ".join(str(reason) for reason in items(target, "reasons")) or "no reason given."
            yield cell(f"{TARGETS[name]}: INVALID: {reasons}", "bad")
        else:
            for reason in items(target, "reasons"):
                yield cell(f"{TARGETS[name]}: {reason}", "warn")
    conditions = mapping(values, "conditions")
    threads, runs = number(conditions.get("threads")), number(values.get("repetitions"))
    said = [quantity(int(threads), "thread") if threads is not None else "threads unknown"]
    if runs is not None:
        said.append(f"{quantity(int(runs), 'run')} in fresh processes")
    yield Cell("; ".join([*said, "95% intervals between the runs."]), "dim")
    if conditions.get("disturbed"):
        yield cell(conditions.get("sentence", words.DISTURBED), "warn")
