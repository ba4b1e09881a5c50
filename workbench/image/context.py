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
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.assets import asset, package_folder
from workbench.errors import MachineLacks
from workbench.image.content import model_files, server_files
from workbench.image.downloads import sha256_of
from workbench.image.layers import canonical

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
    model and its signature, and the model's name and version."""

    wheels: Sequence[Mapping[str, Any]]
    wheel_files: Mapping[str, Path]
    model: Path
    signature: Path
    name: str
    version: str = "1"


def lay_out(folder: Path, dockerfile: str, content: Content) -> None:
    """Writes the context into ``folder``, which is made or empty. Raises MachineLacks where it cannot be written."""
    own: dict[str, bytes | Path] = {
        "Dockerfile": dockerfile.encode(),
        ".dockerignore": _IGNORED.encode(),
        "build/omit.txt": asset("image/omit.txt"),
        "build/wheels.json": canonical([{key: one[key] for key in ("filename", "sha256")} for one in content.wheels]),
    }
    for module in UNPACKING:
        own[f"build/workbench/{module.replace('.', '/', 1)}.py"] = source_of(module)
    wheels = {f"wheels/{one['filename']}": content.wheel_files[one["sha256"]] for one in content.wheels}
    inputs = {"model": content.model, "signature": content.signature}
    server = {f"server/{path}": source for path, source in server_files().items()}
    model = {f"model/{path}": source for path, source in model_files(inputs, content.name, content.version).items()}
    try:
        _write(folder, {**own, **wheels, **server, **model})
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
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, bytes):
            path.write_bytes(source)
            sha256 = hashlib.sha256(source).hexdigest()
        else:
            shutil.copyfile(source, path)
            sha256 = sha256_of(path)
        path.chmod(0o644)
        time = int(sha256[:8], 16) % 1_000_000_000
        os.utime(path, ns=(time, time))
    # The modes of folders reach the image, and are not to come from this machine's umask.
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
            os.utime(path, (0, 0))
