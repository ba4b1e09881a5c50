"""What changed in a recipe and its figures, as ``workbench diff`` and ``workbench history`` tell it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from screens.blocks import Block, Cell, cell, row
from screens.words import ABSENT, items

REVISIONS = ("commit", "date", "changed", "figures", "subject")

_FIGURE = re.compile(r"figures\.(?P<machine>.*?)\.values\.(?P<name>.+)", re.DOTALL)
_COLUMNS = ("", "before", "now")


def change_blocks(rows: Iterable[Mapping[str, Any]]) -> Iterator[Block]:
    """Changes of the recipe, then of figures by the machine they are from, then of what was made."""
    recipe, made = [], []
    figures: dict[str, list[tuple[Cell, ...]]] = {}
    for each in rows:
        what, before, now = (str(each.get(name, ABSENT)) for name in ("what", "before", "now"))
        if each.get("where") == "recipe":
            recipe.append(row(what, before, now))
        elif (match := _FIGURE.fullmatch(what)) is not None:
            figures.setdefault(match["machine"], []).append(row(match["name"], before, now))
        elif not what.startswith("recipe."):  # digests of the recipe's parts: they say what the recipe's rows say
            made.append(row(what.removeprefix("artifacts."), before, now))
    if recipe:
        yield Block("Recipe", _COLUMNS, tuple(recipe))
    for machine, found in figures.items():
        yield Block(f"Figures on {cell(machine).text}", _COLUMNS, tuple(found))
    if made:
        yield Block("Artifacts", _COLUMNS, tuple(made))


def revision_rows(revisions: Iterable[Mapping[str, Any]]) -> dict[str, tuple[Cell, ...]]:
    """The commits by id: when, what of recipe and lock it changed, how many figures, and its subject."""
    return {str(each.get("commit")): _revision_row(each) for each in revisions}


def _revision_row(revision: Mapping[str, Any]) -> tuple[Cell, ...]:
    figures = sum(_FIGURE.fullmatch(str(each.get("what"))) is not None for each in items(revision, "changes"))
    return row(
        str(revision.get("commit"))[:12],
        str(revision.get("date"))[:16].replace("T", " "),
        " ".join(name for name in ("recipe", "lock") if revision.get(name)),
        figures or ABSENT,
        revision.get("subject", ""),
    )


def revision_blocks(revision: Mapping[str, Any]) -> Iterator[Block]:
    """What a commit changed."""
    yield Block("", below=(cell(revision.get("subject", ""), "strong"),))
    if revision.get("problem"):
        yield Block("", below=(cell(revision["problem"], "warn"),))
    changes = items(revision, "changes")
    yield from change_blocks(changes)
    if not changes and not revision.get("problem"):
        yield Block("", below=(cell("No value changed: comments, or how it is written."),))
