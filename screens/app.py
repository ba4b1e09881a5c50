"""The app: ``workbench`` without a command. It reads run folders and starts commands; it never carries out a step."""

from __future__ import annotations

from pathlib import Path

from textual.app import App
from textual.binding import Binding
from textual.message import Message
from textual.widgets import DataTable

from screens.feed import Feed, ProjectSource, RunSource, View
from screens.home import HomeScreen
from screens.run_screen import RunScreen
from screens.table import Rows
from screens.view import ProjectView, RunView
from workbench.runs import runs_folder


class Seen(Message):
    """The feed has something new. A later one about the same takes its place."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self.view = view

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, Seen) and type(message.view) is type(self.view)


class WorkbenchApp(App[None]):
    """The recipes and runs of the project in the folder ``project``."""

    TITLE = "workbench"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]
    BINDINGS = [
        Binding("q", "quit", "Quit", id="app.quit", tooltip="leave; runs go on"),
        Binding("y", "copy_command", "Copy command", id="app.copy", tooltip="copy the command behind what is shown"),
    ]

    def __init__(self, project: Path) -> None:
        super().__init__()
        self._project = project
        self._feed = Feed(lambda view: self.post_message(Seen(view)))

    async def on_mount(self) -> None:
        await self.push_screen(HomeScreen(self._project))
        self._feed.follow("project", ProjectSource(self._project))
        self._feed.start()

    def on_unmount(self) -> None:
        self._feed.stop()

    def on_seen(self, message: Seen) -> None:
        """Hands what is new to the screen that shows it."""
        view = message.view
        for screen in self.screen_stack:
            if isinstance(view, ProjectView) and isinstance(screen, HomeScreen):
                screen.show_project(view)
            if isinstance(view, RunView) and isinstance(screen, RunScreen) and screen.folder == view.folder:
                screen.show_run(view)

    async def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Opens the run that was chosen."""
        if isinstance(event.data_table, Rows) and event.data_table.id == "runs":
            await self.open_run(runs_folder(self._project) / event.data_table.key_at_cursor)

    async def open_run(self, folder: Path) -> None:
        """Shows the run of a run folder."""
        await self.push_screen(RunScreen(folder), lambda _: self._feed.follow("run", None))
        self._feed.follow("run", RunSource(folder))

    def action_copy_command(self) -> None:
        screen = self.screen
        if isinstance(screen, HomeScreen | RunScreen) and screen.last_command:
            self.copy_to_clipboard(screen.last_command)
            self.notify(screen.last_command, title="Copied", markup=False)
