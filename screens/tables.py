"""Tables of the commands that list things."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from json import dumps
from typing import Any

from screens.blocks import Block, cell
from screens.output import say, show
from screens.words import ABSENT, number


def print_table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, json: bool) -> None:
    """Prints ``rows`` to stdout: ``columns`` of them for people, whole and as a JSON list of objects with ``json``.

    In a pipe each row is one line, however long: what is filtered by line stays whole.
    """
    import sys

    rows = [dict(row) for row in rows]
    if json:
        say(dumps(rows, indent=2, ensure_ascii=False, default=str), sys.stdout)
        return
    cells = tuple(tuple(cell(_word(row.get(column))) for column in columns) for row in rows)
    numeric = frozenset(index for index, column in enumerate(columns) if _all_numbers(column, rows))
    heads = tuple(column.replace("_", " ") for column in columns)
    show([Block("", heads, cells, right=numeric)])


def _all_numbers(column: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    found = [row.get(column) for row in rows if row.get(column) is not None]
    return bool(found) and all(number(value) is not None for value in found)


def _word(value: object) -> str:
    if value is None or value == "":
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping | list | tuple):
        return dumps(value, ensure_ascii=False, default=str)
    return str(value)
