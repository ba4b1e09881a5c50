"""Where the image of a recipe was pushed, and by which digest."""

from __future__ import annotations

from collections.abc import Iterator

from textual.app import ComposeResult
from textual.containers import VerticalScroll

from screens.block_view import Blocks
from screens.blocks import Block, cell
from screens.present import pushed
from screens.stage import Stage
from screens.view import RunView


def blocks(view: RunView | None) -> Iterator[Block]:
    """What the stage shows of a run."""
    found = [] if view is None else [*pushed(view.state)]
    yield from found or [Block("", below=(cell("Nothing has been pushed yet. Press r to run the recipe."),))]


class PushStage(Stage):
    """Where the image of a recipe was pushed, and by which digest."""

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="panel"):
            yield Blocks(id="push-blocks")

    def show(self, view: RunView | None) -> None:
        self.query_one(Blocks).show(blocks(view))
