"""Every step of a run with state, time and progress; the log of the one under the cursor; the report at the end."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import DataTable, Static

from screens.block_view import Blocks
from screens.blocks import Block, cell
from screens.console import failure
from screens.log_panel import LogPanel
from screens.present import report_blocks
from screens.present_step import step_blocks
from screens.stage import Say
from screens.steps_stage import STEPS, StepsStage
from screens.table import Rows
from screens.view import RunView
from screens.views import Views
from screens.words import safe

VIEWS = {"logs": "Log", "about": "Step", "report": "Report"}
_NONE = Block("", below=(cell("This recipe has not run yet. Press r to run it."),))


class RunStage(StepsStage):
    """A run as it stands."""

    BINDINGS = [
        Binding("o", "report", "Report", id="run.report", tooltip="what came of the run; again: back to the log"),
        Binding("H", "page", "HTML", id="run.html", tooltip="the run as an HTML page, with its plots", show=False),
        Binding("enter", "about", "Step", id="run.step", tooltip="what a step is made of, and what it said"),
    ]
    SCOPED_CSS = False  # what is wide or narrow is the screen
    DEFAULT_CSS = """
    RunStage {
        #error { display: none; padding: 0 1; height: auto; max-height: 6; color: $text-error; }
        Rows { height: 1fr; }
        #panels { height: 1fr; layout: vertical; }
        #steps-panel { height: 2fr; width: 1fr; }
        Views { height: 3fr; width: 1fr; }
    }
    .-wide RunStage {
        #panels { layout: horizontal; }
        #steps-panel { width: 2fr; height: 1fr; }
        Views { width: 3fr; height: 1fr; }
    }
    """

    def compose(self) -> ComposeResult:
        yield Static(id="error", markup=False)
        with Horizontal(id="panels"):
            with Vertical(classes="panel", id="steps-panel") as steps:
                steps.border_title = "Steps"
                yield Rows(STEPS, id="steps")
            yield Views(
                VIEWS,
                LogPanel(id="logs"),
                VerticalScroll(Blocks(id="about-blocks"), id="about"),
                VerticalScroll(Blocks(id="report-blocks"), id="report"),
                id="views",
            )

    def show(self, view: RunView | None) -> None:
        """Shows every step, the error where there is one, and the report when the run ends."""
        before = self._view
        super().show(view)
        lines = failure(view.state) if view is not None else []
        error = self.query_one("#error", Static)
        if error.content != (told := "\n".join(lines)):  # a layout costs as much as all else here
            error.display = bool(told)
            error.update(told)
        ended = view is not None and view.state.status == "done"
        known = before is not None and view is not None and before.folder == view.folder
        if ended and not (known and before is not None and before.state.status == "done"):
            self.query_one(Views).go("report")

    def show_step(self) -> None:
        super().show_step()
        shown, step = self.query_one(Views).shown, self.step
        if self._view is None:
            self.query_one(Views).current = "report"
            self.query_one("#report-blocks", Blocks).show([_NONE])
        elif shown == "about" and step is not None:
            self.query_one("#about-blocks", Blocks).show(step_blocks(step, self._view.now))
        elif shown == "report":
            self.query_one("#report-blocks", Blocks).show(report_blocks(self._view.state))

    def copyable(self) -> str:
        """What went wrong, of the step under the cursor or the run."""
        error = self.step.error if self.step is not None else None
        if error:
            return "\n".join(safe(error[name]) for name in ("message", "cure") if error.get(name))
        return "\n".join(failure(self._view.state)) if self._view else ""

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        self.action_about()

    def action_about(self) -> None:
        views = self.query_one(Views)
        views.go("logs" if views.shown == "about" else "about")

    def action_page(self) -> None:
        if self._view is not None:
            self.post_message(Say("report", self._view.folder.name))

    def action_report(self) -> None:
        views = self.query_one(Views)
        views.go("logs" if views.shown == "report" else "report")
