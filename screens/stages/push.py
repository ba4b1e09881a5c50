"""Where the image of a recipe goes: each blob on its way, and then its digest, what is attached and how one gets it."""

from __future__ import annotations

from pathlib import Path

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll

from screens.block_view import Blocks
from screens.blocks import Block, cell
from screens.present_push import PARTS, part_rows, push_blocks, push_step
from screens.stage import Stage
from screens.table import Rows
from screens.view import RunView

_NONE = Block("", below=(cell("Nothing has been pushed yet. Press r to run the recipe."),))


class PushStage(Stage):
    """The push of a run; ``y`` copies the reference by digest."""

    DEFAULT_CSS = """
    PushStage {
        #parts-panel { height: auto; max-height: 50%; }
        Rows { height: auto; max-height: 100%; }
        #pushed-panel { height: 1fr; }
    }
    """

    def __init__(self, project: Path, recipe: str, *, id: str) -> None:  # noqa: A002
        super().__init__(project, recipe, id=id)
        self._view: RunView | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="panel", id="parts-panel") as parts:
            parts.border_title = "Blobs"
            yield Rows(PARTS, id="parts")
        with VerticalScroll(classes="panel", id="pushed-panel") as pushed:
            pushed.border_title = "Pushed"
            yield Blocks(id="push-blocks")

    def show(self, view: RunView | None) -> None:
        self._view = view
        rows = part_rows(view.state) if view is not None and push_step(view.state) is not None else {}
        self.query_one("#parts", Rows).show(rows)
        self.query_one("#parts-panel").display = bool(rows)
        self.query_one(Blocks).show(push_blocks(view.state) if view is not None else [_NONE])
        panel = self.query_one("#pushed-panel")
        panel.border_subtitle = "y copies the reference by digest" if self.copyable() else ""

    def copyable(self) -> str:
        """The reference by digest: it names these bytes and no others."""
        step = push_step(self._view.state) if self._view is not None else None
        return str(step.values.get("by_digest", "")) if step is not None else ""
