"""The build context: a folder with all that the Dockerfile names, and nothing else.

::

    Dockerfile, .dockerignore
    build/          unpacking code, its list of what to leave out, the locked wheels' names and sha256
    wheels/         the locked wheels as they were published
    server/, model/ as they lie in the image, below its root

BuildKit copies what changed since the last build from the same folder, and takes a file of the same size, mode and time
for unchanged. So the time of a file here is the same second for all, with nanoseconds that come from its content.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from workbench.assets import asset, package_folder
from workbench.errors import MachineLacks
from workbench.image.content import model_files, server_files
from workbench.image.layers import PIECE, canonical

UNPACKING = (
    "__init__",
    "assets",
    "errors",
    "steps",
    "image.__init__",
    "image.layers",
    "image.omit",
    "image.unpack_wheels",
    "image.unwheel",
)
"""The modules of workbench that the build stage runs: they import one another and the standard library only."""

_IGNORED = "# All but what the Dockerfile names.\n*\n!build\n!wheels\n!server\n!model\n"


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


def lay_out(folder: Path, dockerfile: str, content: Content) -> dict[str, str]:
    """Writes the context into ``folder``, which is made or empty; the sha256 of each file by its path in the context.

    Raises MachineLacks where it cannot be written.
    """
    own: dict[str, bytes | Path] = {
        "Dockerfile": dockerfile.encode(),
        ".dockerignore": _IGNORED.encode(),
        "build/omit.txt": asset("image/omit.txt"),
        "build/wheels.json": canonical([{key: one[key] for key in ("filename", "sha256")} for one in content.wheels]),
    }
    for module in UNPACKING:
        own[f"build/workbench/{module.replace('.', '/', 1)}.py"] = source_of(module)
    wheels = {f"wheels/{one['filename']}": content.wheel_files[one["sha256"]] for one in content.wheels}
    server = {f"server/{path}": source for path, source in server_files().items()}
    model = {f"model/{path}": source for path, source in content.model_files().items()}
    try:
        return _write(folder, {**own, **wheels, **server, **model})
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


def _write(folder: Path, files: Mapping[str, bytes | Path]) -> dict[str, str]:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:  # hashing lets others go on: the model beside the wheels
        digests = dict(zip(files, pool.map(lambda name: _written(files[name], folder / name), files), strict=True))
    # The modes of folders reach the image, and are not to come from this machine's umask.
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
            os.utime(path, (0, 0))
    return digests


def _written(source: bytes | Path, path: Path) -> str:
    """Writes one file of the context; its sha256."""
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        digest = _copied(file, path)
    path.chmod(0o644)
    time = int(digest[:8], 16) % 1_000_000_000
    os.utime(path, ns=(time, time))
    return digest


def _copied(source: BinaryIO, path: Path) -> str:
    """Copies and hashes in one go; the sha256."""
    sha256 = hashlib.sha256()
    with path.open("wb") as target:
        while piece := source.read(PIECE):
            sha256.update(piece)
            target.write(piece)
    return sha256.hexdigest()
