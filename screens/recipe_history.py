"""The commits that changed a recipe or its lock; below, what the one under the cursor changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.widgets import DataTable

from screens.block_view import Blocks, unsaid
from screens.blocks import Block, cell
from screens.command import Command
from screens.present_changes import REVISIONS, revision_blocks, revision_rows
from screens.table import Rows
from screens.words import mapping

LATEST = 25
"""How many commits are asked for: each takes a tenth of a second to compare where it changed the lock."""

_NONE = Block("", below=(cell("This recipe has not been committed yet. Press m to commit it."),))


class RecipeHistory(Vertical):
    """The history in git of the recipe at ``recipe`` in ``project``."""

    DEFAULT_CSS = """
    RecipeHistory {
        height: 1fr;
        #revisions { height: auto; max-height: 40%; overflow-x: hidden; }
        #revision { height: 1fr; border-top: solid $primary-muted; padding: 0 1; }
        #revision:focus { border-top: solid $primary; }
    }
    """

    def __init__(self, project: Path, recipe: str, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._project, self._recipe = project, recipe
        self._found: dict[str, Mapping[str, Any]] = {}
        self._instead: list[Block] = []

    def compose(self) -> ComposeResult:
        yield Rows(REVISIONS, id="revisions")
        with VerticalScroll(id="revision"):
            yield Blocks(id="revision-blocks")

    def look(self) -> None:
        """Asks git anew."""
        self._ask()

    @work(exclusive=True, group="history")
    async def _ask(self) -> None:
        words = ("history", self._recipe, "--limit", str(LATEST), "--json")
        answer = await Command(words, self._project).answer()
        found = answer.json() if not answer.exit_code else []
        revisions = [mapping(each) for each in found] if isinstance(found, list) else []
        self._found = {str(each.get("commit")): each for each in revisions}
        self._instead = [unsaid(answer)] if answer.exit_code else [_NONE]
        table = self.query_one(Rows)
        table.show(revision_rows(revisions))
        table.display = bool(revisions)
        more = f"the latest {LATEST}; older: workbench history {self._recipe}"
        self.query_one("#revision").border_subtitle = more if len(revisions) == LATEST else ""
        self._show()

    def _show(self) -> None:
        at = self._found.get(self.query_one(Rows).key_at_cursor)
        self.query_one("#revision-blocks", Blocks).show(revision_blocks(at) if at is not None else self._instead)
        self.query_one("#revision").scroll_home(animate=False)

    @on(DataTable.RowHighlighted)
    def _moved(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        self._show()

    @on(DataTable.RowSelected)
    def _chosen(self, event: DataTable.RowSelected) -> None:
        event.stop()
        self.query_one("#revision").focus()

    @property
    def reading(self) -> bool:
        """Whether a commit's changes are walked in."""
        return self.query_one("#revision").has_focus and self.query_one(Rows).display

    def leave(self) -> None:
        """From a commit's changes back to the commits."""
        self.query_one(Rows).focus()
