"""An OCI layout folder as a place where images are kept."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from workbench.errors import StepFailed, UsageError
from workbench.registry.errors import damaged
from workbench.registry.layout import Layout, digest_of
from workbench.registry.reference import OCI, check_ref_name
from workbench.registry.target import Descriptor, Progress, as_referrer
from workbench.store import unwritable

_LARGEST_MANIFEST = 4 << 20


class Folder:
    """The layout in ``folder``; ``written`` is how the user names it, where that is another path."""

    def __init__(self, folder: Path, written: str | None = None) -> None:
        self.layout = Layout(folder)
        self._name = f"{OCI}{written or folder}"

    @property
    def name(self) -> str:
        return self._name

    def resolve(self, reference: str) -> str | None:
        """The digest of the manifest that a tag or digest names; None where it is not there, or not whole."""
        digest = reference
        if not reference.startswith("sha256:"):
            digest = str(self.layout.tags().get(reference, {}).get("digest", ""))
        return digest if digest and self.layout.has(digest) else None

    # --- blobs

    def has_blob(self, digest: str) -> bool:
        """Whether the blob is there and whole: it is hashed."""
        return self.layout.has(digest)

    def add_blob(self, source: Path, digest: str, progress: Progress | None = None) -> int:
        """Copies the file in unless it is there and whole. Returns the bytes written."""
        with self.layout.writing():
            self.layout.index()  # one that cannot be read is said before anything is written
            written = self.layout.add(source, digest)
        if progress and written:
            progress(written, written)
        return written

    def mount_blob(self, digest: str, source: str) -> bool:  # noqa: ARG002 - as the Protocol has it
        """False: a layout has one room for blobs."""
        return False

    def read_blob(self, digest: str, limit: int) -> bytes:
        """A small blob, verified. Raises StepFailed where it is damaged, missing or larger than ``limit`` bytes."""
        path = self._whole(digest, limit)
        return path.read_bytes()

    def pull_blob(self, digest: str, into: Path, progress: Progress | None = None, *, limit: int | None = None) -> None:
        """Copies the blob to the file ``into``, verified: a partial file never bears that name."""
        source = self._whole(digest, limit)
        try:
            with tempfile.TemporaryDirectory(dir=into.parent, prefix=".new-") as folder:
                copy = shutil.copyfile(source, Path(folder) / "blob")
                if digest_of(copy) != digest:
                    raise damaged(digest, self.name)
                copy.replace(into)
        except OSError as error:
            raise unwritable(into, error) from error
        if progress:
            progress(into.stat().st_size, into.stat().st_size)

    def _whole(self, digest: str, limit: int | None) -> Path:
        path = self.layout.blob(digest)
        if not path.is_file():
            raise StepFailed(f"{self.name} has no {digest}.", "Push the image again.")
        if limit is not None and path.stat().st_size > limit:
            raise StepFailed(f"{digest} in {self.name} is larger than the {limit} bytes it may have.", "Push it again.")
        if digest_of(path) != digest:
            raise damaged(digest, self.name)
        return path

    # --- manifests

    def manifest(self, reference: str) -> tuple[bytes, Descriptor]:
        """The manifest that a tag or digest names, verified. Raises UsageError where there is none."""
        digest, entry = reference, self._listed().get(reference, {})
        if not reference.startswith("sha256:"):
            entry = self.layout.tags().get(reference, {})
            digest = str(entry.get("digest", ""))
        if not digest or not self.layout.blob(digest).is_file():
            there = ", ".join(sorted(self.layout.tags())) or "none"
            raise UsageError(f"{self.name} has no image {reference!r}.", f"Its tags: {there}.")
        data = self.read_blob(digest, _LARGEST_MANIFEST)
        media_type = entry.get("mediaType") or _document(data).get("mediaType")
        return data, {"mediaType": media_type, "digest": digest, "size": len(data)}

    def add_manifest(self, data: bytes, media_type: str, tag: str | None = None) -> str:
        """Puts the manifest there and lets ``tag`` name it; without one it is listed without a name."""
        if tag is not None:
            check_ref_name(tag)
        with self.layout.writing():
            self.layout.index()
            digest = self.layout.add_bytes(data)
            descriptor = as_referrer(_document(data), digest, len(data), media_type)
            if tag is None:
                self.layout.list({key: value for key, value in descriptor.items() if key != "annotations"})
            else:
                self.layout.name(tag, {key: descriptor[key] for key in ("mediaType", "digest", "size")})
        return digest

    # --- referrers

    def referrers(self, digest: str, artifact_type: str | None = None) -> list[Descriptor]:
        """The listed manifests whose ``subject`` is ``digest``; what is damaged or no manifest is passed over."""
        found = (self._referrer(entry, digest) for entry in self._listed().values())
        return [each for each in found if each and (artifact_type is None or each.get("artifactType") == artifact_type)]

    def _referrer(self, entry: Descriptor, subject: str) -> Descriptor | None:
        path = self.layout.blob(entry["digest"])
        if not path.is_file() or path.stat().st_size > _LARGEST_MANIFEST:
            return None
        data = path.read_bytes()
        document = _document(data)
        refers = document.get("subject")
        if not isinstance(refers, dict) or refers.get("digest") != subject or not self.layout.has(entry["digest"]):
            return None
        media_type = str(entry.get("mediaType") or document.get("mediaType"))
        return as_referrer(document, entry["digest"], len(data), media_type)

    def _listed(self) -> dict[str, Descriptor]:
        return {entry["digest"]: entry for entry in self.layout.index()["manifests"]}


def _document(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (RecursionError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
