"""Where the things that are not code lie: in a checkout beside the package, in a wheel inside it."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _folder(name: str) -> Path:
    inside = _PACKAGE / f"_{name}"
    return inside if inside.is_dir() else _PACKAGE.parent / name


def asset(path: str) -> Path:
    """The asset at ``path`` (``digits/digits.onnx``), a file or a folder."""
    return _folder("assets") / path


def shipped_recipe(name: str) -> Path:
    """The recipe ``name`` (``digits``) that comes with workbench."""
    return _folder("recipes") / f"{name}.yaml"


def package_folder(package: str) -> Path:
    """The folder of one of workbench's packages, or the file of one of its modules (``workbench.server``)."""
    path = _PACKAGE.parent.joinpath(*package.split("."))
    return path if path.is_dir() else path.with_suffix(".py")
