"""``workbench run --dry-run``: what would run, what would be reused, and which input changed. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench import runs
from workbench.decide import DECISIONS
from workbench.lookup import Lookup
from workbench.plan import Ref, Refs, Step
from workbench.steps import KINDS
from workbench.store import Result

Row = dict[str, Any]


def foresee(steps: list[Step], lookup: Lookup, project: Path, recipe: str) -> list[Row]:
    """A row for each step: ``step``, ``kind``, ``will`` (reuse, run, depends, decide) and ``because``.

    ``depends``: it runs unless the steps before it come out as they did.
    """
    last = runs.last_ingredients(project, recipe)
    results: dict[str, Result] = {}
    rows = []
    for step in steps:
        missing = [name for name in _needs(step) if name not in results]
        if missing:
            row = {"will": "depends", "because": f"on {', '.join(missing)}"}
        elif KINDS[step.kind].nature == "decision":
            row = _decide(step, results)
        else:
            row = _look(step, lookup, results, last.get(step.id))
        rows.append({"step": step.id, "kind": step.kind, **row})
    return rows


def _needs(step: Step) -> list[str]:
    named = [source.step for source in step.inputs.values() if isinstance(source, Ref | Refs)]
    return list(dict.fromkeys([*named, *step.after]))


def _decide(step: Step, results: dict[str, Result]) -> Row:
    decided = DECISIONS[step.kind](step, results)
    files = {} if decided.model is None else {"model": results[decided.model.step].files[decided.model.output]}
    if decided.error is not None:
        return {"will": "decide", "because": str(decided.error)}
    results[step.id] = Result(files, decided.values, {})
    return {"will": "decide", "because": str(decided.values.get("choice", ""))}


def _look(step: Step, lookup: Lookup, results: dict[str, Result], last: Mapping[str, str] | None) -> Row:
    found = lookup.ingredients(step, results)
    result = lookup.find(step, found, results)
    if result is not None:
        results[step.id] = result
        return {"will": "reuse", "because": "nothing changed"}
    if KINDS[step.kind].nature == "effect":
        return {"will": "run", "because": "it is not in place"}
    return {"will": "run", "because": changed(last, found)}


def changed(last: Mapping[str, str] | None, found: Mapping[str, str]) -> str:
    """Which ingredients are other than when the step last had a result, in words."""
    if last is None:
        return "never run"
    names = [name for name in {**last, **found} if last.get(name) != found.get(name)]
    if not names:
        return "not in the store"
    return "; ".join(
        f"{name} {last[name]} → {found[name]}"
        if name in last and name in found and name.startswith(("setting", "tool", "instruction"))
        else f"{name} changed"
        for name in names
    )
