"""Wheels as the content of a layer: unpacked as the wheel specification says, without running anything.

Pure and platform libraries go to one folder, ``.data/data`` beside them (as ``pip install --target`` does); scripts and
headers are dropped, for nothing in the image starts or compiles them. No ``.pyc`` is taken: the image's own interpreter
makes them (:mod:`workbench.image.compile_sources`). ``RECORD`` is written anew with the files that are there, so that
scanners and ``importlib.metadata`` tell the truth.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import io
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

from workbench.errors import StepFailed
from workbench.image.layers import PIECE, Entry, file_of
from workbench.image.omit import Omitted

ROOT = "opt/wheels"
_SCHEMES = ("purelib", "platlib", "data")
_DROPPED = ("scripts", "headers")


class Unpacked:
    """Collects wheels (:meth:`add`), then gives the entries of one layer. ``omitted_bytes``: what was left out."""

    def __init__(self, omitted: Omitted) -> None:
        self._omitted = omitted
        self._stack = contextlib.ExitStack()
        self._entries: dict[str, Entry] = {}
        self._owner: dict[str, str] = {}
        self.omitted_bytes = 0
        self.found = 0

    def __enter__(self) -> Unpacked:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, filename: str, path: Path) -> None:
        """Takes in the wheel that is named ``filename`` and lies at ``path``. Raises StepFailed where it is damaged,
        hostile (paths outside, links, encrypted parts) or contradicts another wheel."""
        try:
            archive = self._stack.enter_context(zipfile.ZipFile(path))
            distribution = "-".join(filename.split("-")[:2])
            kept = [entry for member in archive.infolist() if (entry := self._taken(filename, archive, member))]
            self._rewrite_record(filename, distribution, kept)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise StepFailed(f"The wheel {filename} is damaged: {error}.", "Run the same command again.") from error
        self.found += 1

    def _taken(self, filename: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Entry | None:
        """The entry for one member, or None where it does not go into the image."""
        inside = _place(filename, member)
        if inside is None:
            return None
        path = f"{ROOT}/{inside}"
        if self._omitted.leaves_out(path):
            self.omitted_bytes += member.file_size
            return None
        if path in self._owner:
            if _same(self._entries[path], archive, member):
                return None
            raise StepFailed(f"The wheels {self._owner[path]} and {filename} both have {inside}, with other content.")
        executable = bool(member.external_attr >> 16 & 0o111) or inside.endswith(".so") or ".so." in inside
        mode = 0o755 if executable else 0o644
        entry = Entry(path, "file", mode, member.file_size, lambda: cast("BinaryIO", archive.open(member)))
        self._owner[path] = filename
        self._entries[path] = entry
        return entry

    def _rewrite_record(self, filename: str, distribution: str, kept: list[Entry]) -> None:
        """Writes RECORD for what is there: path, sha256, size, by the specification's encoding."""
        record = next((entry.path for entry in kept if entry.path.endswith(".dist-info/RECORD")), None)
        if record is None:
            raise StepFailed(f"The wheel {filename} has no {distribution}.dist-info/RECORD.")
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for entry in sorted(kept, key=lambda entry: entry.path):
            inside = entry.path.removeprefix(f"{ROOT}/")
            writer.writerow((inside, "", "") if entry.path == record else (inside, _checksum(entry), entry.size))
        self._entries[record] = file_of(record, text.getvalue().encode())

    def entries(self) -> Iterator[Entry]:
        """All files of all wheels."""
        yield from self._entries.values()


def _place(filename: str, member: zipfile.ZipInfo) -> str | None:
    """Where a member of a wheel goes below the root of all wheels; None: nowhere. Raises StepFailed for hostile
    paths."""
    name = member.filename
    parts = name.split("/")
    mode = member.external_attr >> 16
    if (
        name.startswith("/")
        or "\\" in name
        or "\0" in name
        or any(part in ("..", ".") for part in parts)
        or "" in parts[:-1]
    ):
        raise StepFailed(
            f"The wheel {filename} has the path {name!r}, which leads out of it.", "Do not use this wheel."
        )
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise StepFailed(
            f"The wheel {filename} has {name!r}, which is neither file nor folder.", "Do not use this wheel."
        )
    if member.is_dir() or name.endswith(".pyc"):
        return None
    if parts[0].endswith(".data"):
        if len(parts) < 3 or parts[1] in _DROPPED:
            return None
        if parts[1] not in _SCHEMES:
            raise StepFailed(f"The wheel {filename} has {name!r}, for a place there is not.", "Do not use this wheel.")
        return "/".join(parts[2:])
    # A signature of the old RECORD would be one of another file.
    if name.endswith((".dist-info/RECORD.jws", ".dist-info/RECORD.p7s")):
        return None
    return name


def _checksum(entry: Entry) -> str:
    assert entry.open is not None
    sha256 = hashlib.sha256()
    with entry.open() as file:
        while piece := file.read(PIECE):
            sha256.update(piece)
    digest = sha256.digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _same(entry: Entry, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    assert entry.open is not None
    if entry.size != member.file_size:
        return False
    with entry.open() as one, archive.open(member) as other:
        return one.read() == other.read()
