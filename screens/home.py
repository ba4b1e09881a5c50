"""The first screen: the recipes of a project and how they stand, its runs, and what this machine has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import Screen
from textual.widgets import Label, Static

from screens import standing
from screens.blocks import Cell, cell
from screens.command import Command
from screens.command_bar import CommandBar
from screens.key_bar import KeyBar
from screens.progress import GLYPHS
from screens.stage import Say, Written
from screens.table import Rows
from screens.view import ProjectView, RunView
from screens.words import ABSENT, at_home, clock, safe

if TYPE_CHECKING:
    from screens.dialog import Carried

RECIPES = ("recipe", "state", "choice", "size", "p50")
RUNS = ("run", "state", "steps", "now", "time")
MACHINE = ("what", "found")


def recipe_rows(rows: Iterable[Mapping[str, Any]], runs: Sequence[RunView] = ()) -> dict[str, tuple[Cell, ...]]:
    """The recipes as ``workbench status --json`` gives them, by path; of those at work, how far the run is."""
    at_work = {view.state.recipe: view for view in reversed(runs) if view.live}
    return {
        str(row["recipe"]): (
            cell(Path(str(row["recipe"])).stem),
            _running(at_work[row["recipe"]]) if row["recipe"] in at_work else standing.state(row["status"]),
            cell(row["choice"] or ABSENT),
            standing.model_size(row),
            standing.median(row),
        )
        for row in rows
    }


def _running(view: RunView) -> Cell:
    return standing.state("running", f"{_ended(view)}/{len(view.state.steps)}")


def _ended(view: RunView) -> int:
    return sum(step.status in ("done", "reused") for step in view.state.steps.values())


def run_rows(views: Sequence[RunView]) -> dict[str, tuple[Cell, ...]]:
    """The runs by name: how each stands, how far it is, what it does now."""
    return {view.folder.name: _run_row(view) for view in views}


def _run_row(view: RunView) -> tuple[Cell, ...]:
    state = view.state
    glyph, tone = GLYPHS.get("failed" if state.status == "died" else state.status, ("?", ""))
    at = next((step.id for step in state.steps.values() if step.status in ("running", "failed")), "")
    since = (state.ended or view.now) - state.started if state.started else 0.0
    name = state.name or view.folder.name
    return (
        cell(f"{name}{' (replay)' if state.mode == 'replay' else ''}"),
        Cell(f"{glyph} {state.status}", tone),
        Cell(f"{_ended(view)}/{len(state.steps)}"),
        cell(at or ABSENT),
        Cell(clock(since)),
    )


def machine_rows(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[Cell, ...]]:
    """What ``workbench doctor --json`` found, and the cure of what is missing."""
    return {
        str(row["what"]): (
            cell(row["what"]),
            cell(at_home(str(row["found"]))) if row["found"] else cell(f"missing; {row['cure']}", "warn"),
        )
        for row in rows
    }


BEGIN = """\
No recipe yet. A recipe says how a model becomes a small, measured image.

  n               have one written for a model of this folder
  workbench demo  see the whole job on a small model that comes along"""


class HomeScreen(Screen[None]):
    """Recipes, runs and the machine."""

    AUTO_FOCUS = "#recipes"
    BINDINGS = [
        Binding("n", "new", "New", id="home.new", tooltip="write a first recipe for a model"),
        Binding("r", "run_recipe", "Run", id="home.run", tooltip="carry out the recipe under the cursor"),
        Binding("p", "replay", "Replay", id="home.replay", tooltip="make the recipe's artifacts again and compare"),
        Binding("c", "cancel_run", "Cancel", id="home.cancel", tooltip="stop the run under the cursor"),
        Binding("f5", "look", "Look again", id="home.refresh", tooltip="look at recipes and machine again"),
    ]
    DEFAULT_CSS = """
    HomeScreen {
        #title { padding: 0 1; text-style: bold; width: 1fr; }
        #begin { display: none; padding: 0 1; }
        Rows { height: auto; max-height: 1fr; }
        .panel { height: auto; max-height: 35%; }
        #machine-panel { height: 1fr; max-height: 100%; }
        #machine { overflow-x: hidden; }
    }
    """

    def __init__(self, project: Path) -> None:
        super().__init__()
        self._project = project
        self._ended: frozenset[str] = frozenset()
        self._failed = False
        self._recipes: list[Mapping[str, Any]] = []
        self._runs: Sequence[RunView] = ()

    def compose(self) -> ComposeResult:
        yield Label(f"workbench  {at_home(safe(self._project))}", id="title", markup=False)
        with Vertical(classes="panel") as recipes:
            recipes.border_title = "Recipes"
            yield Rows(RECIPES, id="recipes")
            yield Static(BEGIN, id="begin", markup=False)
        with Vertical(classes="panel") as listed:
            listed.border_title = "Runs"
            yield Rows(RUNS, id="runs")
        with Vertical(classes="panel", id="machine-panel") as machine:
            machine.border_title = "This machine"
            yield Rows(MACHINE, id="machine")
        yield CommandBar()
        yield KeyBar()

    def on_mount(self) -> None:
        # After the first painting: what is asked takes the processor from it.
        self.call_after_refresh(self.look_at_machine)

    def on_screen_resume(self) -> None:
        self.call_after_refresh(self.look)

    def show_project(self, view: ProjectView) -> None:
        """Shows the runs; looks at the recipes again where one has ended."""
        self._runs = view.runs
        self.query_one("#runs", Rows).show(run_rows(view.runs))
        self.query_one("#recipes", Rows).show(recipe_rows(self._recipes, view.runs))
        ended = frozenset(each.folder.name for each in view.runs if not each.live)
        if ended != self._ended:
            # Not with every look: a status hashes what the recipes name, on a machine that may be measured on.
            self._ended = ended
            self.look()

    @work(exclusive=True, group="recipes")
    async def look(self) -> None:
        """Asks how the recipes stand."""
        command = Command(("status", "--json"), self._project)
        answer = await command.answer()
        if answer.exit_code:  # what stood here stays: an error is no folder without recipes
            self._failed = True
            self.query_one(CommandBar).show(command, answer)
            return
        if self._failed:
            self._failed = False
            self.query_one(CommandBar).show("", None)
        self._recipes = answer.json() or []
        table = self.query_one("#recipes", Rows)
        table.show(recipe_rows(self._recipes, self._runs))
        if self._recipes and not table.display:
            table.display = True
            table.focus()
        table.display = bool(self._recipes)
        self.query_one("#begin").display = not self._recipes

    @work(exclusive=True, group="machine")
    async def look_at_machine(self) -> None:
        """Asks what this machine has."""
        command = Command(("doctor", "--json"), self._project)
        answer = await command.answer()
        rows = answer.json()  # also where something is missing: its exit code tells no more than they do
        if rows is None:
            self.query_one(CommandBar).show(command, answer)
        self.query_one("#machine", Rows).show(machine_rows(rows or []))

    def action_new(self) -> None:
        from screens.new import NewForm

        self.app.push_screen(NewForm(self._project), self._written)

    def _written(self, carried: Carried | None) -> None:
        if carried is not None:
            self.post_message(Written(carried.answer.stdout.strip(), carried.command))

    def action_run_recipe(self) -> None:
        if recipe := self.query_one("#recipes", Rows).key_at_cursor:
            self.post_message(Say("run", recipe, "--detach"))

    def action_replay(self) -> None:
        if recipe := self.query_one("#recipes", Rows).key_at_cursor:
            self.post_message(Say("replay", recipe))

    def action_cancel_run(self) -> None:
        if run := self.query_one("#runs", Rows).key_at_cursor:
            self.post_message(Say("cancel", run))

    def action_look(self) -> None:
        self.look()
        self.look_at_machine()
