"""``workbench image``: what the last image of a recipe is made of, and what changed against the one before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import document, history, recipe, runs
from workbench.errors import UsageError
from workbench.image import contents
from workbench.image.contents import Layer
from workbench.store import Store

_RUNS_LOOKED_AT = 50


@dataclass(frozen=True)
class Made:
    """An image that was made: where (a run, or the lock of a revision), its config's digest, its layers' facts."""

    where: str
    config: str
    values: Mapping[str, Any]

    @property
    def layers(self) -> list[Mapping[str, Any]]:
        """``name`` and ``diff_id`` of each, lowest first; ``digest`` and sizes where a run made them."""
        return list(self.values["layers"])


def report(path: Path, shown: int = 10) -> dict[str, Any]:
    """What is in the last image of the recipe at ``path``, as plain JSON; sizes in bytes.

    ``layers`` (``holds``: wheels, packages, folders), ``biggest`` (the first ``shown``, as of all lists of files),
    ``wasted`` (replaced or removed by a higher layer), ``duplicates``, ``changes`` (None where no image was before).
    Raises UsageError where no image has been made, or gc removed it.
    """
    file = recipe.load(path)
    made = _images(file)
    now = next(made, None)
    if now is None:
        raise UsageError(f"No run of {path} in this project made an image.", f"Make one: workbench run {path}")
    store = Store(file.project / ".workbench")
    layers = _read(now, store)
    if len(layers) != len(now.layers):
        raise UsageError(
            "Layers of the last image are no longer in the store.", f"Make them again: workbench run {path}"
        )
    before = next(made, None) or _locked(file, now)
    return {
        "recipe": str(file.path.relative_to(file.project)),
        "run": now.where,
        **{key: now.values[key] for key in ("config", "manifest", "size", "uncompressed")},
        "layers": [{**_facts(fact), "holds": contents.holds(layers[fact["name"]])} for fact in now.layers],
        **_costs(list(layers.values()), shown),
        "changes": _changes(before, now, layers, store, shown) if before else None,
    }


def _facts(layer: Mapping[str, Any]) -> dict[str, Any]:
    return {key: layer.get(key) for key in ("name", "diff_id", "size", "uncompressed", "files")}


def _images(file: recipe.RecipeFile) -> Iterator[Made]:
    """The images that runs of this recipe made, newest first, each content once."""
    seen: set[str] = set()
    for folder in runs.all_runs(file.project)[:_RUNS_LOOKED_AT]:
        if runs.load_request(folder).recipe != str(file.path):
            continue
        step = runs.state_of(folder).steps.get("image")
        if step is not None and step.status in ("done", "reused") and step.values["config"] not in seen:
            seen.add(step.values["config"])
            yield Made(f"run {folder.name}", step.values["config"], step.values)


def _locked(file: recipe.RecipeFile, now: Made) -> Made | None:
    """The image of the committed lock, where it is another: by its layers' digests alone."""
    with contextlib.suppress(UsageError, KeyError, TypeError):
        text = history.text_at(file.lock_path, "HEAD")
        if text is not None:
            image = document.parse(text, file.lock_path).data["artifacts"]["image"]
            layers = [{"name": name, "diff_id": diff_id} for name, diff_id in image["layers"].items()]
            if image["config"] != now.config:
                return Made("the lock in HEAD", image["config"], {"layers": layers})
    return None


def _read(image: Made, store: Store, unless: Mapping[str, str] | None = None) -> dict[str, Layer]:
    """The layers by name that the store still has; not those that ``unless`` knows by name and ``diff_id``."""
    found = {}
    for layer in image.layers:
        name, digest = str(layer["name"]), str(layer.get("digest", ""))
        if (unless or {}).get(name) != layer["diff_id"] and digest and store.path(digest).is_file():
            found[name] = contents.read_layer(name, store.path(digest))
    return found


def _costs(layers: Sequence[Layer], shown: int) -> dict[str, Any]:
    files = list(contents.visible(layers))
    biggest = sorted(files, key=lambda found: (-found[2].size, found[0]))[:shown]
    wasted, twice = contents.wasted(layers), contents.duplicates(files)
    return {
        "biggest": [{"path": path, "layer": layer, "bytes": file.size} for path, layer, file in biggest],
        "wasted": {"bytes": _total(wasted), "files": len(wasted), "first": wasted[:shown]},
        "duplicates": {"bytes": _total(twice), "contents": len(twice), "first": twice[:shown]},
    }


def _total(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(row["bytes"] for row in rows)


def _changes(before: Made, now: Made, layers: Mapping[str, Layer], store: Store, shown: int) -> dict[str, Any]:
    same = {str(layer["name"]): str(layer["diff_id"]) for layer in now.layers}
    old = _read(before, store, unless=same)
    known = {str(layer["name"]): str(layer["diff_id"]) for layer in before.layers}
    rows = []
    for name in dict.fromkeys([*known, *same]):
        if known.get(name) == same.get(name):
            rows.append({"layer": name, "change": "same"})
        elif name in known and name in same and name in old:
            rows.append({"layer": name, **_counted(contents.changes(old[name].files, layers[name].files), shown)})
        else:
            word = "changed" if name in known and name in same else "removed" if name in known else "added"
            rows.append({"layer": name, "change": word})
    return {"against": before.where, "config": before.config, "layers": rows}


def _counted(files: list[dict[str, Any]], shown: int) -> dict[str, Any]:
    """How many files were added, removed and changed, by how many bytes; the ones with the most bytes by name."""
    counts = {word: sum(row["change"] == word for row in files) for word in ("added", "removed", "changed")}
    first = sorted(files, key=lambda row: (-abs(row["bytes"]), row["path"]))[:shown]
    return {"change": "changed", **counts, "bytes": _total(files), "first": first}
