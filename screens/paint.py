"""Blocks as rich paints them at a terminal. Texts are never read as markup: intervals stand in square brackets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from screens.blocks import Block, Cell

STYLES: Mapping[str, str] = {"good": "green", "bad": "bold red", "warn": "yellow", "dim": "dim", "strong": "bold"}
"""The style of each tone. Each tone also stands in words: colour alone says nothing here."""

_WORD = re.compile(r"\[[^\]]*\]|\S+")


def text(cell: Cell) -> Text:
    """A cell, what stands below its first line dimmed."""
    first, newline, rest = cell.text.partition("\n")
    painted = Text(first, style=STYLES.get(cell.tone, ""), overflow="fold")
    if newline:
        painted.append(f"\n{rest}", style="dim")
    return painted


def table(block: Block, width: int) -> Table:
    """The rows of a block in ``width`` letters, columns wrapped rather than cut."""
    grid = [list(block.columns), *([cell.text for cell in row] for row in block.rows)]
    found = Table(box=None, show_header=bool(block.columns), header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for index, room in enumerate(widths(grid, width, gap=2)):
        head = block.columns[index] if index < len(block.columns) else ""
        justify: Literal["left", "right"] = "right" if index in block.right else "left"
        found.add_column(head, overflow="fold", justify=justify, width=room)
    for row in block.rows:
        found.add_row(*(text(cell) for cell in row))
    return found


def widths(grid: Sequence[Sequence[str]], width: int, gap: int) -> list[int]:
    """The columns' widths so that a grid fits ``width``: the widest give way first, down to their longest word.

    An interval counts as a word. Rich's own way shares out without regard to words, and a least width makes it cut.
    """
    columns = range(max(map(len, grid), default=0))
    cells = [[line[column] for line in grid if column < len(line)] for column in columns]
    found = [max((cell_len(line) for cell in each for line in cell.split("\n")), default=0) for each in cells]
    least = [max((cell_len(word) for cell in each for word in _WORD.findall(cell)), default=0) for each in cells]
    while sum(found) + gap * (len(found) - 1) > width and max(found, default=0) > 1:
        may_give = [column for column in columns if found[column] > least[column]] or columns
        found[max(may_give, key=found.__getitem__)] -= 1
    return [max(each, 1) for each in found]


def paint(blocks: Iterable[Block], console: Console) -> None:
    """Prints ``blocks``, an empty line between two."""
    for index, block in enumerate(blocks):
        if index:
            console.print()
        indent = 2 if block.title else 0
        if block.title:
            console.print(Text(block.title, style="bold", overflow="fold"))
        if block.rows or block.columns:
            console.print(Padding(table(block, console.width - indent), (0, 0, 0, indent)))
        for sentence in block.below:
            console.print(Padding(text(sentence), (0, 0, 0, indent)))
