"""The recipe in its file: written in, checked, compared with what is committed, committed."""

from __future__ import annotations

from pathlib import Path

from textual.app import ComposeResult
from textual.binding import Binding
from textual.widgets import Input

from screens.command_bar import CommandBar
from screens.dialog import Carried, Dialog, Field
from screens.recipe_changes import RecipeChanges
from screens.recipe_editor import RecipeEditor
from screens.recipe_history import RecipeHistory
from screens.stage import Stage
from screens.unsaved import when_saved
from screens.views import Views
from screens.words import safe

VIEWS = {"text": "Text", "difference-view": "Changes", "history": "History"}


class CommitForm(Dialog):
    """Commits recipe and lock."""

    ASKS = "Commit recipe and lock"
    DOES = "Commit"

    def __init__(self, project: Path, recipe: str) -> None:
        super().__init__(project)
        self._recipe = recipe

    def fields(self) -> ComposeResult:
        yield Field("message", Input(placeholder="nothing: what changed", id="message", compact=True))

    def words(self) -> tuple[str, ...]:
        message = self.query_one("#message", Input).value.strip()
        return "commit", self._recipe, *(("-m", message) if message else ())


class RecipeStage(Stage):
    """The recipe's text, how it differs from what is committed, and its history."""

    BINDINGS = [
        Binding("i,enter", "edit", "Write", id="recipe.edit", tooltip="write in the recipe's text"),
        Binding("escape", "back", "Leave", id="recipe.leave", tooltip="from the text, or a commit, back to the keys"),
        Binding("ctrl+s", "save", "Save", id="recipe.save", tooltip="save the recipe's text"),
        Binding("m", "commit", "Commit", id="recipe.commit", tooltip="commit recipe and lock, and nothing else"),
        Binding("v", "view", "View", id="recipe.view", tooltip="text, changes or history"),
        Binding("t", "go('text')", "Text", id="recipe.text", tooltip="the recipe's text", show=False),
        Binding(
            "d",
            "go('difference-view')",
            "Changes",
            id="recipe.changes",
            tooltip="what is different from the last commit",
            show=False,
        ),
        Binding(
            "h", "go('history')", "History", id="recipe.history", tooltip="the commits that changed it", show=False
        ),
        Binding("f8", "problem", "Problem", id="recipe.problem", tooltip="the next line with a problem", show=False),
    ]

    def compose(self) -> ComposeResult:
        yield Views(
            VIEWS,
            RecipeEditor(self.project, self.recipe, id="text"),
            RecipeChanges(self.project, self.recipe, id="difference-view"),
            RecipeHistory(self.project, self.recipe, id="history"),
            id="views",
        )

    @property
    def editor(self) -> RecipeEditor:
        """The recipe's text."""
        return self.query_one(RecipeEditor)

    @property
    def unsaved(self) -> bool:
        return self.editor.unsaved

    def save(self) -> bool:
        return self.editor.save()

    def discard(self) -> None:
        self.editor.discard()

    def look(self) -> None:
        self.editor.look()
        self.on_views_switched()

    def on_views_switched(self) -> None:
        """Asks for what the view on the screen shows: git and a lock's YAML take their time."""
        shown = self.query_one(Views).shown
        if shown == "difference-view":
            self.query_one(RecipeChanges).look(unsaved=self.editor.unsaved)
        if shown == "history":
            self.query_one(RecipeHistory).look()
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Keys of what is not on the screen are left to others."""
        if action == "back":
            return self.editor.editing or self.query_one(RecipeHistory).reading
        if action == "edit":
            return self.query_one(Views).shown == "text" and not self.editor.editing
        return True

    def action_edit(self) -> None:
        self.editor.edit()
        self.refresh_bindings()

    def action_back(self) -> None:
        if self.editor.editing:
            self.editor.leave()
        else:
            self.query_one(RecipeHistory).leave()
        self.refresh_bindings()

    def action_save(self) -> None:
        self.save()

    def action_problem(self) -> None:
        self.query_one(Views).go("text")
        self.editor.next_problem()

    def action_view(self) -> None:
        self.query_one(Views).go_on()

    def action_go(self, view: str) -> None:
        self.query_one(Views).go(view)

    def action_commit(self) -> None:
        form = CommitForm(self.project, self.recipe)
        when_saved(self.screen, lambda: self.app.push_screen(form, self._committed), "Commit as saved before")

    def _committed(self, carried: Carried | None) -> None:
        """Says what was committed, and looks at what is different now."""
        if carried is not None:
            self.screen.query_one(CommandBar).show(carried.command, carried.answer)
            said = carried.answer.stdout.strip()
            told = f"Commit {safe(said[:12])}" if said else safe(carried.answer.stderr.strip())
            self.notify(told, title="Recipe and lock", markup=False)
            self.look()
