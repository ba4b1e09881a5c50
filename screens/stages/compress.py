"""The variants of a recipe: how large, how good, how fast, and which was chosen."""

from __future__ import annotations

from collections.abc import Iterator

from textual.app import ComposeResult
from textual.containers import VerticalScroll

from screens.block_view import Blocks
from screens.blocks import Block, cell
from screens.present import choice, gate_table, latency_table, variant_table
from screens.stage import Stage
from screens.variants import variants
from screens.view import RunView


def blocks(view: RunView | None) -> Iterator[Block]:
    """What the stage shows of a run."""
    found = variants(view.state) if view else []
    if view is None or not found:
        yield Block("", below=(cell("No variant has been made yet. Press r to run the recipe."),))
        return
    yield from variant_table(found)
    yield from latency_table(found)
    yield from gate_table(found)
    yield from choice(view.state)


class CompressStage(Stage):
    """The variants of a recipe: how large, how good, how fast, and which was chosen."""

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="panel"):
            yield Blocks(id="compress-blocks")

    def show(self, view: RunView | None) -> None:
        self.query_one(Blocks).show(blocks(view))
