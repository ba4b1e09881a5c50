"""What changed in a recipe and its figures between a revision and now."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from workbench import document, history
from workbench.recipe import lock_path_of


def changes(path: Path, revision: str) -> list[dict[str, Any]]:
    """A row for each difference: ``where`` (recipe or lock), ``what``, ``before``, ``now``.

    The recipe need not be valid. Raises UsageError for no such revision or recipe, RecipeError for no YAML.
    """
    recipe = path.resolve()
    rows = list(compared("recipe", recipe, history.text_at(recipe, revision), document.read_text(path)))
    lock = lock_path_of(recipe)
    rows += compared("lock", lock, history.text_at(lock, revision), document.read_text(lock) if lock.exists() else None)
    return rows


def compared(where: str, path: Path, before: str | None, now: str | None) -> Iterator[dict[str, Any]]:
    """The rows of one file between two contents of it, None where there was none. Raises RecipeError for no YAML."""
    old, new = ({} if text is None else _leaves(_parsed(text, path)) for text in (before, now))
    return ({"where": where, **row} for row in _compare(old, new))


def text_diff(path: Path, revision: str) -> str:
    """The text of the recipe at ``path`` against a revision of it, as a unified diff; "" where it is the same.

    Raises UsageError where there is no such revision or file.
    """
    before, now = history.text_at(path, revision) or "", document.read_text(path)
    return unified(path, before, now)


def unified(path: Path, before: str, after: str) -> str:
    """Two texts of a file as a unified diff; empty where they are the same."""
    lines = (before.splitlines(keepends=True), after.splitlines(keepends=True))
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        for line in difflib.unified_diff(*lines, f"a/{path}", f"b/{path}")
    )


def _parsed(text: str, path: Path) -> dict[str, Any]:
    return document.parse_bytes(text.encode(errors="surrogateescape"), path).data


def _compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for what in {**old, **new}:
        if old.get(what) != new.get(what):
            yield {"what": what, "before": _shown(old.get(what)), "now": _shown(new.get(what))}


def _shown(value: Any) -> str:
    if value is None:
        return "—"
    return value[:19] if isinstance(value, str) and value.startswith("sha256:") else str(value)


class _Figure(NamedTuple):
    value: float
    unit: str
    interval: tuple[float, ...]

    def __str__(self) -> str:
        """The value with six digits over its interval, in a unit that suits it: ``56.118 µs [55.9, 56.3]``."""
        if self.unit == "B":
            return f"{self.value:,.0f} B"
        unit, scale = self.unit, 1.0
        if unit == "ns":
            unit, scale = next((each for each in _TIMES if abs(self.value) >= each[1]), (unit, 1.0))
        shown = f"{self.value / scale:.6g} {unit}".strip()
        return f"{shown} [{', '.join(f'{end / scale:.6g}' for end in self.interval)}]" if self.interval else shown


_TIMES = (("s", 1e9), ("ms", 1e6), ("µs", 1e3))


def _figure(node: Mapping[str, Any]) -> _Figure | None:
    """The figure that a mapping of a lock is; None where it is none. A committed lock may hold anything."""
    ends = node.get("interval")
    numbers = [node.get("value"), *(ends if isinstance(ends, list) else ())]
    if not isinstance(node.get("unit"), str) or not all(isinstance(each, int | float) for each in numbers):
        return None
    value, *interval = map(float, numbers)
    return _Figure(value, node["unit"], tuple(interval))


def _leaves(node: Any, where: str = "") -> dict[str, Any]:
    """Every leaf by the way to it. A list of named things (packages, wheels) goes by name, a figure by its value."""
    if isinstance(node, dict) and (figure := _figure(node)) is not None:
        return {where: figure}
    if isinstance(node, dict):
        items = node.items()
    elif isinstance(node, list) and node and all(isinstance(item, dict) and "name" in item for item in node):
        return {f"{where}.{item['name']}": item.get("version", item) for item in node}
    elif isinstance(node, list):
        items = {str(index): item for index, item in enumerate(node)}.items()
    else:
        return {where: node}
    found: dict[str, Any] = {}
    for key, value in items:
        found |= _leaves(value, f"{where}.{key}" if where else str(key))
    return found
