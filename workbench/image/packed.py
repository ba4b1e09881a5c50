"""Layers that an engine made, packed once: kept by their content beside the downloads, for the next build has them too.

A layer's ``diff_id`` is the digest of its tar, so what is kept under one is that layer, whoever made it; the blob is
hashed again before it is used. The newest :data:`KEPT` stay.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench.image.downloads import cache_folder, sha256_of
from workbench.image.layers import GZIP_LEVEL, canonical, pack
from workbench.image.tree import Changes, Node, changes_of

KEPT = 24


@dataclass(frozen=True)
class Packed:
    """A layer as a blob: where it lies, what its descriptor says, and what it changes in the tree below."""

    blob: Path
    descriptor: Mapping[str, Any]
    changes: Changes

    @property
    def files(self) -> int:
        """How many files and links the layer has."""
        return len(self.changes.links) + sum(node.kind != "folder" for node in self.changes.added.values())


def packed(tar: Path, diff_id: str, blob: Path, level: int = GZIP_LEVEL) -> Packed:
    """Packs the layer ``diff_id`` in the file ``tar`` into ``blob``.

    Raises StepFailed where it is damaged, hostile or another layer.
    """
    with ThreadPoolExecutor(1) as other, tar.open("rb") as file:
        # Beside each other, for both only hash, and hashing lets the other go on: 0.24 s instead of 0.38 for 90 MB.
        changes = other.submit(changes_of, tar, diff_id)
        descriptor = pack(file, blob, level)
    return Packed(blob, descriptor, changes.result())


def _folder() -> Path:
    return cache_folder() / "layers"


def take(diff_id: str) -> Packed | None:
    """The layer with that content, or None where it is not kept, or not whole by now."""
    folder = _folder() / diff_id.removeprefix("sha256:")
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads((folder / "layer.json").read_bytes())
        if f"sha256:{sha256_of(folder / 'blob')}" == known["descriptor"]["digest"]:
            os.utime(folder)
            return Packed(folder / "blob", known["descriptor"], _changes(known["changes"]))
    return None


def described(blob: Path, descriptor: Mapping[str, Any]) -> Packed:
    """A layer of ours with its descriptor. What it changes is read once, and kept as long as the layers are."""
    diff_id = str(descriptor["diff_id"])
    if kept := take(diff_id):
        return Packed(blob, descriptor, kept.changes)
    layer = Packed(blob, descriptor, changes_of(blob, diff_id))
    keep(layer)
    return layer


def keep(layer: Packed) -> None:
    """Keeps the layer for :func:`take`. Where the folder cannot be written, it is packed again the next time."""
    place = _folder() / str(layer.descriptor["diff_id"]).removeprefix("sha256:")
    temporary = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix=".new-"))
        shutil.copyfile(layer.blob, temporary / "blob")
        record = {"descriptor": dict(layer.descriptor), "changes": _record(layer.changes)}
        (temporary / "layer.json").write_bytes(canonical(record))
        shutil.rmtree(place, ignore_errors=True)
        temporary.replace(place)
    except OSError:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    _forget_oldest(place.parent)


def _forget_oldest(folder: Path) -> None:
    with contextlib.suppress(OSError):
        by_age = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in by_age[KEPT:]:
            shutil.rmtree(path, ignore_errors=True)


def _record(changes: Changes) -> dict[str, Any]:
    return {
        "added": {path: asdict(node) for path, node in changes.added.items()},
        "links": dict(changes.links),
        "removed": sorted(changes.removed),
        "emptied": sorted(changes.emptied),
    }


def _changes(record: Mapping[str, Any]) -> Changes:
    added = {path: Node(**node) for path, node in record["added"].items()}
    return Changes(added, record["links"], frozenset(record["removed"]), frozenset(record["emptied"]))
