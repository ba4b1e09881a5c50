"""An image where it is kept: its manifest and config, read and checked, from whoever made it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.errors import StepFailed, UsageError
from workbench.provenance.names import DIGEST, MANIFEST
from workbench.provenance.referrers import MAX_MANIFEST, digest_of
from workbench.registry.target import Descriptor, Target

_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MODEL = "workbench.model"
MOST_LAYERS = 512
"""Engines stop at 128."""
VERSION = "workbench.version"


@dataclass(frozen=True)
class Image:
    """The image as its repository has it: ``descriptor`` names the manifest."""

    descriptor: Descriptor
    manifest: Mapping[str, Any]

    @property
    def digest(self) -> str:
        return str(self.descriptor["digest"])

    @property
    def layers(self) -> list[Descriptor]:
        """The layers, lowest first."""
        return list(self.manifest["layers"])

    @property
    def blobs(self) -> list[Descriptor]:
        """The config and the layers, lowest first."""
        return [self.manifest["config"], *self.layers]


def find(target: Target, reference: str) -> Image:
    """The image that a tag or digest names. Raises UsageError where it is none, or one of several platforms."""
    data, descriptor = target.manifest(reference)
    where = f"{target.name} {reference}"
    try:
        manifest = json.loads(data)
        media_type = descriptor.get("mediaType") or manifest.get("mediaType")
        if media_type not in (MANIFEST, _DOCKER_MANIFEST):
            raise UsageError(f"{where} is {media_type} and no image.", "Name an image, by digest if need be.")
        named = [blob["digest"] for blob in (manifest["config"], *manifest["layers"])]
        if not all(DIGEST.fullmatch(digest) for digest in named):
            raise UsageError(f"{where} names blobs by what is no digest.", "Push it again.")
        if len(named) > MOST_LAYERS:
            raise UsageError(f"{where} has {len(named) - 1} layers, and no engine takes as many.", "Do not use it.")
        sizes = [blob["size"] for blob in (manifest["config"], *manifest["layers"])]
        if not all(isinstance(size, int) and size >= 0 for size in sizes):
            raise UsageError(f"{where} does not say how large its blobs are.", "Push it again.")
    except (RecursionError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{where} has no usable manifest ({error!r}).", "Push it again.") from error
    found = {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}
    return Image(found, manifest)


def read_config(target: Target, image: Image) -> dict[str, Any]:
    """The image's config, hashed. Raises StepFailed where it is damaged or no config."""
    data = target.read_blob(str(image.manifest["config"]["digest"]), MAX_MANIFEST)
    try:
        config = json.loads(data)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise StepFailed(f"The config of {target.name}@{image.digest} is none.", "Push the image again.")
    return config


def labels(config: Mapping[str, Any]) -> dict[str, str]:
    """The image's labels."""
    inner = config.get("config")
    found = inner.get("Labels") if isinstance(inner, dict) else None
    return dict(found) if isinstance(found, dict) else {}


def diff_ids(config: Mapping[str, Any]) -> list[str]:
    """The digests of the layers' content, lowest first."""
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    return list(found) if isinstance(found, list) else []
