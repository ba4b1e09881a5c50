"""The recipe in its file: written in, checked, compared with what is committed, committed."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding

from screens.recipe_editor import RecipeEditor
from screens.stage import Stage
from screens.views import Views

VIEWS = {"text": "Text"}


class RecipeStage(Stage):
    """The recipe's text, how it differs from what is committed, and its history."""

    BINDINGS = [
        Binding("i,enter", "edit", "Write", id="recipe.edit", tooltip="write in the recipe's text"),
        Binding("escape", "back", "Leave text", id="recipe.leave", tooltip="from the text back to the keys"),
        Binding("ctrl+s", "save", "Save", id="recipe.save", tooltip="save the recipe's text"),
        Binding("f8", "problem", "Problem", id="recipe.problem", tooltip="the next line with a problem", show=False),
        Binding("v", "view", "View", id="recipe.view", tooltip="text, changes or history"),
        Binding("t", "go('text')", "Text", id="recipe.text", tooltip="the recipe's text", show=False),
    ]

    def compose(self) -> ComposeResult:
        yield Views(VIEWS, RecipeEditor(self.project, self.recipe, id="text"), id="views")

    @property
    def editor(self) -> RecipeEditor:
        """The recipe's text."""
        return self.query_one(RecipeEditor)

    def look(self) -> None:
        self.editor.look()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Keys of what is not on the screen are left to others."""
        if action == "back":
            return self.editor.editing
        return action != "edit" or self.query_one(Views).shown == "text" and not self.editor.editing

    def action_edit(self) -> None:
        self.editor.edit()
        self.refresh_bindings()

    def action_back(self) -> None:
        self.editor.leave()
        self.refresh_bindings()

    def action_save(self) -> None:
        self.editor.save()

    def action_problem(self) -> None:
        self.query_one(Views).go("text")
        self.editor.next_problem()

    def action_view(self) -> None:
        self.query_one(Views).go_on()

    def action_go(self, view: str) -> None:
        self.query_one(Views).go(view)
