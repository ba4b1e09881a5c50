"""The app: ``workbench`` without a command. It reads run folders and starts commands; it never carries out a step."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable
from pathlib import Path

from textual.app import App, SystemCommand
from textual.binding import Binding
from textual.message import Message
from textual.screen import Screen
from textual.widgets import DataTable

from screens.command import Command
from screens.command_bar import CommandBar
from screens.feed import Feed, ProjectSource, RunSource, View
from screens.home import HomeScreen
from screens.samples import SampleSource
from screens.settings import Settings, load_settings, settings_file
from screens.stage import Copied, Say, Written
from screens.table import Rows
from screens.themes import THEMES
from screens.unsaved import before_leaving
from screens.view import ProjectView, RunView
from screens.workspace import Followed, WorkspaceScreen
from workbench.errors import WorkbenchError
from workbench.project import project_of
from workbench.runs import runs_folder


def open_app() -> None:
    """Opens the app on the project of this folder, with the user's settings.

    Raises UsageError where they are none, WorkbenchError where the app ended by an error of its own.
    """
    app = WorkbenchApp(project_of(Path.cwd() / "here"), load_settings(settings_file()))
    app.run()
    if app.broken is not None:
        raise told(app.broken, app.project)


def told(error: BaseException, project: Path) -> WorkbenchError:
    """An error that ended the app, as a sentence; how it came about lies in a file."""
    import traceback

    lines = "".join(traceback.format_exception(error))
    kept = project / ".workbench" / "app-error.txt"
    try:
        if not kept.parent.exists():
            kept.parent.mkdir()
            (kept.parent / ".gitignore").write_text("*\n")
        kept.write_text(lines)
    except OSError:
        return WorkbenchError(f"The app ended by an error of its own; runs go on.\n{lines}", "Please report it.")
    return WorkbenchError(
        f"The app ended by an error of its own ({type(error).__name__}: {error}); runs go on.",
        f"Open it again; please report it with {kept}.",
    )


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
    CSS = """
    .panel {
        border: round $primary-muted; border-title-color: $text-primary; border-subtitle-color: $text-muted;
    }
    .panel:focus-within { border: round $primary; }
    """
    BINDINGS = [
        Binding("q", "quit", "Quit", id="app.quit", tooltip="leave; runs go on"),
        Binding("question_mark", "help", "Help", id="app.help", tooltip="every key of this screen"),
        Binding("y", "copy", "Copy", id="app.copy", tooltip="copy the command (or what the stage offers)", show=False),
        Binding("f2", "screenshot", "Screenshot", id="app.screenshot", tooltip="the screen as SVG", show=False),
    ]

    def __init__(self, project: Path, settings: Settings | None = None) -> None:
        super().__init__()
        self.project = project
        self.broken: BaseException | None = None
        """The error that ended the app, where one did."""
        self._settings = settings or Settings()
        self._feed = Feed(lambda view: self.post_message(Seen(view)))
        self._started = False
        self._runs = ProjectView(())
        self._said = ""

        for theme in THEMES:
            self.register_theme(theme)
        self.theme = self._settings.theme  # before anything is painted: another theme is a second layout

    def _fatal_error(self) -> None:
        """Ends the app without a traceback on the screen."""
        self.broken = self._exception
        self._close_messages_no_wait()

    def get_default_screen(self) -> Screen[None]:
        return HomeScreen(self.project)

    def on_mount(self) -> None:
        self.set_keymap(self._settings.keys)
        self.call_after_refresh(self._start)

    def _start(self) -> None:
        """Looks at the runs: after the first painting, which it would take the processor from, or when something is
        opened before it, by a key typed ahead: what waits for the painting of a screen that was left is not called."""
        if self._started:
            return
        self._started = True
        # What is loaded stays. Collections that walk through it fall among the keys: 20 ms each.
        gc.collect()
        gc.freeze()
        self._feed.follow("project", ProjectSource(self.project))
        self._feed.start()

    def on_unmount(self) -> None:
        self._feed.stop()

    def on_seen(self, message: Seen) -> None:
        """Hands what is new to the screens that show it."""
        if not self.is_running:
            return  # the app is closing, and its screens have lost their parts
        view = message.view
        if isinstance(view, ProjectView):
            self._runs = view
        for screen in self.screen_stack:
            if isinstance(view, ProjectView) and isinstance(screen, HomeScreen | WorkspaceScreen):
                screen.show_project(view)
            if isinstance(view, RunView) and isinstance(screen, WorkspaceScreen) and screen.folder == view.folder:
                screen.show_run(view)

    def on_followed(self, message: Followed) -> None:
        """Follows the run that a workspace is to show."""
        if isinstance(self.screen, WorkspaceScreen):
            self.screen.folder = message.folder
            self._follow(message.folder)

    async def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Opens the recipe or run that was chosen."""
        if not isinstance(event.data_table, Rows) or not event.data_table.key_at_cursor:
            return
        if event.data_table.id == "recipes":
            await self.open_recipe(event.data_table.key_at_cursor)
        if event.data_table.id == "runs":
            await self.open_run(runs_folder(self.project) / event.data_table.key_at_cursor)
        if event.data_table.id == "machine":  # the whole of what may be longer than its line
            what, found = (cell.text for cell in event.data_table.cells_at_cursor)
            self.notify(found, title=what, markup=False, timeout=20)

    async def on_written(self, message: Written) -> None:
        await self.open_recipe(message.recipe)
        self._said = str(message.command)
        self._show_said(message.command)

    async def open_recipe(self, recipe: str, stage: str = "compress") -> None:
        """Shows the stages of a recipe, with its newest run."""
        await self._open(WorkspaceScreen(self.project, recipe, stage=stage))

    async def open_run(self, folder: Path) -> None:
        """Shows the run of a run folder."""
        recipe = next((each.state.recipe for each in self._runs.runs if each.folder == folder), "")
        await self._open(WorkspaceScreen(self.project, recipe, stage="run", folder=folder))
        self._follow(folder)

    async def _open(self, screen: WorkspaceScreen) -> None:
        self._start()
        await self.push_screen(screen, self._left)
        screen.show_project(self._runs)

    def _follow(self, folder: Path) -> None:
        self._feed.follow("run", RunSource(folder, SampleSource(folder / "samples.jsonl")))

    def _left(self, _: object) -> None:
        self._feed.follow("run", None)

    def on_say(self, message: Say) -> None:
        self.run_worker(self._carry_out(Command(message.words, self.project)), group="commands")

    async def _carry_out(self, command: Command) -> None:
        """Carries a command out; what it had to say where it failed stands on the screen. It outlives the screen."""
        self._said = str(command)
        self._show_said(command)
        answer = await command.answer()
        if self._said == str(command):
            self._show_said(command, answer)
        if isinstance(self.screen, HomeScreen | WorkspaceScreen):
            self.screen.look()

    def _show_said(self, command: Command, answer: object = None) -> None:
        for bar in self.screen.query(CommandBar):
            bar.show(command, answer)  # type: ignore[arg-type]

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Every key of the screen as an entry of the palette, and the app's own."""
        for active in screen.active_bindings.values():
            binding = active.binding
            if binding.id and active.enabled:
                action = binding.action
                node = active.node
                yield SystemCommand(
                    binding.description, binding.tooltip, lambda a=action, n=node: self.run_action(a, n)
                )
        yield SystemCommand("Theme", "dark, light, high contrast, the terminal's own", self.action_change_theme)

    async def action_quit(self) -> None:
        """Leaves, unless something unsaved would be lost: then it is asked."""
        for screen in self.screen_stack:
            if isinstance(screen, WorkspaceScreen):
                before_leaving(screen, self.exit)
                return
        self.exit()

    def action_help(self) -> None:
        from screens.help import HelpScreen

        self.push_screen(HelpScreen(self.screen.active_bindings.values()))

    def action_copy(self) -> None:
        """Copies what is selected, else what the stage offers, else the command behind what is shown."""
        self._copy(self.screen.get_selected_text() or self._copyable())

    def on_copied(self, message: Copied) -> None:
        self._copy(message.text)

    def _copy(self, text: str) -> None:
        if not text:
            return
        self.copy_to_clipboard(text)
        kept = self.project / ".workbench" / "copied.txt"
        said = text if len(text) < 300 else f"{len(text.splitlines())} lines"
        with contextlib.suppress(OSError):  # no .workbench yet, or a full disk: the terminal may have taken it
            kept.write_text(text)
            said += f"\n(also in {kept}, where the terminal does not take it)"
        self.notify(said, title="Copied", markup=False)

    def _copyable(self) -> str:
        screen = self.screen
        offered = screen.stage.copyable() if isinstance(screen, WorkspaceScreen) and screen.stage else ""
        shown = screen.last_command if isinstance(screen, WorkspaceScreen) else ""
        return offered or self._said or shown
