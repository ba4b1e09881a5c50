"""Giving a compressed model out of the store."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from workbench import lock, recipe
from workbench.errors import UsageError
from workbench.lookup import Lookup
from workbench.plan import Input, Ref, Refs, models, plan
from workbench.run import machine_facts, pins_for
from workbench.steps import KINDS
from workbench.store import Result, Store, unwritable


def export_variant(path: Path, variant: str | None, output: Path) -> str:
    """Copies the model of ``variant`` (the locked choice without) to ``output``; its digest.

    Raises UsageError where there is no such variant or it is not made yet.
    """
    file = recipe.load(path)
    locked = lock.load(file.lock_path)
    name = variant or (locked.artifacts.choice if locked else None)
    cure = f"Make it: workbench run {path}"
    if name is None:
        raise UsageError(f"{path} has no lock yet, so no variant is chosen.", cure)
    known = models(file.recipe)
    if name not in known:
        raise UsageError(f"There is no variant {name} in {path}.", f"There are: {', '.join(known)}.")
    store = Store(file.project / ".workbench")
    digest = _digest_of(file, locked, known[name].step, store)
    if digest is None:
        raise UsageError(f"{name} is not in the store as the recipe is now.", cure)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(store.path(digest), output)
    except OSError as error:
        raise unwritable(output, error) from error
    return digest


def _digest_of(file: recipe.RecipeFile, locked: lock.Lock | None, wanted: str, store: Store) -> str | None:
    """The digest of what the step ``wanted`` made."""
    results = results_of(file, locked, store, ("workbench.inputs", "workbench.model", "workbench.compress"))
    return results[wanted].digest("model") if wanted in results else None


def results_of(
    file: recipe.RecipeFile, locked: lock.Lock | None, store: Store, rooms: Sequence[str]
) -> dict[str, Result]:
    """What the store has of the steps of these rooms, by step id, following the plan from its inputs on."""
    machine, isa = machine_facts()
    lookup = Lookup(file.project, store, machine, isa, fresh=False, update=(), fresh_figures=False)
    results: dict[str, Result] = {}
    for step in plan(file, pins_for(file, locked, [])):
        if KINDS[step.kind].packages[0] in rooms and _ready(step.inputs, results):
            result = lookup.find(step, lookup.ingredients(step, results), results)
            if result is not None:
                results[step.id] = result
    return results


def _ready(inputs: Mapping[str, Input], results: Mapping[str, Result]) -> bool:
    return all(source.step in results for source in inputs.values() if isinstance(source, Ref | Refs))
