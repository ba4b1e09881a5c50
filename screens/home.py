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
from textual.widgets import Footer, Label

from screens.blocks import Cell, cell
from screens.command import Command
from screens.command_bar import CommandBar
from screens.progress import GLYPHS
from screens.stage import Say, Written
from screens.table import Rows
from screens.view import ProjectView, RunView
from screens.words import ABSENT, clock, safe, short

if TYPE_CHECKING:
    from screens.dialog import Carried

RECIPES = ("recipe", "state", "choice", "image")
RUNS = ("run", "state", "steps", "now", "time")
MACHINE = ("what", "found")


def recipe_rows(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[Cell, ...]]:
    """The recipes as ``workbench status --json`` gives them, by path."""
    return {
        str(row["recipe"]): (
            cell(Path(str(row["recipe"])).stem),
            cell(row["status"], "bad" if str(row["status"]).startswith("not valid") else ""),
            cell(row["choice"] or ABSENT),
            Cell(short(row["image"])),
        )
        for row in rows
    }


def run_rows(views: Sequence[RunView]) -> dict[str, tuple[Cell, ...]]:
    """The runs by name: how each stands, how far it is, what it does now."""
    return {view.folder.name: _run_row(view) for view in views}


def _run_row(view: RunView) -> tuple[Cell, ...]:
    state = view.state
    glyph, tone = GLYPHS.get("failed" if state.status == "died" else state.status, ("?", ""))
    ended = sum(step.status in ("done", "reused") for step in state.steps.values())
    at = next((step.id for step in state.steps.values() if step.status in ("running", "failed")), "")
    since = (state.ended or view.now) - state.started if state.started else 0.0
    name = state.name or view.folder.name
    return (
        cell(f"{name}{' (replay)' if state.mode == 'replay' else ''}"),
        Cell(f"{glyph} {state.status}", tone),
        Cell(f"{ended}/{len(state.steps)}"),
        cell(at or ABSENT),
        Cell(clock(since)),
    )


def machine_rows(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[Cell, ...]]:
    """What ``workbench doctor --json`` found, and the cure of what is missing."""
    return {
        str(row["what"]): (
            cell(row["what"]),
            cell(row["found"]) if row["found"] else cell(f"missing; {row['cure']}", "warn"),
        )
        for row in rows
    }


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
        Rows { height: auto; max-height: 1fr; }
        .panel { height: auto; max-height: 45%; }
        #machine-panel { max-height: 1fr; }
    }
    """

    def __init__(self, project: Path) -> None:
        super().__init__()
        self._project = project
        self._ended: frozenset[str] = frozenset()

    def compose(self) -> ComposeResult:
        yield Label(f"workbench  {safe(self._project)}", id="title", markup=False)
        with Vertical(classes="panel") as recipes:
            recipes.border_title = "Recipes"
            yield Rows(RECIPES, id="recipes")
        with Vertical(classes="panel") as listed:
            listed.border_title = "Runs"
            yield Rows(RUNS, id="runs")
        with Vertical(classes="panel", id="machine-panel") as machine:
            machine.border_title = "This machine"
            yield Rows(MACHINE, id="machine")
        yield CommandBar()
        yield Footer()

    def on_mount(self) -> None:
        # After the first painting: what is asked takes the processor from it.
        self.call_after_refresh(self.look_at_machine)

    def on_screen_resume(self) -> None:
        self.call_after_refresh(self.look)

    def show_project(self, view: ProjectView) -> None:
        """Shows the runs; looks at the recipes again where one has ended."""
        self.query_one("#runs", Rows).show(run_rows(view.runs))
        ended = frozenset(each.folder.name for each in view.runs if not each.live)
        if ended != self._ended:
            # Not with every look: a status hashes what the recipes name, on a machine that may be measured on.
            self._ended = ended
            self.look()

    @work(exclusive=True, group="recipes")
    async def look(self) -> None:
        """Asks how the recipes stand."""
        answer = await Command(("status", "--json"), self._project).answer()
        self.query_one("#recipes", Rows).show(recipe_rows(answer.json() or []))

    @work(exclusive=True, group="machine")
    async def look_at_machine(self) -> None:
        """Asks what this machine has."""
        answer = await Command(("doctor", "--json"), self._project).answer()
        self.query_one("#machine", Rows).show(machine_rows(answer.json() or []))

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
