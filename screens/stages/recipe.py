"""The recipe as it stands in its file."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from screens.stage import Stage
from screens.words import safe


class RecipeStage(Stage):
    """The recipe as it stands in its file."""

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="panel"):
            yield Static(id="text", markup=False)

    def look(self) -> None:
        try:
            text = (self.project / self.recipe).read_text()
        except (OSError, ValueError) as error:
            text = f"{self.recipe} cannot be read: {error}"
        self.query_one("#text", Static).update(safe(text))
