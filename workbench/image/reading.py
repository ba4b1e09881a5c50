"""Reading an image's layers as they lie in the store or in a registry: one file after the other, never the whole."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from workbench.errors import StepFailed
from workbench.image.unpacked import DAMAGE, Content, entries, opened

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
"""What a layer has in the place of a file that it removes, and in a folder whose lower content it hides (OCI image
specification, filesystem layers)."""


def members(blob: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """The entries of a layer (gzip or plain tar) in their order, each with its content where it is a file.

    The content is to be read before the next entry is asked for. Raises StepFailed for a layer that is damaged or
    packed in another way, or without end.
    """
    with blob.open("rb") as file:
        try:
            with opened(Content(file)) as archive:
                for member in entries(archive):
                    yield member, archive.extractfile(member) if member.isreg() else None
        except DAMAGE as error:
            raise StepFailed(
                f"A layer of the image is damaged, or neither gzip nor plain tar: {error}.", "Run with --fresh."
            ) from error


def path_of(member: tarfile.TarInfo) -> str:
    """The path in the image, from its root; a hostile ``..`` in it leads nowhere, for nothing is written."""
    return "/" + member.name.removeprefix("./").lstrip("/")
