"""A log with what is known of it in a line below, which asks there what to search or filter for."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.widgets import Input, Static

from screens.log_view import LogView

SEARCH, FILTER = "search: ", "only lines with: "


class LogPanel(Vertical):
    """A :class:`LogView` that one can search and filter."""

    BINDINGS = [
        Binding("escape", "close", "Close", id="log.close", tooltip="leave the search or filter line", show=False)
    ]
    DEFAULT_CSS = """
    LogPanel {
        height: 1fr;
        LogView { height: 1fr; }
        #log-status { height: 1; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
        #log-input { display: none; height: 1; border: none; padding: 0; background: $panel; }
    }
    """

    def __init__(self, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._asked = SEARCH

    def compose(self) -> ComposeResult:
        yield LogView(id="log")
        yield Static(id="log-status", markup=False)
        yield Input(id="log-input", compact=True, max_length=200, select_on_focus=True)

    def on_mount(self) -> None:
        self.watch(self.log_view, "status", self._show_status)

    def _show_status(self, status: str) -> None:
        self.query_one("#log-status", Static).update(status)

    @property
    def log_view(self) -> LogView:
        """The log."""
        return self.query_one(LogView)

    def ask(self, what: str) -> None:
        """Asks in the line below for what to search (``SEARCH``) or filter (``FILTER``) for."""
        line = self.query_one("#log-input", Input)
        line.placeholder = what + ("(nothing: all lines)" if what == FILTER else "")
        line.value = self.log_view.filter if what == FILTER else ""
        self._asked = what
        line.display = True
        self.query_one("#log-status", Static).display = False
        line.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_close()
        if self._asked == FILTER:
            self.log_view.keep_only(event.value)
        else:
            self.log_view.search(event.value)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        return action != "close" or bool(self.query_one("#log-input", Input).display)

    def action_close(self) -> None:
        self.query_one("#log-input", Input).display = False
        self.query_one("#log-status", Static).display = True
        self.log_view.focus()
