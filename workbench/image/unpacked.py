"""An image's layers unpacked into a folder: verified while they are read, and never writing outside it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from workbench.errors import MachineLacks, StepFailed
from workbench.image.layers import PIECE
from workbench.store import remove_tree

LARGEST = 64 << 30
"""The most bytes that the content of a layer may have: a small blob may swell to a thousand times its size."""
MOST_ENTRIES = 1_000_000

_GZIP_MAGIC = b"\x1f\x8b"
_LONGEST_HEADER = 1 << 20
_LONG_HEADERS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_HOSTILE = "Do not use this image."


def unpack(config: Path, blobs: Sequence[Path], root: Path) -> None:
    """Unpacks the image with that ``config`` and these layers (lowest first) into ``root``, which is made.

    Raises StepFailed for a layer that is damaged, not the one the config names, or hostile; MachineLacks where the
    folder cannot be written.
    """
    try:
        _unpack(json.loads(config.read_bytes()), blobs, root)
    except OSError as error:
        raise MachineLacks(
            f"The image cannot be unpacked into {root}: {error.strerror or error}.",
            "Free disk space or correct the folder's permissions, then run the same command again.",
        ) from error


def _unpack(config: dict[str, object], blobs: Sequence[Path], root: Path) -> None:
    rootfs = config["rootfs"]
    assert isinstance(rootfs, dict)
    diff_ids = rootfs["diff_ids"]
    if len(diff_ids) != len(blobs):
        raise StepFailed(f"The image's config names {len(diff_ids)} layers, and there are {len(blobs)}.")
    root.mkdir(mode=0o700)
    folders: dict[Path, int] = {root: 0o755}
    for blob, diff_id in zip(blobs, diff_ids, strict=True):
        with blob.open("rb") as file:
            content = Content(file)
            try:
                with opened(content) as archive:
                    for member in entries(archive):
                        _place(root, archive, member, folders)
                content.drain()
            except DAMAGE as error:
                raise StepFailed(f"A layer of the image is damaged: {error}.", "Run with --fresh.") from error
        if content.diff_id != diff_id:
            raise StepFailed(f"A layer of the image is {content.diff_id}, not {diff_id}.", "Run with --fresh.")
    # Last, and deepest first: a folder may say that its owner cannot write in it.
    for path, mode in sorted(folders.items(), key=lambda item: len(item[0].parts), reverse=True):
        path.chmod(mode)


class Content:
    """The tar inside a blob (gzip, in one part or several, or plain), hashed as it is read.

    Raises StepFailed as soon as it swells to more than ``largest`` bytes.
    """

    def __init__(self, file: BinaryIO, largest: int = LARGEST) -> None:
        self._file = file
        self._largest = largest
        self._sha256 = hashlib.sha256()
        self._inflate = zlib.decompressobj(31) if file.read(2) == _GZIP_MAGIC else None
        file.seek(0)
        self._packed = self._rest = b""
        self.length = 0

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (piece := self._piece()):
            self._rest += piece
        data, self._rest = self._rest[:size], self._rest[size:]
        self._sha256.update(data)
        self.length += len(data)
        if self.length > self._largest:
            raise StepFailed(f"The layers of the image swell to more than {self._largest} bytes.", _HOSTILE)
        return data

    def _piece(self) -> bytes:
        if self._inflate is None:
            return self._file.read(PIECE)
        while taken := self._packed or self._file.read(PIECE):
            if self._inflate.eof:
                # Engines read on behind the end of a gzip member, so what follows is content; only padding is none.
                self._packed = taken = taken.lstrip(b"\0")
                if not taken:
                    continue
                self._inflate = zlib.decompressobj(31)
            piece = self._inflate.decompress(taken, PIECE)
            self._packed = self._inflate.unconsumed_tail or self._inflate.unused_data
            if piece:
                return piece
        return b""

    def drain(self) -> None:
        """Reads what lies behind the end of the archive, which belongs to the content."""
        while self.read(PIECE):
            pass
        if self._inflate is not None and not self._inflate.eof:
            raise EOFError("it ends early")

    @property
    def diff_id(self) -> str:
        return f"sha256:{self._sha256.hexdigest()}"


DAMAGE = (tarfile.TarError, zlib.error, EOFError, ValueError)
"""What reading a tar raises where it is damaged; ValueError for numbers in its headers that are none."""


class Header(tarfile.TarInfo):
    """Refuses what would be read whole into memory, before it is; and sparse files: a header stands for any number of
    bytes there, and no engine writes them."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Header:
        found = super().frombuf(buf, encoding, errors)
        if found.type in _LONG_HEADERS and found.size > _LONGEST_HEADER:
            raise StepFailed(f"A layer of the image has a header of {found.size} bytes.", _HOSTILE)
        if found.type == tarfile.GNUTYPE_SPARSE:
            found._refuse_sparse()
        return found

    def _refuse_sparse(self, *_: object) -> None:
        raise StepFailed("A layer of the image has a sparse file.", _HOSTILE)

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


def opened(content: Content) -> tarfile.TarFile:
    """The layer as an archive to read once from its beginning to its end."""
    return tarfile.open(fileobj=cast("BinaryIO", content), mode="r|", bufsize=PIECE, tarinfo=Header)


def entries(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The entries of a layer in their order. Raises StepFailed where there is no end to them."""
    for count, member in enumerate(archive):
        if count == MOST_ENTRIES:
            raise StepFailed(f"A layer of the image has more than {MOST_ENTRIES} entries.", _HOSTILE)
        yield member
        archive.members = []  # type: ignore[attr-defined]  # else it keeps each header it has read


def _place(root: Path, archive: tarfile.TarFile, member: tarfile.TarInfo, folders: dict[Path, int]) -> None:
    parts = member.name.split("/")
    if member.name.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise StepFailed(f"A layer of the image has the path {member.name!r}, which leads out of it.")
    if parts[-1].startswith(".wh."):
        raise StepFailed(f"A layer of the image removes /{member.name}; layers that do so are not unpacked here.")
    path = root.joinpath(*parts)
    if path.parent not in folders:
        # Folders that came through a link, or not at all, are not in the list: nothing is ever written through a link.
        raise StepFailed(f"A layer of the image has /{member.name} below something that is no folder.")
    if member.isdir():
        if path not in folders:
            path.mkdir(mode=0o700)
        folders[path] = member.mode & 0o1777
        return
    if path in folders:
        raise StepFailed(f"A layer of the image puts /{member.name} in the place of a folder.")
    path.unlink(missing_ok=True)
    if member.issym():
        path.symlink_to(member.linkname)
    elif member.isfile():
        _write(path, archive, member)
    else:
        raise StepFailed(f"A layer of the image has /{member.name}, which is neither file, folder nor symbolic link.")


def _write(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    source = archive.extractfile(member)
    assert source is not None
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while piece := source.read(PIECE):
            file.write(piece)
        os.fchmod(descriptor, member.mode & 0o777)


@contextlib.contextmanager
def unpacked_for_now(config: Path, blobs: Sequence[Path], scratch: Path) -> Iterator[Path]:
    """The image's root, by :func:`unpack`, in a folder below ``scratch`` that is removed at the end."""
    root = scratch / "image"
    try:
        unpack(config, blobs, root)
        yield root
    finally:
        remove_tree(root)
