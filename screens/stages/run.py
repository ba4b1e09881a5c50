"""Every step of a run with state, time and progress; the log of the one under the cursor; the report at the end."""

from __future__ import annotations

from pathlib import Path

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Static

from screens import progress
from screens.blocks import Cell, plain
from screens.console import failure
from screens.present import report_blocks
from screens.stage import Stage
from screens.table import Rows
from screens.tail import tail
from screens.view import RunView

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


class RunStage(Stage):
    """A run as it stands."""

    DEFAULT_CSS = """
    RunStage {
        #error { display: none; padding: 0 1; height: auto; max-height: 8; color: $text-error; }
        Rows { height: 1fr; }
        #panels { height: 1fr; layout: vertical; }
        #panels > * { width: 1fr; }
    }
    .-wide RunStage #panels { layout: horizontal; }
    """

    def __init__(self, project: Path, recipe: str, *, id: str) -> None:  # noqa: A002
        super().__init__(project, recipe, id=id)
        self._view: RunView | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="error", markup=False)
        with Horizontal(id="panels"):
            with Vertical(classes="panel") as steps:
                steps.border_title = "Steps"
                yield Rows(STEPS, id="steps")
            with VerticalScroll(classes="panel", id="detail-panel"):
                yield Static(id="detail", markup=False)

    def show(self, view: RunView | None) -> None:
        """Shows every step; the error where there is one."""
        self._view = view
        if view is None:
            self.query_one("#detail", Static).update("This recipe has not run yet. Press r to run it.")
            return
        self.query_one("#steps", Rows).show(step_rows(view))
        error = self.query_one("#error", Static)
        lines = failure(view.state)
        error.display = bool(lines)
        error.update("\n".join(lines))
        self._show_detail()

    def copyable(self) -> str:
        return "\n".join(failure(self._view.state)) if self._view else ""

    def on_data_table_row_highlighted(self) -> None:
        self._show_detail()

    def _show_detail(self) -> None:
        """The log of the step under the cursor; the report of a run that has ended, while the cursor is at its end."""
        if self._view is None:
            return
        step = self.query_one("#steps", Rows).key_at_cursor
        if not self._view.live and [step] == list(self._view.state.steps)[-1:]:
            title, text = "Report", "\n".join(plain(report_blocks(self._view.state)))
        else:
            title, text = f"Log of {step}", log_text(self._view.log(step))
        self.query_one("#detail-panel").border_title = title
        self.query_one("#detail", Static).update(text)
