"""The benchmarks of a recipe: latency and throughput of the model and of its image."""

from __future__ import annotations

from collections.abc import Iterator

from textual.app import ComposeResult
from textual.containers import VerticalScroll

from screens.block_view import Blocks
from screens.blocks import Block, cell
from screens.present_benchmark import benchmarks
from screens.stage import Stage
from screens.view import RunView


def blocks(view: RunView | None) -> Iterator[Block]:
    """What the stage shows of a run."""
    found = [] if view is None else [*benchmarks(view.state)]
    yield from found or [Block("", below=(cell("Nothing has been benchmarked yet. Press r to run the recipe."),))]


class BenchmarkStage(Stage):
    """The benchmarks of a recipe: latency and throughput of the model and of its image."""

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="panel"):
            yield Blocks(id="benchmark-blocks")

    def show(self, view: RunView | None) -> None:
        self.query_one(Blocks).show(blocks(view))
