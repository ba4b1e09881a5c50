"""``workbench commit``: recipe and lock as they are, and nothing else of the user's."""

from __future__ import annotations

import shutil
from pathlib import Path

from workbench import diff, history, recipe
from workbench.errors import MachineLacks, UsageError

_LISTED = 40


def commit_recipe(path: Path, message: str = "") -> str:
    """Commits the recipe at ``path`` and its lock; the commit's id, "" where neither changed.

    Without a ``message`` it says what changed. Raises RecipeError where the recipe is not valid, UsageError where this
    is no repository or not a moment to commit in, MachineLacks without git.
    """
    file = recipe.load(path)
    if shutil.which("git") is None:
        raise MachineLacks("git is not installed.", "apt-get install git")
    paths = [each for each in (file.path, file.lock_path) if each.exists()]
    said = message.strip() or _message(file)
    try:
        return history.commit(file.project, paths, said, asked=True)
    except history.NotCommitted as reason:
        raise UsageError(f"{path} is not committed: {reason}") from None


def _message(file: recipe.RecipeFile) -> str:
    name = file.recipe.name
    if not history.is_known(file.path):
        return f"{name}: first recipe"
    rows = [f"{row['what']} {row['before']} → {row['now']}" for row in diff.changes(file.path, "HEAD")]
    if len(rows) == 1:
        return f"{name}: {rows[0]}"
    listed = "\n".join(f"- {row}" for row in rows[:_LISTED])
    return f"{name}: {len(rows)} changes\n\n{listed}"
