"""``workbench history``: the commits that changed a recipe or its lock, and what each changed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench import diff, history
from workbench.errors import RecipeError, UsageError
from workbench.recipe import lock_path_of

_FIGURE = re.compile(r"figures\..*\.values\.")


def revisions(path: Path, limit: int) -> Iterator[dict[str, Any]]:
    """The latest ``limit`` commits that changed the recipe at ``path`` or its lock, newest first; renames end it.

    Each has ``commit``, ``date`` (ISO 8601), ``subject``, ``recipe`` and ``lock`` (whether it changed them),
    ``changes`` (rows as of :func:`workbench.diff.changes`, against the commit before) and ``problem``: why there are
    no changes of a file to tell, "" otherwise. Raises UsageError outside git, and where there is no such file.
    """
    files = {"recipe": path.resolve(), "lock": lock_path_of(path.resolve())}
    found = history.commits_of(list(files.values()), limit)
    if not path.exists() and not found:
        raise UsageError(f"There is no file {path}, nor was there one.", "Name a recipe, such as recipes/digits.yaml.")
    return (_revision(each, files) for each in found)


def _revision(commit: history.Commit, files: dict[str, Path]) -> dict[str, Any]:
    changes: list[dict[str, Any]] = []
    problem = ""
    for where, file in files.items():
        if file in commit.changed:
            try:
                changes += diff.compared(where, file, *commit.changed[file])
            except RecipeError:
                problem = f"The {where} is no plain YAML in this commit or the one before; what changed is not known."
    return {
        "commit": commit.id,
        "date": commit.when.isoformat(),
        "subject": commit.subject,
        **{where: file in commit.changed for where, file in files.items()},
        "changes": changes,
        "problem": problem,
    }


def as_line(revision: Mapping[str, Any]) -> dict[str, Any]:
    """A revision in a line: which files it changed, and how many figures."""
    figures = sum(_FIGURE.match(each["what"]) is not None for each in revision["changes"])
    return {
        "commit": revision["commit"][:12],
        "date": revision["date"][:16].replace("T", " "),
        "changed": ", ".join(name for name in ("recipe", "lock") if revision[name]),
        "figures": figures or None,
        "subject": revision["subject"],
    }
