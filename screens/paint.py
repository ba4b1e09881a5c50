"""Blocks as rich paints them at a terminal. Texts are never read as markup: intervals stand in square brackets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from screens.blocks import Block, Cell

STYLES: Mapping[str, str] = {"good": "green", "bad": "bold red", "warn": "yellow", "dim": "dim", "strong": "bold"}
"""The style of each tone. Each tone also stands in words: colour alone says nothing here."""


def text(cell: Cell) -> Text:
    """A cell, what stands below its first line dimmed."""
    first, newline, rest = cell.text.partition("\n")
    painted = Text(first, style=STYLES.get(cell.tone, ""), overflow="fold")
    if newline:
        painted.append(f"\n{rest}", style="dim")
    return painted


def table(block: Block) -> Table:
    """The rows of a block, columns wrapped rather than cut."""
    found = Table(box=None, show_header=bool(block.columns), header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for index in range(max(len(block.columns), *(len(row) for row in block.rows), 1)):
        head = block.columns[index] if index < len(block.columns) else ""
        justify = "right" if index in block.right else "left"
        found.add_column(head, overflow="fold", justify=justify)  # type: ignore[arg-type]
    for row in block.rows:
        found.add_row(*(text(cell) for cell in row))
    return found


def paint(blocks: Iterable[Block], console: Console) -> None:
    """Prints ``blocks``, an empty line between two."""
    for index, block in enumerate(blocks):
        if index:
            console.print()
        indent = 2 if block.title else 0
        if block.title:
            console.print(Text(block.title, style="bold", overflow="fold"))
        if block.rows:
            console.print(Padding(table(block), (0, 0, 0, indent)))
        for sentence in block.below:
            console.print(Padding(text(sentence), (0, 0, 0, indent)))
