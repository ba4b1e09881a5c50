"""What the stages have in common that list steps of a run and show the log of the one under the cursor."""

from __future__ import annotations

from pathlib import Path

from textual.binding import Binding
from textual.widgets import DataTable

from screens import progress
from screens.blocks import Cell
from screens.log_panel import FILTER, SEARCH, LogPanel
from screens.stage import Copied, Stage
from screens.table import Rows
from screens.view import RunView
from screens.views import Views
from workbench.events import StepState

_LOG = Binding.Group("Log")

STEPS = ("state", "step", "time", "progress")


class StepsStage(Stage):
    """Rows ``#steps`` and a log ``#logs``; a subclass composes them, among its :class:`Views`."""

    BINDINGS = [
        Binding("slash", "log_search", "Search", id="log.search", tooltip="search the log", group=_LOG),
        Binding("n", "log_next", "Next", id="log.next", tooltip="the next line found", show=False),
        Binding("N", "log_before", "Before", id="log.before", tooltip="the line found before", show=False),
        Binding(
            "ampersand,backslash",
            "log_filter",
            "Filter",
            id="log.filter",
            tooltip="only lines of the log with a text",
            group=_LOG,
        ),
        Binding(
            "E", "log_trouble", "Error", id="log.error", tooltip="the first line that looks like an error", group=_LOG
        ),
        Binding("f", "log_follow", "Follow", id="log.follow", tooltip="the end of the log, as it grows", show=False),
        Binding("w", "log_wrap", "Wrap", id="log.wrap", tooltip="long lines go on below", show=False),
        Binding("Y", "log_copy", "Copy lines", id="log.copy", tooltip="copy the lines on the screen", show=False),
        Binding("v", "view", "View", id="view.next", tooltip="the next view of this panel"),
    ]

    def __init__(self, project: Path, recipe: str, *, id: str) -> None:  # noqa: A002
        super().__init__(project, recipe, id=id)
        self._view: RunView | None = None
        self._followed = ""

    def steps(self, view: RunView) -> list[StepState]:
        """The steps that the stage lists."""
        return list(view.state.steps.values())

    def show(self, view: RunView | None) -> None:
        """Lists the steps; the cursor goes along with the one at work while it stands on it."""
        if view is not None and (self._view is None or self._view.folder != view.folder):
            self._followed = ""
        self._view = view
        found = self.steps(view) if view is not None else []
        rows = self.query_one("#steps", Rows)
        rows.show({step.id: _row(step, view.now) for step in found} if view is not None else {})
        self._go_along(rows, found)
        self.show_step()

    def _go_along(self, rows: Rows, found: list[StepState]) -> None:
        telling = next((step.id for step in found if step.status in ("running", "failed")), "")
        if telling and telling != self._followed and rows.key_at_cursor in (self._followed, found[0].id):
            rows.move_cursor(row=[step.id for step in found].index(telling), animate=False)
            self._followed = telling

    @property
    def step(self) -> StepState | None:
        """The step under the cursor."""
        key = self.query_one("#steps", Rows).key_at_cursor
        return self._view.state.steps.get(key) if self._view is not None else None

    def show_step(self) -> None:
        """Shows the log of the step under the cursor; only where it is on the screen is it read."""
        step = self.step
        if step is not None and self._view is not None and self.query_one(Views).shown == "logs":
            live = self._view.live and step.status in ("waiting", "running")
            self.query_one(LogPanel).log_view.open(self._view.log(step.id), live=live)

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        if event.data_table.id == "steps":
            self.show_step()

    def on_views_switched(self) -> None:
        self.show_step()

    def _log(self) -> LogPanel:
        """The log, on the screen from now on."""
        if self.query_one(Views).shown != "logs":
            self.query_one(Views).go("logs")
            self.show_step()
        return self.query_one(LogPanel)

    def action_view(self) -> None:
        self.query_one(Views).go_on()

    def action_log_search(self) -> None:
        self._log().ask(SEARCH)

    def action_log_filter(self) -> None:
        self._log().ask(FILTER)

    def action_log_next(self) -> None:
        self._log().log_view.find_next()

    def action_log_before(self) -> None:
        self._log().log_view.find_before()

    def action_log_trouble(self) -> None:
        """To the line of the step's own error where the log has it, else to the first that looks like one."""
        step = self.step
        self._log().log_view.search_trouble(str(((step and step.error) or {}).get("message", "")))

    def action_log_follow(self) -> None:
        self._log().log_view.follow()

    def action_log_wrap(self) -> None:
        self._log().log_view.toggle_wrap()

    def action_log_copy(self) -> None:
        self.post_message(Copied(self._log().log_view.shown_text()))


def _row(step: StepState, now: float) -> tuple[Cell, ...]:
    return progress.step_row(step, now)
