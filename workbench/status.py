"""Where the recipes of a project stand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench import lock, recipe, runs
from workbench.errors import WorkbenchError


def recipes_of(project: Path) -> list[Path]:
    """The recipes of a project: the YAML files of its ``recipes`` folder that are not locks."""
    return sorted(path for path in (project / "recipes").glob("*.yaml") if not path.name.endswith(".lock.yaml"))


def recipes_status(project: Path) -> list[dict[str, Any]]:
    """A row a recipe: ``status`` (not valid, never run, as locked, changed since, running) and what is locked."""
    return [{"recipe": str(path.relative_to(project)), **_status(path, project)} for path in recipes_of(project)]


def _status(path: Path, project: Path) -> dict[str, Any]:
    last = next(_runs_of(path, project), None)
    found: dict[str, Any] = {"choice": "", "image": "", "last_run": last.name if last else ""}
    try:
        file = recipe.load(path)
        locked = lock.load(file.lock_path)
    except WorkbenchError as error:
        return {**found, "status": f"not valid: {error.message.splitlines()[-1].strip()}"}
    if locked is not None:
        found["choice"] = locked.artifacts.choice
        found["image"] = locked.artifacts.image.config if locked.artifacts.image else ""
    if last is not None and runs.is_alive(last):
        return {**found, "status": "running"}
    if locked is None:
        return {**found, "status": "never run"}
    same = locked.recipe == lock.recipe_digests(file.recipe) and not _changed_sources(file, locked)
    return {**found, "status": "as locked" if same else "changed since"}


def _runs_of(path: Path, project: Path) -> Iterator[Path]:
    for folder in runs.all_runs(project):
        if runs.load_request(folder).recipe == str(path):
            yield folder


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
