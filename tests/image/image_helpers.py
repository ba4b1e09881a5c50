"""What tests of the image share: steps' ``Emit``, the parts of an image, wheels made on the spot."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CREATED = 1_700_000_000
LAYERS = ("base", "wheels", "server", "model")


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


def wheel(folder: Path, name: str, files: dict[str, bytes], modes: dict[str, int] | None = None) -> Path:
    """A wheel of distribution ``name`` 1.0 with these files beside its metadata."""
    return _written(folder / f"{name}-1.0-py3-none-any.whl", name, files, modes or {})


def named(folder: Path, filename: str, requires: str = "") -> Path:
    """A wheel with that file name, which is also its content, and what it requires."""
    name = filename.split("-")[0]
    return _written(folder / filename, name, {f"{name}/__init__.py": filename.encode()}, {}, requires)


def _written(path: Path, name: str, files: dict[str, bytes], modes: dict[str, int], requires: str = "") -> Path:
    info = f"{name}-1.0.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"stale,,\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for inside, data in {**files, **metadata}.items():
            member = zipfile.ZipInfo(inside)
            member.external_attr = modes.get(inside, 0o100600) << 16
            archive.writestr(member, data)
    return path
