"""One run: every step with its state, time and progress, the log of the step under the cursor, and the report."""

from __future__ import annotations

from pathlib import Path

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer, Label, Static

from screens import progress
from screens.blocks import Cell, plain
from screens.command import Command
from screens.console import failure
from screens.present import report_blocks
from screens.table import Rows
from screens.tail import tail
from screens.view import RunView
from screens.words import safe
from workbench.runs import command_line, project_of_run

STEPS = ("state", "step", "time", "progress")
_LOG_LINES = 400


def step_rows(view: RunView) -> dict[str, tuple[Cell, ...]]:
    """The steps of a run by name."""
    return {name: progress.step_row(step, view.now) for name, step in view.state.steps.items()}


def log_text(path: Path) -> str:
    """The end of a step's log, and that more lies before where so."""
    lines, cut = tail(path)
    if not lines:
        return "Nothing was printed."
    more = [f"… the end of {path.name}; the whole: workbench logs"] if cut or len(lines) > _LOG_LINES else []
    return "\n".join([*more, *lines[-_LOG_LINES:]])


class RunScreen(Screen[None]):
    """A run as it stands."""

    AUTO_FOCUS = "#steps"
    BINDINGS = [
        Binding("escape", "leave", "Back", id="run.back", tooltip="back to the list"),
        Binding("c", "cancel", "Cancel", id="run.cancel", tooltip="stop the run"),
    ]
    DEFAULT_CSS = """
    RunScreen {
        #title { padding: 0 1; text-style: bold; }
        #command { padding: 0 1; color: $text-muted; }
        #error { display: none; padding: 0 1; height: auto; max-height: 8; color: $text-error; }
        Rows { height: 1fr; }
        .panel { width: 1fr; border: round $primary-muted; border-title-color: $text-primary; }
        .panel:focus-within { border: round $primary; }
        #panels { height: 1fr; layout: vertical; }
    }
    .-wide RunScreen #panels { layout: horizontal; }
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.view: RunView | None = None

    def compose(self) -> ComposeResult:
        yield Label(id="title", markup=False)
        yield Label(id="command", markup=False)
        yield Static(id="error", markup=False)
        with Horizontal(id="panels"):
            with Vertical(classes="panel") as steps:
                steps.border_title = "Steps"
                yield Rows(STEPS, id="steps")
            with VerticalScroll(classes="panel", id="detail-panel"):
                yield Static(id="detail", markup=False)
        yield Footer()

    def show_run(self, view: RunView) -> None:
        """Shows the run as it stands."""
        self.view = view
        self.query_one("#title", Label).update(progress.title(view.state, view.now).text)
        self.query_one("#command", Label).update(f"$ {self.last_command}")
        self.query_one("#steps", Rows).show(step_rows(view))
        error = self.query_one("#error", Static)
        lines = failure(view.state)
        error.display = bool(lines)
        error.update("\n".join(lines))
        self._show_detail()

    def on_data_table_row_highlighted(self) -> None:
        self._show_detail()

    def _show_detail(self) -> None:
        """The log of the step under the cursor; the report of a run that has ended, while the cursor is at its end."""
        if self.view is None:
            return
        step = self.query_one("#steps", Rows).key_at_cursor
        if not self.view.live and [step] == list(self.view.state.steps)[-1:]:
            title, text = "Report", "\n".join(plain(report_blocks(self.view.state)))
        else:
            title, text = f"Log of {step}", log_text(self.view.log(step))
        self.query_one("#detail-panel").border_title = title
        self.query_one("#detail", Static).update(text)

    @property
    def last_command(self) -> str:
        """The command that does what this run does."""
        return command_line(self.view.state.command) if self.view else ""

    def action_leave(self) -> None:
        self.dismiss()

    @work
    async def action_cancel(self) -> None:
        """Cancels the run; what the command has to say where it fails is told."""
        answer = await Command(("cancel", self.folder.name), project_of_run(self.folder)).answer()
        if answer.exit_code:
            self.notify(safe(answer.stderr.strip()), severity="error", markup=False)
