"""What of ours goes into an image: the server's source, and the model."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import workbench
from workbench.errors import StepFailed, UsageError
from workbench.image.layers import file_from, write_layer
from workbench.steps import Emit, Outputs

APP = "app"
MODELS = "models"

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

_SAMPLES = 16
_SAMPLE_SIZE = 1 << 18
WORTH_COMPRESSING = 0.75
"""Weights are noise to gzip: float32 keeps 93 % of its size, int8 88 %, both at 35-45 MB/s on one core, while storing
them
runs at the speed of hashing: the bytes saved pay off on links slower than 2-5 MB/s. A model with many equal
weights (pruned, palettised) is another matter, so samples of the file decide."""


def server_layer(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:  # noqa: ARG001
    """The layer with ``workbench.server`` below ``/app``. ``params``: ``created`` (seconds since 1970)."""
    entries = [file_from(path, source) for path, source in server_files().items()]
    return write_layer("server", entries, emit.scratch, created=params["created"])


def server_files() -> dict[str, Path]:
    """The server's source, by its path in the image. Raises StepFailed where the installation is not whole."""
    package = Path(workbench.__file__).resolve().parent
    sources = [package / "__init__.py", *sorted((package / "server").rglob("*.py"))]
    if len(sources) < 2:
        raise StepFailed("This installation of workbench lacks workbench/server.", "Install workbench again.")
    return {f"{APP}/workbench/{source.relative_to(package).as_posix()}": source for source in sources}


def compresses(path: Path) -> bool:
    """Whether gzip is worth its time for this file: judged by pieces of it, spread evenly, so the same for the same
    bytes."""
    size = path.stat().st_size
    step = max(size // _SAMPLES, _SAMPLE_SIZE)
    taken = left = 0
    with path.open("rb") as file:
        for start in range(0, size, step):
            file.seek(start)
            piece = file.read(_SAMPLE_SIZE)
            taken += len(piece)
            left += len(zlib.compress(piece, 1))
    return left < WORTH_COMPRESSING * taken


def model_level(path: Path) -> int:
    """zlib's level for a layer with that model.

    1 where it is worth it: of zeros mostly, higher levels take little more. 0 stores, in gzip's frame all the same:
    tools that copy images compress a plain tar, and its digest would be another.
    """
    return 1 if compresses(path) else 0


def model_layer(inputs: Mapping[str, Path], params: Mapping[str, Any], emit: Emit) -> Outputs:
    """The layer with the model below ``/models/<name>/<version>/``, only stored where compressing would gain little.

    ``params``: ``name``, ``version``, ``created``. Raises UsageError for a name that cannot be part of a path and an
    address.
    """
    files = model_files(inputs, str(params["name"]), str(params["version"]))
    entries = [file_from(path, source) for path, source in files.items()]
    level = model_level(inputs["model"])
    return write_layer("model", entries, emit.scratch, created=params["created"], level=level)


def model_files(inputs: Mapping[str, Path], name: str, version: str) -> dict[str, Path]:
    """Where ``model`` and ``signature`` lie in the image. Raises UsageError for a name that cannot be part of a path
    and an address."""
    for text in (name, version):
        if not _MODEL_NAME.fullmatch(text):
            raise UsageError(
                f"{text!r} cannot name a model or its version in an image.",
                "Use letters, digits, '.', '_' and '-', beginning with a letter or digit.",
            )
    folder = f"{MODELS}/{name}/{version}"
    return {f"{folder}/model.onnx": inputs["model"], f"{folder}/signature.json": inputs["signature"]}
