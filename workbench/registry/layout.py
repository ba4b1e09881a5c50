"""An OCI image layout: a folder that holds images by content and names them by tag (OCI image specification 1.1).

::

    oci-layout               {"imageLayoutVersion": "1.0.0"}
    index.json               which manifest each tag names
    blobs/sha256/<digest>    configs, layers, manifests

Blobs come first and the index last, each by a rename, so a reader sees the images of before or of after. Writers take
turns by a lock on the folder itself, which leaves no file behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.errors import MachineLacks, StepFailed, UsageError

LAYOUT_VERSION = "1.0.0"
INDEX = "application/vnd.oci.image.index.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"

_PIECE = 1 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def canonical(value: Any) -> bytes:
    """``value`` as JSON bytes that are equal for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(path: Path) -> str:
    """``sha256:…`` of a file."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


class Layout:
    """The layout in ``folder``. Reading needs one that is there; :meth:`writing` makes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # --- reading

    def blob(self, digest: str) -> Path:
        """Where the blob with that digest lies, or would. Raises UsageError for what is no digest."""
        if not _DIGEST.fullmatch(digest):
            raise UsageError(f"{digest!r} is no digest.", "A digest is sha256: and 64 hexadecimal digits.")
        return self.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def has(self, digest: str) -> bool:
        """Whether the blob is there and whole: it is hashed."""
        path = self.blob(digest)
        return path.is_file() and digest_of(path) == digest

    def index(self) -> dict[str, Any]:
        """The index; an empty one where there is none yet. Raises UsageError where it is not an OCI index."""
        path = self.folder / "index.json"
        if not path.exists():
            return {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
        try:
            index = json.loads(path.read_bytes())
            usable = isinstance(index["manifests"], list) and index["schemaVersion"] == 2
            usable = usable and all(_is_usable(entry) for entry in index["manifests"])
        except (RecursionError, ValueError, KeyError, TypeError, AttributeError):
            usable = False
        if not usable:
            raise UsageError(f"{path} is not an OCI image index.", "Push to another folder, or move this one away.")
        return dict(index)

    def tags(self) -> dict[str, Mapping[str, Any]]:
        """The descriptors of the tagged manifests, by tag."""
        named = ((entry.get("annotations", {}).get(REF_NAME), entry) for entry in self.index()["manifests"])
        return {str(tag): entry for tag, entry in named if tag is not None}

    def manifest(self, tag: str) -> dict[str, Any]:
        """The manifest that ``tag`` names. Raises UsageError where there is none, StepFailed where it is damaged."""
        entry = self.tags().get(tag)
        if entry is None:
            there = ", ".join(sorted(self.tags())) or "none"
            raise UsageError(f"{self.folder} has no image with the tag {tag!r}.", f"Its tags: {there}.")
        digest = str(entry["digest"])
        if not self.has(digest):
            raise StepFailed(f"The manifest {digest} in {self.folder} is damaged or missing.", "Push again.")
        return dict(json.loads(self.blob(digest).read_bytes()))

    # --- writing

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Makes the layout if need be and keeps other writers out until the end. Raises MachineLacks where the folder
        cannot be written, UsageError where it holds something else."""
        try:
            (self.folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._mark()
            self._sweep()
            yield
        finally:
            os.close(descriptor)

    def _mark(self) -> None:
        path = self.folder / "oci-layout"
        if not path.exists():
            self._write(path, canonical({"imageLayoutVersion": LAYOUT_VERSION}))
            return
        try:
            version = json.loads(path.read_bytes())["imageLayoutVersion"]
        except (RecursionError, ValueError, KeyError, TypeError):
            version = None
        if version != LAYOUT_VERSION:
            raise UsageError(
                f"{self.folder} is not an OCI image layout of version {LAYOUT_VERSION}.", "Push to another folder."
            )

    def _sweep(self) -> None:
        """Removes what a killed writer left: with the lock held, no other writes."""
        for folder in (self.folder, self.folder / "blobs" / "sha256"):
            for path in folder.glob(".new-*"):
                path.unlink(missing_ok=True)

    def add(self, source: Path, digest: str) -> int:
        """Copies ``source`` in as the blob ``digest`` unless it is there and whole. Returns the bytes written.

        What was written is read back and compared: a push that says it arrived has looked. Raises StepFailed where it
        differs.
        """
        if self.has(digest):
            return 0
        path = self.blob(digest)
        temporary = None
        try:
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
            with os.fdopen(descriptor, "wb") as target, source.open("rb") as file:
                while piece := file.read(_PIECE):
                    target.write(piece)
                _make_durable(target.fileno())
            if digest_of(Path(temporary)) != digest:
                raise StepFailed(f"The blob {digest} is another after it was copied to {self.folder}.", "Push again.")
            Path(temporary).replace(path)
        except OSError as error:
            raise _unwritable(path, error) from error
        finally:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)
        return path.stat().st_size

    def add_bytes(self, data: bytes) -> str:
        """Puts ``data`` in as a blob unless it is there and whole. Returns its digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if not self.has(digest):
            self._write(self.blob(digest), data)
        return digest

    def list(self, descriptor: Mapping[str, Any]) -> None:
        """Lists the manifest of ``descriptor`` without a name, unless it is listed already."""
        index = self.index()
        if all(entry["digest"] != descriptor["digest"] for entry in index["manifests"]):
            self._list(index, [*index["manifests"], dict(descriptor)])

    def name(self, tag: str, descriptor: Mapping[str, Any]) -> None:
        """Lets ``tag`` name the manifest of ``descriptor`` (mediaType, digest, size); all other tags stay."""
        index = self.index()
        others = [entry for entry in index["manifests"] if entry.get("annotations", {}).get(REF_NAME) != tag]
        # The same manifest without a name says nothing that the named entry does not.
        others = [entry for entry in others if entry.get("annotations") or entry["digest"] != descriptor["digest"]]
        others.append({**descriptor, "annotations": {REF_NAME: tag}})
        self._list(index, others)

    def _list(self, index: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> None:
        ordered = sorted(entries, key=lambda entry: (entry.get("annotations", {}).get(REF_NAME, ""), entry["digest"]))
        self._write(self.folder / "index.json", canonical({**index, "manifests": ordered}))

    def _write(self, path: Path, data: bytes) -> None:
        temporary = None
        try:
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                _make_durable(file.fileno())
            Path(temporary).replace(path)
        except OSError as error:
            raise _unwritable(path, error) from error
        finally:
            if temporary is not None:
                Path(temporary).unlink(missing_ok=True)


def _is_usable(entry: Mapping[str, Any]) -> bool:
    annotations = entry.get("annotations", {})
    named = isinstance(annotations, dict) and isinstance(annotations.get(REF_NAME, ""), str)
    return named and _DIGEST.fullmatch(entry["digest"]) is not None


def _make_durable(descriptor: int) -> None:
    os.fchmod(descriptor, 0o644)  # mkstemp's 0600 would hide a shared layout from its other readers
    os.fsync(descriptor)


def _unwritable(path: Path, error: OSError) -> MachineLacks:
    return MachineLacks(
        f"{path} cannot be written: {error.strerror or error}.",
        "Free disk space or correct the folder's permissions, then run the same command again.",
    )
