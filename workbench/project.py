"""The project that a file belongs to."""

from __future__ import annotations

from pathlib import Path


def project_of(path: Path) -> Path:
    """The project a file belongs to: the nearest parent with ``.git`` or ``.workbench``, else the file's own folder.

    A folder ``recipes`` without either is a project's folder of recipes: the project is the one it lies in.
    """
    folder = path.resolve().parent
    for parent in (folder, *folder.parents):
        if (parent / ".git").exists() or (parent / ".workbench").is_dir():
            return parent
    return folder.parent if folder.name == "recipes" else folder
