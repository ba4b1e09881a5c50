"""How a recipe differs from what is committed: its text, and the values and figures of recipe and lock."""

from __future__ import annotations

from pathlib import Path

from textual import work
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

from screens.block_view import Blocks, unsaid
from screens.code import diff_spans
from screens.code_area import CodeArea
from screens.command import Answer, Command
from screens.present_changes import change_blocks
from screens.words import safe


class RecipeChanges(Vertical):
    """The saved recipe at ``recipe`` in ``project`` against the last commit."""

    DEFAULT_CSS = """
    RecipeChanges {
        height: 1fr;
        #difference-said { height: auto; padding: 0 1; color: $text-muted; }
        #difference { height: auto; max-height: 60%; }
        #changes { height: 1fr; border-top: solid $primary-muted; padding: 0 1; }
    }
    """

    def __init__(self, project: Path, recipe: str, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._project, self._recipe = project, recipe

    def compose(self) -> ComposeResult:
        yield Static(id="difference-said", markup=False)
        yield CodeArea(diff_spans, id="difference", line_numbers=False)
        with VerticalScroll(id="changes"):
            yield Blocks(id="changes-blocks")

    def look(self, *, unsaved: bool) -> None:
        """Compares anew; where the text on the screen is ``unsaved``, that it is not in the comparison is said."""
        self._compare(unsaved)

    @work(exclusive=True, group="difference")
    async def _compare(self, unsaved: bool) -> None:
        text = await Command(("diff", self._recipe, "--text"), self._project).answer()
        self._show_text(text, unsaved)
        rows = await Command(("diff", self._recipe, "--json"), self._project).answer()
        found = rows.json() if not rows.exit_code else None
        blocks = change_blocks(found) if isinstance(found, list) else [unsaid(rows)]
        self.query_one("#changes-blocks", Blocks).show(blocks)
        self.query_one("#changes").display = bool(found) or found is None

    def _show_text(self, answer: Answer, unsaved: bool) -> None:
        area, said = self.query_one(CodeArea), self.query_one("#difference-said", Static)
        lines = [] if answer.exit_code else answer.stdout.splitlines()
        area.show("\n".join(map(safe, lines)))
        area.display = bool(lines)
        sentences = [] if lines or answer.exit_code else ["The recipe's text is as it is committed."]
        if unsaved:
            sentences.append("What is not saved yet is not compared.")
        said.update(" ".join(sentences))
        said.display = bool(sentences)
