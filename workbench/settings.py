"""``workbench edit``: settings of a recipe changed by their dotted names, as a whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import document, edit, recipe
from workbench.errors import UsageError
from workbench.schema import Recipe


@dataclass(frozen=True)
class Edited:
    """A recipe's text before and after, and what changed: ``key``, ``before``, ``now`` (None: nothing there)."""

    path: Path
    before: str
    after: str
    changed: list[dict[str, Any]]

    def diff(self) -> str:
        """The change as a unified diff; empty where there is none."""
        from workbench.diff import unified

        return unified(self.path, self.before, self.after)


def edited(path: Path, settings: Sequence[str], removals: Sequence[str] = ()) -> Edited:
    """The recipe at ``path`` with ``settings`` (``key.key=value``, the value being YAML) made and ``removals`` gone.

    Nothing is written. Raises UsageError for a setting that is none, RecipeError where the result is not valid.
    """
    before = after = _text(path)
    changed = []
    pairs = [_split(setting) for setting in settings]
    for key, written in [*((key, None) for key in removals), *pairs]:
        data = document.parse(after, path).data
        where = edit.where_of(data, key)
        if written is None:
            after = edit.remove(after, where)
        else:
            after = edit.set_value(after, where, written, list(Recipe.model_fields))
        now = _at(document.parse(after, path).data, where) if written is not None else None
        changed.append({"key": key, "before": _at(data, where), "now": now})
    recipe.check(document.parse(after, path), path)
    return Edited(path, before, after, changed)


def write(found: Edited) -> None:
    """Writes the edited recipe, atomically. Raises UsageError where somebody else changed it meanwhile."""
    from workbench.store import write_atomically

    if found.after == found.before:
        return
    if _text(found.path) != found.before:
        raise UsageError(f"{found.path} was changed meanwhile.", "Run the same command again.")
    write_atomically(found.path, found.after.encode())


def _text(path: Path) -> str:
    document.read(path)  # refuses what is no text, and what is no plain YAML
    return path.read_bytes().decode()


def _split(setting: str) -> tuple[str, str]:
    key, equals, written = setting.partition("=")
    if not equals or not key:
        raise UsageError(f"{setting} is not of the form key=value.", "Write for example gate.metric_drop=0.02.")
    return key, written


def _at(data: Any, where: document.Where) -> Any:
    for part in where:
        if isinstance(data, list):
            data = data[int(part)] if int(part) < len(data) else None
        else:
            data = data.get(part) if isinstance(data, dict) else None
    return data
