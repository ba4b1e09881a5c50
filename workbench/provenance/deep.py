"""A look into the layers of an image where it is kept: their content by digest, the packages in it, the model."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.errors import MachineLacks, StepFailed
from workbench.image.layers import PIECE
from workbench.image.reading import members, path_of
from workbench.image.unpacked import DAMAGE, LARGEST, Content
from workbench.provenance import image
from workbench.provenance.contents import read_layers
from workbench.provenance.image import Image
from workbench.provenance.listed import listed
from workbench.provenance.names import normalised
from workbench.registry.target import Descriptor, Target

_KEPT_FREE = 20
"""Of so many parts of a disk one stays free."""
_SHOWN = 5
_MODEL = re.compile(r"/models/[^/]+/[^/]+/model\.onnx")

Row = tuple[str, Any, str]
"""The name, state and detail of a check."""


def checks(
    target: Target, found: Image, config: Mapping[str, Any], sbom: Mapping[str, Any] | None, folder: Path
) -> Iterator[Row]:
    """Downloads the layers into ``folder`` and looks at them. Raises MachineLacks where there is no room for them."""
    check_room(found.layers, folder)
    paths: list[Path] = []
    for layer in found.layers:
        paths.append(folder / f"layer-{len(paths):02d}")
        try:
            target.pull_blob(str(layer["digest"]), paths[-1], limit=layer["size"])
        except StepFailed as error:
            yield "layers: blobs", "differs", error.message
            return
    yield "layers: blobs", "ok", f"{len(paths)} downloaded and hashed"
    try:
        yield _contents(paths, config)
        yield _model(paths, image.labels(config).get(image.MODEL, ""))
        if sbom is not None:
            yield _packages(paths, sbom)
    except StepFailed as error:
        yield "layers: content", "differs", error.message
    except (OSError, *DAMAGE) as error:
        yield "layers: content", "differs", str(error)


def check_room(layers: Sequence[Descriptor], folder: Path) -> None:
    """Raises MachineLacks where the disk that ``folder`` is on has no room for what the manifest says of its layers: a
    full one disturbs everybody else on this machine."""
    size, disk = sum(layer["size"] for layer in layers), shutil.disk_usage(folder)
    room = disk.free - disk.total // _KEPT_FREE
    if size > room:
        raise MachineLacks(
            f"The layers have {size} bytes, and {folder.parent} has room for {max(0, room)}.",
            "Free space there, or name a folder on a larger disk in TMPDIR; or verify without --deep.",
        )


def _contents(paths: Sequence[Path], config: Mapping[str, Any]) -> Row:
    found, left = [], LARGEST
    for path in paths:
        diff_id, length = _diff_id(path, left)
        found.append(diff_id)
        left -= length
    if found != image.diff_ids(config):
        return "layers: content", "differs", "not what the config names"
    return "layers: content", "ok", "as the config names it"


def _diff_id(path: Path, largest: int) -> tuple[str, int]:
    """The digest of a layer's content, and its bytes."""
    with path.open("rb") as file:
        content = Content(file, largest)
        content.drain()
        return content.diff_id, content.length


def _model(paths: Sequence[Path], label: str) -> Row:
    """The models in the layers against the label."""
    found = [digest for path in paths for digest in _models(path)]
    if found == [label]:
        return "layers: model", "ok", label
    return "layers: model", "differs", f"{', '.join(found[:_SHOWN]) or 'none'} instead of {label or 'none'}"


def _models(path: Path) -> Iterator[str]:
    for member, file in members(path):
        if file is not None and _MODEL.fullmatch(path_of(member)):
            sha256 = hashlib.sha256()
            while piece := file.read(PIECE):
                sha256.update(piece)
            yield f"sha256:{sha256.hexdigest()}"


def _packages(paths: Sequence[Path], sbom: Mapping[str, Any]) -> Row:
    contents = read_layers(paths)
    there = {("deb", normalised(each.name), each.version) for each in contents.debian or ()}
    there |= {("pypi", normalised(each.name), each.version) for each in contents.python}
    said = set(listed(sbom).packages)
    wrong = [f"{name} {version} is listed and not there" for _, name, version in sorted(said - there)]
    wrong += [f"{name} {version} is there and not listed" for _, name, version in sorted(there - said)]
    detail = "; ".join(wrong[:_SHOWN]) or f"{len(there)} as the SBOM lists"
    return "layers: packages", "differs" if wrong else "ok", detail
