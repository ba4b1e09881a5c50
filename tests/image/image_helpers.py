"""What tests of the image share: steps' ``Emit``, the parts of an image, wheels made on the spot."""

from __future__ import annotations

import zipfile
from pathlib import Path

from digits_image import CREATED, LAYERS, Emit, Image

__all__ = ["CREATED", "LAYERS", "Emit", "Image", "named", "wheel"]


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
