"""``workbench push --inputs``: a recipe's model and data stored beside its image, for where git does not carry them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench import lock, recipe
from workbench.errors import UsageError
from workbench.registry.folder import Folder
from workbench.registry.where import open_destination
from workbench.store import Store, canonical, digest_of

ARTIFACT = "application/vnd.workbench.inputs.v1"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_EMPTY = "application/vnd.oci.empty.v1+json"
_TITLE = "org.opencontainers.image.title"


def push_inputs(path: Path, to: str = "") -> dict[str, Any]:
    """Stores the files that the recipe at ``path`` names by path where its image goes (or at ``to``).

    They become the layers of an OCI artifact, titled by their paths, whose tag is the image's with ``.inputs``: a
    registry keeps what a tag names. Gives ``reference``, ``digest``, ``sources``: what to write into the recipe, by
    place, and ``only_here``: whether the place is a folder of this machine. Raises UsageError where there is nothing to
    store or nowhere to put it.
    """
    file = recipe.load(path)
    place = to or (file.recipe.push.to if file.recipe.push else "")
    if not place:
        raise UsageError(f"{path} has no push section, so there is no place for its inputs.", "Name one with --to.")
    files = {name: source for name, source in file.recipe.inputs.items() if isinstance(source, str)}
    if not files:
        raise UsageError(f"All inputs of {path} lie elsewhere already.")
    _refuse_parts(file)
    target, tag = open_destination(place, file.recipe.name, "latest", file.project)
    layers = []
    for name in files.values():
        digest = digest_of(file.project / name)
        target.add_blob(file.project / name, digest)
        size = (file.project / name).stat().st_size
        annotations = {_TITLE: name}
        layers.append(
            {"mediaType": "application/octet-stream", "digest": digest, "size": size, "annotations": annotations}
        )
    store = Store(file.project / ".workbench")
    store.create()
    empty = store.put_bytes(b"{}")
    target.add_blob(store.path(empty), empty)
    config = {"mediaType": _EMPTY, "digest": empty, "size": 2}
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "artifactType": ARTIFACT,
        "config": config,
        "layers": layers,
    }
    stored = target.add_manifest(canonical(manifest), _MANIFEST, f"{tag}.inputs")
    places = {name: f"{target.name}@{layer['digest']}" for name, layer in zip(files, layers, strict=True)}
    only_here = isinstance(target, Folder)
    return {"reference": f"{target.name}:{tag}.inputs", "digest": stored, "sources": places, "only_here": only_here}


def _refuse_parts(file: recipe.RecipeFile) -> None:
    """Raises UsageError where the model has weights in files beside it: one digest names one file."""
    locked = lock.load(file.lock_path)
    beside = [
        name.split(" ")[1] for name in (locked.artifacts.sources if locked else {}) if name.startswith("model.source ")
    ]
    if beside:
        raise UsageError(
            f"The model has its weights in {', '.join(beside)}; what is stored by digest is one file.",
            "Save it with its weights inside: onnx.save_model(onnx.load(PATH), PATH, save_as_external_data=False)",
        )


def as_recipe_lines(sources: dict[str, str]) -> str:
    """The lines of the recipe that name the stored files, to be put in the place of the paths."""
    lines = []
    section = ""
    for name, reference in sources.items():
        part, _, key = name.partition(".")
        lines += [f"{part}:"] if part != section else []
        lines.append(f'  {key}: {{oci: "{reference}"}}')
        section = part
    return "\n".join(lines)
