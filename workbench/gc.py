"""Removing from the store, and from the engine, what nothing needs any more."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from workbench import runs
from workbench.errors import MachineLacks, UsageError
from workbench.store import Store, held, remove_tree, unwritable


def collect(project: Path) -> list[dict[str, Any]]:
    """Removes results that no newest run of a recipe used, objects that no result names, replays and scratch of dead
    runs, and in the engine the images of this project's recipes that are left of such results; a row for each with how
    many files and bytes went. Raises UsageError while a run is on, MachineLacks where the store cannot be written."""
    store = Store(project / ".workbench")
    if alive := [folder.name for folder in runs.all_runs(project) if runs.is_alive(folder)]:
        raise UsageError(f"Run {alive[0]} is at work on the store.", "Wait for its end, or cancel it.")
    store.create()
    try:
        rows = _collect(project, store)
    except OSError as error:
        raise unwritable(Path(str(error.filename or store.folder)), error) from error
    return [*rows, *_engine_images(project, store)]


def _collect(project: Path, store: Store) -> list[dict[str, Any]]:
    with held(store.locks / "scratch"):
        kept = _kept_keys(project)
        results = [path for path in store.results.glob("*/*.json") if f"sha256:{path.stem}" not in kept]
        rows = [_remove("results", results)]
        named = {file["digest"] for path in store.results.glob("*/*.json") for file in _files(path)}
        named |= _pinned(project)
        objects = [path for path in store.objects.glob("*/*") if f"sha256:{path.name}" not in named]
        rows.append(_remove("objects", objects))
        replays = store.folder / "replays"
        rows.append(_remove("replays that died", list(replays.glob("*"))))
    store.sweep()
    return rows


def _engine_images(project: Path, store: Store) -> Iterable[dict[str, Any]]:
    """Takes images of ours out of the engine, where there is one: those of this project that no result in the store is,
    and bases that no image stands on."""
    from workbench.engine.connect import connect
    from workbench.engine.load import loaded_images, remove_images, tag_of, unused_bases

    with contextlib.suppress(MachineLacks), connect() as client:
        images, kept = loaded_images(client), _kept_images(store)
        mine = {tag_of(name, "") for name in _names(project)}
        left = [tag for tag in images if tag.startswith(tuple(mine)) and _digits(tag) not in kept]
        gone = remove_images(client, left)
        gone += remove_images(client, [tag for tag in unused_bases(client) if _digits(tag) not in kept])
        yield {"removed": "images in the engine", "files": len(gone), "bytes": sum(images[tag] for tag in gone)}


def _digits(tag: str) -> str:
    return tag.rpartition(":")[2]


def _names(project: Path) -> set[str]:
    """The names of the recipes that have runs here."""
    return {name for folder in runs.all_runs(project) if (name := runs.state_of(folder).name)}


def _kept_images(store: Store) -> set[str]:
    """The digits in the engine's names of the images and bases that the results in the store are."""
    from workbench.engine.load import tag_of
    from workbench.image.docker import assembled

    kept = set()
    for path in store.results.glob("*/*.json"):
        values = json.loads(path.read_bytes())["values"]
        if "debian" in values:
            kept.add(_digits(assembled(values).reference))
        elif "manifest" in values and "config" in values:
            kept.add(_digits(tag_of("", values["config"])))
    return kept


def _files(result: Path) -> Iterable[dict[str, Any]]:
    files: dict[str, dict[str, Any]] = json.loads(result.read_bytes())["files"]
    return files.values()


def _kept_keys(project: Path) -> set[str]:
    """The keys that the newest run of each recipe used, as far as it came, and the newest that was carried out."""
    kept: set[str] = set()
    seen: set[tuple[str, bool]] = set()
    for folder in runs.all_runs(project):
        state = runs.state_of(folder)
        mark = (state.recipe, state.status == "done")
        if state.mode == "run" and mark not in seen:
            seen.add(mark)
            kept |= {step.key for step in state.steps.values() if step.key}
    return kept


def _pinned(project: Path) -> set[str]:
    """The digests of pins that the locks hold: steps read them as files."""
    return {
        digest
        for folder in runs.all_runs(project)[:50]
        for step in runs.state_of(folder).steps.values()
        for name, digest in step.ingredients.items()
        if name.startswith("input ") and name.endswith("pins")
    }


def _remove(what: str, paths: list[Path]) -> dict[str, Any]:
    size = 0
    for path in paths:
        if path.is_dir():
            size += sum(item.lstat().st_size for item in path.rglob("*") if item.is_file() and not item.is_symlink())
            remove_tree(path)
        else:
            size += path.stat().st_size
            path.unlink()
    return {"removed": what, "files": len(paths), "bytes": size}
