"""The build context: a folder with all that the Dockerfile names, and nothing else.

::

    Dockerfile, .dockerignore
    build/                  unpacking code, its list of what to leave out, the locked wheels' names and sha256
    wheels/                 the locked wheels as they were published
    server.tar, model.tar   the two upper layers, as they are unpacked over the image's root

A folder that is copied gets the time of its transfer; what comes out of a tar has the tar's. So the layers are the same
with every build, and as the tars are written the way engines write layers (:func:`workbench.image.layers.write_tar`),
the layer that BuildKit makes of one is that tar.

BuildKit fetches what changed since the last build from the same folder, and takes a file of the same size, mode and
time for unchanged. So the time of a file here is the same second for all, with nanoseconds that come from its content.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from workbench.assets import asset, package_folder
from workbench.errors import MachineLacks
from workbench.image.content import model_files, server_files
from workbench.image.layers import PIECE, canonical, file_from, write_tar

UNPACKING = (
    "__init__",
    "assets",
    "errors",
    "steps",
    "image.__init__",
    "image.compile_sources",
    "image.layers",
    "image.omit",
    "image.unpack_wheels",
    "image.unwheel",
)
"""The modules of workbench that the build stages run: they import one another and the standard library only."""

_IGNORED = "# All but what the Dockerfile names.\n*\n!build\n!wheels\n!server.tar\n!model.tar\n"


@dataclass(frozen=True)
class Content:
    """What goes into an image over its base: the locked wheels (as the pins have them) with their files by sha256, the
    model and its signature, and the model's name and version. Raises UsageError for a name that is no part of a path.
    """

    wheels: Sequence[Mapping[str, Any]]
    wheel_files: Mapping[str, Path]
    model: Path
    signature: Path
    name: str
    version: str = "1"

    def __post_init__(self) -> None:
        self.model_files()

    def model_files(self) -> dict[str, Path]:
        """Where model and signature lie in the image."""
        return model_files({"model": self.model, "signature": self.signature}, self.name, self.version)

    def model_path(self) -> str:
        """Where the model lies in the image."""
        return next(path for path, source in self.model_files().items() if source == self.model)


@dataclass(frozen=True)
class LaidOut:
    """A context: its folder, the ``diff_id`` of each tar by its name, and the sha256 of each file in them by its path
    in the image."""

    folder: Path
    tars: Mapping[str, str]
    files: Mapping[str, str]


def lay_out(folder: Path, content: Content, created: int) -> LaidOut:
    """Writes the context, but for the Dockerfile, into ``folder``, which is made or empty.

    ``created`` is the time of all in the tars (seconds since 1970). Raises MachineLacks where it cannot be written.
    """
    own: dict[str, bytes | Path] = {
        ".dockerignore": _IGNORED.encode(),
        "build/omit.txt": asset("image/omit.txt"),
        "build/wheels.json": canonical([{key: one[key] for key in ("filename", "sha256")} for one in content.wheels]),
    }
    for module in UNPACKING:
        own[f"build/workbench/{module.replace('.', '/', 1)}.py"] = source_of(module)
    wheels = {f"wheels/{one['filename']}": content.wheel_files[one["sha256"]] for one in content.wheels}
    with _writable(folder):
        _write(folder, {**own, **wheels})
        tars, files = {}, {}
        for name, found in (("server.tar", server_files()), ("model.tar", content.model_files())):
            entries = [file_from(path, source) for path, source in found.items()]
            tars[name], digests = write_tar(folder / name, entries, created)
            _settle(folder / name, tars[name].removeprefix("sha256:"))
            files.update(digests)
        return LaidOut(folder, tars, files)


def write_dockerfile(folder: Path, text: str) -> None:
    """Adds the Dockerfile to the context in ``folder``. Raises MachineLacks where it cannot be written."""
    with _writable(folder):
        _write(folder, {"Dockerfile": text.encode()})


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Tells of a folder that cannot be written, as MachineLacks."""
    try:
        yield
    except OSError as error:
        raise MachineLacks(
            f"The build context cannot be written to {folder}: {error.strerror or error}.",
            "Free disk space or correct the folder's permissions, then run the same command again.",
        ) from error


def source_of(module: str) -> Path:
    """The file of one of :data:`UNPACKING`."""
    if module.endswith("__init__"):
        return package_folder(f"workbench.{module}".removesuffix(".__init__")) / "__init__.py"
    return package_folder(f"workbench.{module}")


def _write(folder: Path, files: Mapping[str, bytes | Path]) -> None:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:  # hashing lets others go on
        list(pool.map(lambda name: _written(files[name], folder / name), files))
    # The modes of folders reach the build stage, and are not to come from this machine's umask.
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
            os.utime(path, (0, 0))


def _written(source: bytes | Path, path: Path) -> None:
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        _settle(path, _copied(file, path))


def _settle(path: Path, sha256: str) -> None:
    """Gives a file of the context the mode and time that go with its content."""
    path.chmod(0o644)
    time = int(sha256[:8], 16) % 1_000_000_000
    os.utime(path, ns=(time, time))


def _copied(source: BinaryIO, path: Path) -> str:
    """Copies and hashes in one go; the sha256."""
    sha256 = hashlib.sha256()
    with path.open("wb") as target:
        while piece := source.read(PIECE):
            sha256.update(piece)
            target.write(piece)
    return sha256.hexdigest()
