"""What tests of builds by an engine share: the step's inputs from the real parts of the digits image, and a look inside
the engine."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
from image_helpers import CREATED, Emit, Image

from workbench.assets import asset
from workbench.image.docker import build
from workbench.image.tree import Node, tree_entries
from workbench.steps import Outputs

PARAMS = {
    "name": "digits",
    "version": "1",
    "python": "3.11",
    "device": "cpu",
    "port": 8000,
    "created": CREATED,
}


class Watching(Emit):
    """An ``Emit`` that keeps what the step says of its progress."""

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.said: list[str] = []

    def progress(self, done: float, total: float, text: str = "") -> None:
        super().progress(done, total, text)
        self.said.append(text)


def inputs_of(image: Image, model: Path | None = None) -> dict[str, Path]:
    return {
        "base": image.folder / "base" / "descriptor",
        "base_blob": image.files["base_blob"],
        "wheels_pins": image.files["wheels_pins"],
        "model": model or asset("digits/digits.onnx"),
        "signature": image.folder / "signature",
    }


def built(inputs: dict[str, Path], scratch: Path, **changed: Any) -> tuple[Outputs, Watching]:
    """The step's outputs, and what it said."""
    scratch.mkdir(parents=True)
    emit = Watching(scratch)
    return build(inputs, {**PARAMS, **changed}, emit), emit


def layers_of(outputs: Outputs) -> list[Path]:
    return [outputs.files[name] for name in sorted(outputs.files) if name.startswith("layer-")]


def tree_of(outputs: Outputs) -> dict[str, Node]:
    config = json.loads(outputs.files["config"].read_bytes())
    return tree_entries(layers_of(outputs), config["rootfs"]["diff_ids"])


@contextlib.contextmanager
def client_of(address: str) -> Iterator[docker.DockerClient]:
    with contextlib.closing(docker.DockerClient(base_url=address)) as client:
        yield client
