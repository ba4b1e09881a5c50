"""Where images are kept: what an OCI layout folder and a registry repository have in common.

Pushing, pulling, provenance and verification are written against this, and work with both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

Descriptor = Mapping[str, Any]
"""``mediaType``, ``digest`` and ``size``, perhaps ``artifactType`` and ``annotations`` (OCI image specification)."""

Progress = Callable[[int, int], None]
"""Called with the bytes sent or received so far, and all bytes."""


class Target(Protocol):
    """One repository of images, in a layout folder or in a registry."""

    @property
    def name(self) -> str:
        """As a user writes it, without tag and digest: ``oci:.workbench/registry``, ``registry.example.com/team/x``."""

    def resolve(self, reference: str) -> str | None:
        """The digest of the manifest that a tag or digest names; None where there is none, or none that is whole."""

    def has_blob(self, digest: str) -> bool:
        """Whether the blob is there (and, where that can be seen cheaply, whole)."""

    def add_blob(self, source: Path, digest: str, progress: Progress | None = None) -> int:
        """Puts the file there as the blob ``digest`` unless it is there already. Returns the bytes that were sent."""

    def mount_blob(self, digest: str, source: str) -> bool:
        """Whether the blob is there now because the repository ``source`` of the same registry has it: nothing is sent.

        ``source`` is written as :attr:`name`. False where it has no such blob, or where nothing can be shared.
        """

    def read_blob(self, digest: str, limit: int) -> bytes:
        """A small blob, verified. Raises StepFailed where it is damaged or larger than ``limit`` bytes."""

    def pull_blob(self, digest: str, into: Path, progress: Progress | None = None, *, limit: int | None = None) -> None:
        """Writes the blob to the file ``into``, verified: a partial file never bears that name.

        Raises StepFailed where it is damaged or larger than ``limit`` bytes (its descriptor says how large it is).
        """

    def manifest(self, reference: str) -> tuple[bytes, Descriptor]:
        """The manifest (or index) that a tag or digest names, verified against its digest where one is given.

        Raises UsageError where there is none.
        """

    def add_manifest(self, data: bytes, media_type: str, tag: str | None = None) -> str:
        """Puts a manifest there, whose blobs are there already, and lets ``tag`` name it. Returns its digest.

        One with a ``subject`` becomes a referrer of it.
        """

    def referrers(self, digest: str, artifact_type: str | None = None) -> list[Descriptor]:
        """The descriptors of the manifests whose ``subject`` is ``digest``, with ``artifactType`` and annotations."""


def as_referrer(document: Mapping[str, Any], digest: str, size: int, media_type: str) -> Descriptor:
    """How a manifest with a subject is listed: with its type and annotations, as the specification asks."""
    config = document.get("config")
    kind = document.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else None)
    found = {"mediaType": media_type, "digest": digest, "size": size, "artifactType": kind}
    found["annotations"] = document.get("annotations")
    return {key: value for key, value in found.items() if value is not None}
