"""The files of a project that a form offers: models and data, by name and size."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

MOST = 2000
"""So many files are offered."""
_MOST_LOOKED_AT = 200_000
_LEFT_OUT = frozenset({"node_modules", "site-packages", "__pycache__"})


def files_of(project: Path, suffixes: Sequence[str]) -> dict[str, int]:
    """The files below ``project`` with one of the suffixes: their sizes by their paths in it, sorted.

    Hidden folders and those of packages are left out, and names that are not plain text. Links to folders are not
    followed.
    """
    found: dict[str, int] = {}
    for looked_at, path in enumerate(_walk(project)):
        if len(found) >= MOST or looked_at >= _MOST_LOOKED_AT:
            break
        if path.suffix in suffixes and str(path).isprintable():
            try:
                found[path.relative_to(project).as_posix()] = path.stat().st_size
            except OSError:
                continue  # gone meanwhile, or a link to nothing
    return dict(sorted(found.items()))


def _walk(project: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(project):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _LEFT_OUT]
        yield from (Path(folder, name) for name in files)


def matching(files: Mapping[str, int], text: str) -> list[str]:
    """The paths that have every word of ``text`` in them, in any case."""
    words = text.lower().split()
    return [path for path in files if all(word in path.lower() for word in words)]
