"""A part of a stage that shows blocks: tables and sentences of a run's report."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text
from textual.widgets import Static

from screens.blocks import Block, cell, plain
from screens.command import Answer
from screens.paint import table, text


def painted(blocks: Iterable[Block], width: int) -> RenderableType:
    """Blocks as one renderable in ``width`` letters."""
    parts: list[RenderableType] = []
    for block in blocks:
        if parts:
            parts.append(Text(""))
        indent = 2 if block.title else 0
        if block.title:
            parts.append(Text(block.title, style="bold", overflow="fold"))
        if block.rows or block.columns:
            parts.append(Padding(table(block, max(width - indent, 10)), (0, 0, 0, indent)))
        parts += [Padding(text(sentence), (0, 0, 0, indent)) for sentence in block.below]
    return Group(*parts)


def unsaid(answer: Answer) -> Block:
    """Why a command has no answer, in its own words."""
    told = (answer.stderr.strip() or answer.stdout.strip() or f"It ended with {answer.exit_code}.").splitlines()
    return Block("", below=tuple(cell(line, "warn" if at == 0 else "") for at, line in enumerate(told[-8:])))


class Blocks(Static):
    """Shows blocks, laid out anew where its width changes."""

    def __init__(self, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id, markup=False)
        self._blocks: tuple[Block, ...] = ()
        self._width = 0

    def show(self, blocks: Iterable[Block]) -> None:
        """Shows ``blocks``; paints only what is another than before."""
        found = tuple(blocks)
        if found != self._blocks:
            self._blocks = found
            self._paint()

    @property
    def text(self) -> str:
        """What it shows, as plain lines."""
        return "\n".join(plain(self._blocks))

    def on_resize(self) -> None:
        if self.content_size.width != self._width:
            self._paint()

    def _paint(self) -> None:
        self._width = self.content_size.width
        self.update(painted(self._blocks, max(self._width, 20)))
