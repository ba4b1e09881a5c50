"""A run as one JSON object, for programs. Keys stay; what is not there is null or empty."""

from __future__ import annotations

from typing import Any

import msgspec

from screens.present_benchmark import TARGETS, figures
from screens.variants import Variant, variants
from screens.words import mapping
from workbench.events import RunState, StepState


def as_json(state: RunState) -> dict[str, Any]:
    """``state`` as plain JSON. Numbers of a benchmark that is not valid are left out, as in the tables."""
    choice = _values(state, "choose")
    return {
        "run": state.run,
        "recipe": state.recipe,
        "name": state.name,
        "mode": state.mode,
        "command": list(state.command),
        "status": state.status,
        "exit_code": state.exit_code,
        "error": state.error,
        "started": state.started or None,
        "seconds": round(state.ended - state.started, 3) if state.ended and state.started else None,
        "machine": dict(state.machine),
        "steps": [_step(step) for step in state.steps.values()],
        "variants": [_variant(variant) for variant in variants(state)],
        "choice": {name: choice.get(name) for name in ("choice", "why", "today", "closest")} if choice else None,
        "image": _values(state, "image") or None,
        "parity": _values(state, "parity") or None,
        "benchmarks": {
            step.id.partition("/")[2]: _benchmark(step)
            for step in state.steps.values()
            if step.kind == "benchmark" and step.values
        },
        "pushed": _values(state, "push") or None,
        "lock": {"path": state.lock.path, "commit": state.lock.commit, "changes": state.lock.changes}
        if state.lock
        else None,
        "verdict": _verdict(state),
        "notes": list(state.notes),
    }


def _values(state: RunState, step: str) -> dict[str, Any]:
    return dict(state.steps[step].values) if step in state.steps else {}


def _step(step: StepState) -> dict[str, Any]:
    return {
        "id": step.id,
        "kind": step.kind,
        "status": step.status,
        "key": step.key,
        "seconds": step.seconds,
        "notes": list(step.notes),
        "files": {name: dict(file) for name, file in step.files.items()},
        "error": step.error,
    }


def _variant(variant: Variant) -> dict[str, Any]:
    return {
        "name": variant.name,
        "chosen": variant.chosen,
        "size": variant.size,
        "samples": variant.evaluate.get("samples"),
        "metric": variant.evaluate.get("metric"),
        "compare": variant.evaluate.get("compare"),
        "latency": dict(variant.latency) or None,
        "gates": [dict(gate) for gate in variant.gates],
        "remarks": list(variant.remarks),
    }


def _benchmark(step: StepState) -> dict[str, Any]:
    voided = {name: figures(mapping(step.values, name)) for name in TARGETS if mapping(step.values, name)}
    return {**step.values, **voided}


def _verdict(state: RunState) -> dict[str, Any] | None:
    if state.verdict is None:
        return None
    found: dict[str, Any] = msgspec.to_builtins(state.verdict)
    return {name: value for name, value in found.items() if name not in ("event", "seq", "time")}
