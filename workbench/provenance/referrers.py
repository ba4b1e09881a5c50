"""What travels with an image as OCI referrers: recipe with lock, parts list, provenance.

Each is a manifest whose ``subject`` is the image. Recipe and lock are two layers of one: neither can be had with
another's partner. What was attached before stays, and a new artifact names what it replaces in an annotation: nothing
here carries a time, and clocks of several machines would not order it. The newest is the one that no other replaces.
Two machines that attach at the same moment leave two; the next one to attach replaces both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import StepFailed
from workbench.provenance.names import DIGEST, KINDS, MANIFEST, REPLACES, TITLE
from workbench.registry.target import Descriptor, Target
from workbench.store import canonical

EMPTY = b"{}"
MAX_BYTES = 16 << 20
MAX_MANIFEST = 4 << 20
MOST = 64
"""So many machines do not attach at once."""

_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_AGAIN = "Push again: workbench run RECIPE."


@dataclass(frozen=True)
class File:
    """A file in an artifact: its media type, its title (a plain file name) and its content."""

    media_type: str
    title: str
    data: bytes


@dataclass(frozen=True)
class Attached:
    """An artifact beside an image: its digest, and its files as descriptors."""

    digest: str
    files: tuple[Descriptor, ...]

    def file(self, media_type: str) -> Descriptor | None:
        """The descriptor of the file with that media type."""
        return next((file for file in self.files if file["mediaType"] == media_type), None)


# --- reading


def newest(target: Target, subject: str, kind: str) -> list[Attached]:
    """The artifacts of ``kind`` beside the image ``subject`` that none replaces: one as a rule, none where nothing was
    attached, several where machines attached at once. Raises StepFailed for one that is damaged or no artifact, and for
    more than anybody attaches."""
    heads = _heads(target.referrers(subject, KINDS[kind]), KINDS[kind])
    if len(heads) > MOST:
        raise StepFailed(
            f"There are {len(heads)} artifacts with a {kind} beside {target.name}@{subject}, none of which replaces "
            "another.",
            "Remove them from the registry, then push again.",
        )
    return [_read(target, subject, digest) for digest in heads]


def _heads(there: Sequence[Descriptor], artifact_type: str) -> list[str]:
    found = [one for one in there if one.get("artifactType") == artifact_type]
    replaced = {digest for one in found for digest in _replaced(one)}
    return sorted({str(one["digest"]) for one in found} - replaced)


def _replaced(one: Descriptor) -> list[str]:
    annotations = one.get("annotations")
    said = annotations.get(REPLACES) if isinstance(annotations, dict) else None
    return DIGEST.findall(said) if isinstance(said, str) else []


def _read(target: Target, subject: str, digest: str) -> Attached:
    data, _ = target.manifest(digest)
    try:
        manifest = json.loads(data)
        usable = manifest["subject"]["digest"] == subject and manifest["layers"]
        usable = usable and all(_usable(layer) for layer in manifest["layers"])
    except (RecursionError, ValueError, KeyError, TypeError):
        usable = False
    if not usable:
        raise StepFailed(f"The artifact {digest} beside {target.name}@{subject} is not usable.", _AGAIN)
    return Attached(digest, tuple(manifest["layers"]))


def _usable(layer: Mapping[str, Any]) -> bool:
    return bool(DIGEST.fullmatch(layer["digest"])) and isinstance(layer["mediaType"], str)


def read_file(target: Target, attached: Attached, media_type: str) -> bytes:
    """The content of a file of an artifact. Raises StepFailed where it has none such, or a damaged one."""
    descriptor = attached.file(media_type)
    if descriptor is None:
        raise StepFailed(f"The artifact {attached.digest} in {target.name} has no {media_type}.", _AGAIN)
    return target.read_blob(str(descriptor["digest"]), MAX_BYTES)


# --- writing


def is_newest(target: Target, subject: str, kind: str, files: Sequence[File]) -> Attached | None:
    """The newest artifact of ``kind`` if it is the only one, has these files and they are all there."""
    heads = newest(target, subject, kind)
    wanted = [(file.media_type, digest_of(file.data)) for file in files]
    if len(heads) != 1 or [(each["mediaType"], each["digest"]) for each in heads[0].files] != wanted:
        return None
    return heads[0] if all(target.has_blob(digest) for _, digest in wanted) else None


def attach(
    target: Target, subject: Descriptor, kind: str, files: Sequence[File], scratch: Path
) -> tuple[Attached, int]:
    """Makes these files the newest artifact of ``kind`` beside ``subject``; the artifact, and the bytes sent."""
    there = is_newest(target, str(subject["digest"]), kind, files)
    if there is not None:
        return there, 0
    sent = sum(_add(target, data, scratch) for data in (EMPTY, *(file.data for file in files)))
    replaces = _heads(target.referrers(str(subject["digest"]), KINDS[kind]), KINDS[kind])
    manifest = _manifest(subject, KINDS[kind], files, replaces)
    digest = target.add_manifest(canonical(manifest), MANIFEST)
    return Attached(digest, tuple(manifest["layers"])), sent + len(canonical(manifest))


def _add(target: Target, data: bytes, scratch: Path) -> int:
    path = scratch / "blob"
    path.write_bytes(data)
    return target.add_blob(path, digest_of(data))


def _manifest(
    subject: Descriptor, artifact_type: str, files: Sequence[File], replaces: Sequence[str]
) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": artifact_type,
        "config": {"mediaType": _EMPTY_TYPE, "digest": digest_of(EMPTY), "size": len(EMPTY), "data": "e30="},
        "layers": [
            {
                "mediaType": file.media_type,
                "digest": digest_of(file.data),
                "size": len(file.data),
                "annotations": {TITLE: file.title},
            }
            for file in files
        ],
        "subject": {key: subject[key] for key in ("mediaType", "digest", "size")},
        **({"annotations": {REPLACES: ",".join(replaces)}} if replaces else {}),
    }


def digest_of(data: bytes) -> str:
    """``sha256:…`` of ``data``."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
