"""Where the recipes of a project stand."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from workbench import lock, recipe, runs
from workbench.errors import WorkbenchError


def recipes_of(project: Path) -> list[Path]:
    """The recipes of a project: the YAML files of its ``recipes`` folder that are not locks."""
    return sorted(path for path in (project / "recipes").glob("*.yaml") if not path.name.endswith(".lock.yaml"))


def recipes_status(project: Path) -> list[dict[str, Any]]:
    """A row a recipe: ``status`` (not valid, never run, as locked, changed since, running) and what is locked.

    ``figures`` are of the chosen variant: ``size`` in bytes and ``p50`` in nanoseconds, each with that of the original,
    ``ratio`` of the latencies, the ``machine`` they are from and whether that is a machine like this one (``here``).
    None where nothing is measured.
    """
    last = _last_runs(project)
    return [
        {"recipe": str(path.relative_to(project)), **_status(path, last.get(str(path)))} for path in recipes_of(project)
    ]


def _status(path: Path, last: Path | None) -> dict[str, Any]:
    found: dict[str, Any] = {"choice": "", "image": "", "last_run": last.name if last else "", "figures": None}
    try:
        file = recipe.load(path)
        locked = lock.load(file.lock_path)
    except WorkbenchError as error:
        return {**found, "status": f"not valid: {error.message.splitlines()[-1].strip()}"}
    if locked is not None:
        found["choice"] = locked.artifacts.choice
        found["image"] = locked.artifacts.image.config if locked.artifacts.image else ""
        found["figures"] = _figures(locked)
    if last is not None and runs.is_alive(last):
        return {**found, "status": "running"}
    if locked is None:
        return {**found, "status": "never run"}
    same = locked.recipe == lock.recipe_digests(file.recipe) and not _changed_sources(file, locked)
    return {**found, "status": "as locked" if same else "changed since"}


def _last_runs(project: Path) -> dict[str, Path]:
    """The newest run of each recipe, by the recipe's path."""
    return {runs.load_request(folder).recipe: folder for folder in reversed(runs.all_runs(project))}


def _figures(locked: lock.Lock) -> dict[str, Any] | None:
    """Those of a machine like this one, else the first there are."""
    if not locked.figures:
        return None
    machine = _this_machine() if _this_machine() in locked.figures else next(iter(locked.figures))
    values, choice = locked.figures[machine].values, locked.artifacts.choice
    found: dict[str, Any] = {"machine": machine, "here": machine == _this_machine()}
    for name in ("size", "p50"):
        own, original = values.get(f"{choice}.{name}"), values.get(f"original.{name}")
        found[name] = {"value": own.value if own else None, "original": original.value if original else None}
    ratio = values.get(f"{choice}.ratio")
    found["ratio"] = ratio.value if ratio else None
    return found


@functools.cache
def _this_machine() -> str:
    from workbench.host.fingerprint import class_name, host_class

    return class_name(host_class())


def _changed_sources(file: recipe.RecipeFile, locked: lock.Lock) -> list[str]:
    """The files the recipe names whose bytes are not the locked ones."""
    from workbench.store import digest_of

    sources = locked.artifacts.sources
    return [
        name
        for name, source in file.recipe.inputs.items()
        if sources.get(name)
        != (digest_of(file.project / source) if isinstance(source, str) else f"sha256:{source.content}")
    ]
