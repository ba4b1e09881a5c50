"""What ``docker save`` gives: an image's config and layers, taken out of the stream as it comes.

The archive's ``manifest.json`` names the config and the layers' tars, lowest first; engines since 25 lay out an OCI
layout around it, whose blobs may be compressed.
"""

from __future__ import annotations

import json
import posixpath
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from workbench.errors import StepFailed
from workbench.image.layers import PIECE

_LARGEST_RECORD = 8 << 20


@dataclass(frozen=True)
class Saved:
    """An image as it was saved: the config's bytes, and the files that hold its layers, lowest first."""

    config: bytes
    layers: tuple[Path, ...]


class _Stream:
    """A stream of pieces as a file to read from."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)
        self._rest = b""

    def read(self, size: int) -> bytes:
        found = [self._rest]
        length = len(self._rest)
        while length < size and (piece := next(self._pieces, b"")):
            found.append(piece)
            length += len(piece)
        data = b"".join(found)
        self._rest = data[size:]
        return data[:size]


def read(pieces: Iterable[bytes], folder: Path) -> Saved:
    """Takes the image out of the archive, its layers into ``folder``, which is made.

    Raises StepFailed where the archive is not one of a single image.
    """
    folder.mkdir()
    try:
        stream = cast("BinaryIO", _Stream(pieces))
        with tarfile.open(fileobj=stream, mode="r|", bufsize=PIECE) as archive:
            files, links = _spooled(archive, folder)
        found = json.loads(_record(files, "manifest.json"))[0]
        config = _record(files, found["Config"])
        layers = tuple(files[_followed(links, str(name))] for name in found["Layers"])
    except (tarfile.TarError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise StepFailed(f"What the engine saved is no image: {error!r}.", "Run the same command again.") from error
    return Saved(config, layers)


def _spooled(archive: tarfile.TarFile, folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The archive's files by name, written into ``folder`` under names of ours; and its links."""
    files: dict[str, Path] = {}
    links: dict[str, str] = {}
    for number, member in enumerate(archive):
        name = posixpath.normpath(member.name)
        if member.isfile():
            source: Any = archive.extractfile(member)
            files[name] = folder / f"{number}"
            with files[name].open("wb") as target:
                shutil.copyfileobj(source, target, PIECE)
        elif member.issym():
            links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
        elif member.islnk():
            links[name] = posixpath.normpath(member.linkname)
    return files, links


def _followed(links: dict[str, str], name: str) -> str:
    """The name of the file: a layer that an image has twice is there once."""
    for _ in range(len(links)):
        name = links.get(name, name)
    return name


def _record(files: dict[str, Path], name: str) -> bytes:
    if files[name].stat().st_size > _LARGEST_RECORD:
        raise ValueError(f"{name} is too large")
    return files[name].read_bytes()
