"""What changed in a recipe and its figures between a revision and now."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench import document, history
from workbench.recipe import load as load_recipe


def changes(path: Path, revision: str) -> list[dict[str, Any]]:
    """A row for each difference: ``where`` (recipe or lock), ``what``, ``before``, ``now``. Raises UsageError."""
    file = load_recipe(path)
    rows: list[dict[str, Any]] = []
    for where, now in (("recipe", file.path), ("lock", file.lock_path)):
        before = history.text_at(now, revision)
        rows += compared(where, now, before, document.read_text(now) if now.exists() else None)
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


def _leaves(node: Any, where: str = "") -> dict[str, Any]:
    """Every leaf by the way to it. A list of named things (packages, wheels) goes by name, a figure by its value."""
    if isinstance(node, dict) and {"value", "unit"} <= node.keys():
        return {where: _figure(node)}
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


def _figure(node: Mapping[str, Any]) -> str:
    value = f"{node['value']:.6g} {node['unit']}".strip()
    return value if not node.get("interval") else f"{value} [{', '.join(f'{end:.6g}' for end in node['interval'])}]"
