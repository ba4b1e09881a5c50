"""What a face shows, before anything paints it: tables and lists of facts, as text with a tone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from screens.words import safe

Tone = Literal["", "good", "bad", "warn", "dim", "strong"]


@dataclass(frozen=True)
class Cell:
    """A text; a newline parts what stands below the other at a terminal and beside it in a pipe."""

    text: str
    tone: Tone = ""

    @property
    def line(self) -> str:
        """The text in one line."""
        return " ".join(self.text.split())


@dataclass(frozen=True)
class Block:
    """A table under a title, with sentences below. ``columns`` may be empty: then it has no head."""

    title: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    below: tuple[Cell, ...] = ()
    right: frozenset[int] = field(default=frozenset())
    """The columns that are aligned to the right."""


def cell(value: object, tone: Tone = "") -> Cell:
    """A cell with ``value`` made safe for a terminal."""
    return value if isinstance(value, Cell) else Cell(safe(value), tone)


def row(*values: object) -> tuple[Cell, ...]:
    """Cells of ``values``."""
    return tuple(cell(value) for value in values)


def plain(blocks: Iterable[Block]) -> Iterator[str]:
    """The lines of ``blocks`` for pipes and files: aligned, each row in one line however long, nothing cut."""
    for index, block in enumerate(blocks):
        if index:
            yield ""
        if block.title:
            yield block.title
        indent = "  " if block.title else ""
        grid = [[each.line for each in line] for line in block.rows]
        for line in aligned([list(block.columns), *grid] if block.columns else grid, block.right):
            yield f"{indent}{line}"
        for sentence in block.below:
            yield f"{indent}{sentence.line}"


def aligned(grid: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> Iterator[str]:
    """The lines of a grid with its columns aligned, two spaces apart, no space at the end."""
    widths = [max(len(line[column]) for line in grid if column < len(line)) for column in range(_width(grid))]
    for line in grid:
        cells = [
            text.rjust(widths[column]) if column in right else text.ljust(widths[column])
            for column, text in enumerate(line)
        ]
        yield "  ".join(cells).rstrip()


def _width(grid: Sequence[Sequence[str]]) -> int:
    return max((len(line) for line in grid), default=0)
