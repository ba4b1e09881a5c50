"""One recipe from model to push: its stages, and the run that they show."""

from __future__ import annotations

from pathlib import Path

from textual.app import ComposeResult
from textual.binding import Binding
from textual.message import Message
from textual.screen import Screen
from textual.widgets import ContentSwitcher, Label

from screens import progress
from screens.command_bar import CommandBar
from screens.key_bar import KeyBar
from screens.stage import STAGES, Say, Stage
from screens.stage_bar import StageBar
from screens.unsaved import before_leaving, when_saved
from screens.view import ProjectView, RunView
from screens.words import safe
from workbench.runs import command_line

_RUN = Binding.Group("Run")


class Followed(Message):
    """The run that is to be shown from now on."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder


class WorkspaceScreen(Screen[None]):
    """The recipe at ``recipe`` (relative to ``project``) and its newest run, or the one in ``folder``."""

    BINDINGS = [
        *(
            Binding(str(number), f"stage('{kind.id}')", kind.title, id=f"stage.{kind.id}", show=False)
            for number, kind in enumerate(STAGES, 1)
        ),
        Binding("escape", "leave", "Back", id="workspace.back", tooltip="back to the recipes"),
        Binding("r", "run_recipe", "Run", id="workspace.run", tooltip="carry out the recipe", group=_RUN),
        Binding(
            "p", "replay", "Replay", id="workspace.replay", tooltip="make the artifacts again and compare", group=_RUN
        ),
        Binding(
            "c",
            "cancel_run",
            "Cancel",
            id="workspace.cancel",
            tooltip="stop the run; finished steps are kept",
            group=_RUN,
        ),
        Binding("left_square_bracket", "run(1)", "Older", id="workspace.older", tooltip="the run before", show=False),
        Binding("right_square_bracket", "run(-1)", "Newer", id="workspace.newer", tooltip="the run after", show=False),
    ]
    DEFAULT_CSS = """
    WorkspaceScreen {
        #title { padding: 0 1; text-style: bold; width: 1fr; }
        #stages { height: 1fr; }
    }
    """

    def __init__(self, project: Path, recipe: str, *, stage: str = "compress", folder: Path | None = None) -> None:
        super().__init__()
        self.project = project
        self.recipe = recipe
        self.folder = folder
        self.view: RunView | None = None
        self._first = stage
        self._runs: tuple[Path, ...] = ()

    def compose(self) -> ComposeResult:
        yield Label(safe(self.recipe), id="title", markup=False)
        yield StageBar()
        yield ContentSwitcher(id="stages")
        yield CommandBar()
        yield KeyBar()

    async def on_mount(self) -> None:
        await self.action_stage(self._first)

    @property
    def stage(self) -> Stage | None:
        """The stage on the screen."""
        shown = self.query_one("#stages", ContentSwitcher).visible_content
        return shown if isinstance(shown, Stage) else None

    @property
    def last_command(self) -> str:
        """The command that does what the run on the screen does."""
        return command_line(self.view.state.command) if self.view else ""

    async def action_stage(self, name: str) -> None:
        """Goes to a stage; it is made when it is first gone to."""
        switcher = self.query_one("#stages", ContentSwitcher)
        if not switcher.query(f"#{name}"):
            kind = next(kind for kind in STAGES if kind.id == name)
            stage = kind.make(self.project, self.recipe)
            await switcher.mount(stage)
            stage.look()
        switcher.current = name
        self._show()
        self._focus_stage()

    def _focus_stage(self) -> None:
        if self.stage is not None and (inside := [each for each in self.stage.query("*") if each.focusable]):
            inside[0].focus()

    def show_project(self, view: ProjectView) -> None:
        """Takes the runs of the project in: a new run of this recipe is followed."""
        found = tuple(each.folder for each in view.runs if each.state.recipe == self.recipe)
        newer = bool(found) and found[:1] != self._runs[:1]
        self._runs = found
        if newer and (self.folder is None or self.folder in found[1:] and self.view is not None):
            self.post_message(Followed(found[0]))

    def show_run(self, view: RunView) -> None:
        """Shows the run as it stands."""
        ended = self.view is not None and self.view.live and not view.live
        self.view = view
        self._show()
        if ended:
            self.look()

    def look(self) -> None:
        """Has the stage on the screen ask again for what does not come with a run."""
        if self.stage is not None:
            self.stage.look()

    def _show(self) -> None:
        name = self.query_one("#stages", ContentSwitcher).current or ""
        self.query_one(StageBar).show(self.view, name)
        if self.view is not None:
            self.query_one("#title", Label).update(progress.title(self.view.state, self.view.now).text, layout=False)
        if self.stage is not None:
            self.stage.show(self.view)

    def action_leave(self) -> None:
        before_leaving(self, self.dismiss)

    def action_run_recipe(self) -> None:
        when_saved(self, lambda: self.post_message(Say("run", self.recipe, "--detach")), "Run as saved before")

    def action_replay(self) -> None:
        when_saved(self, lambda: self.post_message(Say("replay", self.recipe)), "Replay as saved before")

    def action_cancel_run(self) -> None:
        if self.view is not None:
            self.post_message(Say("cancel", self.view.folder.name))

    def action_run(self, older: int) -> None:
        """Goes to the run before or after the one on the screen."""
        if self.folder in self._runs:
            at = self._runs.index(self.folder) + older
            if 0 <= at < len(self._runs):
                self.post_message(Followed(self._runs[at]))
