"""What changed in a recipe and its figures between a revision and now."""

from __future__ import annotations

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
        old = _leaves(document.parse(before, now).data) if before is not None else {}
        new = _leaves(document.read(now).data) if now.exists() else {}
        rows.extend({"where": where, **row} for row in _compare(old, new))
    return rows


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
        return {where: f"{node['value']:.6g} {node['unit']}".strip()}
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
