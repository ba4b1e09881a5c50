"""The image of a recipe: its layers, and whether it answers as the model does."""

from __future__ import annotations

from collections.abc import Iterator

from textual.app import ComposeResult
from textual.containers import VerticalScroll

from screens.block_view import Blocks
from screens.blocks import Block, cell
from screens.present import image, parity
from screens.stage import Stage
from screens.view import RunView


def blocks(view: RunView | None) -> Iterator[Block]:
    """What the stage shows of a run."""
    found = [] if view is None else [*image(view.state), *parity(view.state)]
    yield from found or [Block("", below=(cell("No image has been built yet. Press r to run the recipe."),))]


class ContainerizeStage(Stage):
    """The image of a recipe: its layers, and whether it answers as the model does."""

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="panel"):
            yield Blocks(id="containerize-blocks")

    def show(self, view: RunView | None) -> None:
        self.query_one(Blocks).show(blocks(view))
