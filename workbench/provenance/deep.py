"""A look into the layers of an image where it is kept: their content by digest, the packages in it, the model."""

from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from workbench.errors import StepFailed
from workbench.image.layers import PIECE
from workbench.provenance import image
from workbench.provenance.contents import read_layers
from workbench.provenance.image import Image
from workbench.provenance.listed import listed
from workbench.provenance.names import normalised
from workbench.registry.target import Target

_MODEL = re.compile(r"models/[^/]+/[^/]+/model\.onnx")

Row = tuple[str, Any, str]
"""The name, state and detail of a check."""


def checks(
    target: Target, found: Image, config: Mapping[str, Any], sbom: Mapping[str, Any] | None, folder: Path
) -> Iterator[Row]:
    """Downloads the layers into ``folder`` and looks at them."""
    paths = []
    for place, layer in enumerate(found.manifest["layers"]):
        paths.append(folder / f"layer-{place:02d}")
        try:
            target.pull_blob(str(layer["digest"]), paths[-1], limit=int(layer["size"]))
        except StepFailed as error:
            yield "layers: blobs", "differs", error.message
            return
    yield "layers: blobs", "ok", f"{len(paths)} downloaded and hashed"
    try:
        yield _contents(paths, config)
        yield _model(paths, image.labels(config).get(image.MODEL, ""))
        if sbom is not None:
            yield _packages(paths, sbom)
    except (StepFailed, OSError, EOFError, zlib.error, tarfile.TarError, ValueError) as error:
        yield "layers: content", "differs", str(error)


def _contents(paths: Sequence[Path], config: Mapping[str, Any]) -> Row:
    if [_diff_id(path) for path in paths] != image.diff_ids(config):
        return "layers: content", "differs", "not what the config names"
    return "layers: content", "ok", "as the config names it"


def _content(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast("BinaryIO", gzip.open(path, "rb") if packed else path.open("rb"))


def _diff_id(path: Path) -> str:
    sha256 = hashlib.sha256()
    with _content(path) as file:
        while piece := file.read(PIECE):
            sha256.update(piece)
    return f"sha256:{sha256.hexdigest()}"


def _model(paths: Sequence[Path], label: str) -> Row:
    """The models in the layers against the label."""
    found = [digest for path in paths for digest in _models(path)]
    if found == [label]:
        return "layers: model", "ok", label
    return "layers: model", "differs", f"{', '.join(found) or 'none'} instead of {label or 'none'}"


def _models(path: Path) -> Iterator[str]:
    with _content(path) as content, tarfile.open(fileobj=content, mode="r|") as archive:
        for member in archive:
            if member.isfile() and _MODEL.fullmatch(member.name.removeprefix("./")):
                file = archive.extractfile(member)
                assert file is not None
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
    return "layers: packages", "differs" if wrong else "ok", "; ".join(wrong[:5]) or f"{len(there)} as the SBOM lists"
