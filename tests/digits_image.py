"""A whole image of the shipped digits, made once a test session from real packages: fixtures for several rooms.

A room's conftest.py imports those it uses.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from workbench.assets import asset
from workbench.image import base, bytecode, content, oci, wheels
from workbench.image.unpacked import unpack

CREATED = 1_700_000_000
LAYERS = ("base", "wheels", "server", "bytecode", "model")


@dataclass
class Emit:
    """What a step may say, kept for the test to read."""

    scratch: Path
    notes: list[str] = field(default_factory=list)

    def progress(self, done: float, total: float, text: str = "") -> None:
        assert 0 <= done <= total

    def note(self, text: str) -> None:
        self.notes.append(text)

    def sample(self, kind: str, values: Mapping[str, Any]) -> None:
        raise AssertionError("these steps measure nothing")


@dataclass(frozen=True)
class Image:
    """Where the parts of an image lie: ``config``, ``manifest``, ``base_blob`` …, ``base_pins``, ``wheels_pins``."""

    files: dict[str, Path]
    folder: Path

    @property
    def blobs(self) -> list[Path]:
        return [self.files[f"{layer}_blob"] for layer in LAYERS]

    @property
    def layers(self) -> dict[str, Path]:
        """The blobs as a step takes them that reads an image."""
        return {f"layer-{place:02d}": blob for place, blob in enumerate(self.blobs)}


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all workers of a test session."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "image-of-this-session"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def cache(shared_folder: Path) -> Iterator[Path]:
    """Downloads are kept where WORKBENCH_CACHE says, else for this session, never in the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE", os.environ.get("WORKBENCH_CACHE") or str(shared_folder / "cache"))
        yield Path(os.environ["WORKBENCH_CACHE"])


@pytest.fixture(scope="session")
def image(shared_folder: Path, cache: Path) -> Image:
    """The image of the shipped digits: resolved, fetched and packed by the first that asks."""
    with (shared_folder / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record = shared_folder / "files.json"
        if not record.exists():
            record.write_text(json.dumps({name: str(path) for name, path in _build(shared_folder).items()}))
    return Image({name: Path(path) for name, path in json.loads(record.read_text()).items()}, shared_folder)


@pytest.fixture(scope="session")
def root(image: Image) -> Path:
    """That image, unpacked."""
    return image.files["root"]


def _build(folder: Path) -> dict[str, Path]:
    def emit(name: str) -> Emit:
        scratch = folder / name
        scratch.mkdir()
        return Emit(scratch)

    created = {"created": CREATED}
    model = asset("digits/digits.onnx")
    (folder / "signature").write_text('{"inputs":[],"opset":17,"outputs":[]}')
    wanted = [line for line in asset("image/requirements.txt").read_text().splitlines() if not line.startswith("#")]
    import onnxruntime

    wanted.append(f"onnxruntime=={onnxruntime.__version__}")
    base_pins = base.resolve({}, {"base": {"debian": "bookworm"}, "arch": "amd64"}, emit("base-pins"))
    wheels_params = {"python": "3.11", "platform": "x86_64-manylinux_2_28", "requirements": wanted}
    wheels_pins = wheels.resolve({}, wheels_params, emit("wheels-pins"))
    layers = {
        "base": base.layer({"pins": base_pins.files["pins"]}, created, emit("base")),
        "wheels": wheels.layer({"pins": wheels_pins.files["pins"]}, created, emit("wheels")),
        "server": content.server_layer({}, created, emit("server")),
        "model": content.model_layer(
            {"model": model, "signature": folder / "signature"},
            {"name": "digits", "version": "1", **created},
            emit("model"),
        ),
    }
    below = {name: layers[name].files["descriptor"] for name in bytecode.BELOW}
    below |= {f"{name}_blob": layers[name].files["blob"] for name in bytecode.BELOW}
    layers["bytecode"] = bytecode.layer(below, created, emit("bytecode"))
    inputs = {**{name: layer.files["descriptor"] for name, layer in layers.items()}, "model_file": model}
    params = {"name": "digits", "python": "3.11", "device": "cpu", "port": 8000, **created}
    image = oci.assemble(inputs, params, emit("image"))
    blobs = {f"{name}_blob": layers[name].files["blob"] for name in LAYERS}
    unpack(image.files["config"], list(blobs.values()), folder / "root")
    return {
        **image.files,
        **blobs,
        "root": folder / "root",
        "base_pins": base_pins.files["pins"],
        "wheels_pins": wheels_pins.files["pins"],
    }
