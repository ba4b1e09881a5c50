"""``workbench play``: the app on the run of a recording. It starts nothing, and everything on it is marked."""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from textual.app import ComposeResult
from textual.binding import Binding
from textual.message import Message
from textual.screen import Screen
from textual.widgets import ContentSwitcher, Input, Label, TextArea
from textual.worker import WorkerFailed

from screens.app import WorkbenchApp
from screens.command import REFUSED, Command, answer_from
from screens.command_bar import CommandBar
from screens.key_bar import KeyBar
from screens.play_clock import IDLE_SECONDS, PlayClock
from screens.play_source import Played, PlaySource
from screens.playback_bar import PlaybackBar
from screens.recorded import RecordedAnswers
from screens.settings import Settings, load_settings, settings_file
from screens.stage import STAGES, Say
from screens.stage_bar import StageBar
from screens.view import RunView
from screens.words import quantity, safe
from screens.workspace import WorkspaceScreen
from workbench.errors import UsageError
from workbench.recording import Recording, unpack


def play(file: Path, speed: float) -> None:
    """Plays the recording in ``file``, with the user's settings. Raises UsageError where either is none."""
    settings = load_settings(settings_file())
    with tempfile.TemporaryDirectory(prefix="workbench-play-") as folder:
        app = PlayApp(unpack(file, Path(folder) / "recording"), settings, speed)
        app.run()
    if app.broken is not None:
        raise UsageError(
            f"{file} holds what this version of workbench cannot show: {_told(app.broken)}.",
            "It is damaged, or was made by another version.",
        )


def _told(error: BaseException) -> str:
    """What an error is and where it came up, in a line."""
    cause = error.error if isinstance(error, WorkerFailed) else error
    frames = traceback.extract_tb(cause.__traceback__)
    where = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return safe(f"{type(cause).__name__}{where}: {cause}").replace("\n", " ")


_MOVES = ("pause", "seek", "seek_to", "speed", "shorten")
_SEEK, _PLAY = Binding.Group("5 s", compact=True), Binding.Group("Play")


def _key(key: str, action: str, id: str, tooltip: str, group: Binding.Group | None = None) -> Binding:  # noqa: A002
    """A key that moves what plays, before any widget; only those of a group are in the footer."""
    return Binding(key, action, tooltip, id=id, tooltip=tooltip, priority=True, group=group, show=group is not None)


class PlayScreen(WorkspaceScreen):
    """The stages of a recorded run, and the bar that says where in it one is."""

    BINDINGS = [
        # Before any widget: what plays is moved by the same keys wherever one is. Where one types, they are letters.
        _key("space", "pause", "play.pause", "pause or go on", _PLAY),
        _key("left", "seek(-5)", "play.back", "5 s back", _SEEK),
        _key("right", "seek(5)", "play.forth", "5 s forth", _SEEK),
        _key("less_than_sign", "speed(0.5)", "play.slower", "half as fast", _PLAY),
        _key("greater_than_sign", "speed(2)", "play.faster", "twice as fast", _PLAY),
        _key("shift+left", "seek(-30)", "play.far-back", "30 s back"),
        _key("shift+right", "seek(30)", "play.far-forth", "30 s forth"),
        _key("home", "seek_to(0)", "play.begin", "to the begin of the recording"),
        _key("end", "seek_to(1)", "play.end", "to the end of the recording"),
        _key("z", "shorten", "play.idle", "shorten time in which nothing happens, or not"),
        Binding("escape", "leave", "Leave", id="play.leave", tooltip="end the playing", show=False),
        Binding("r", "run_recipe", "Run", id="workspace.run", tooltip="carry out the recipe", show=False),
        Binding(
            "p",
            "replay",
            "Replay",
            id="workspace.replay",
            tooltip="make the artifacts again and compare",
            show=False,
        ),
        Binding(
            "c",
            "cancel_run",
            "Cancel",
            id="workspace.cancel",
            tooltip="stop the run; finished steps are kept",
            show=False,
        ),
    ]

    def __init__(self, recording: Recording, played: Played, clock: PlayClock) -> None:
        super().__init__(recording.folder, recording.manifest.recipe, stage="run", folder=recording.run)
        self.clock = clock
        self._played = played
        self._answers = RecordedAnswers(recording)
        answer_from(recording.folder, self._answers.answer)

    def compose(self) -> ComposeResult:
        yield PlaybackBar(self.clock, self._played.last, self._chapters())
        yield Label(safe(self.recipe), id="title", markup=False)
        yield StageBar()
        yield ContentSwitcher(id="stages")
        yield CommandBar()
        yield KeyBar()

    def _chapters(self) -> list[float]:
        """When the first step of each stage began."""
        kinds = {step.id: step.kind for step in self._played.last.steps.values()}
        begun = {name: begin for name, (begin, _) in self._played.steps.items()}
        found = ([at for name, at in begun.items() if kinds.get(name) in stage.kinds] for stage in STAGES)
        return [min(times) for times in found if times]

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that move what plays are letters where one types."""
        at = self.focused
        typing = isinstance(at, Input) or isinstance(at, TextArea) and not at.read_only
        return not (typing and action in _MOVES) and super().check_action(action, parameters)

    def show_run(self, view: RunView) -> None:
        """Shows the run as it stood; asks again where commands had other answers before."""
        others = self._answers.see(view.state)
        super().show_run(view)
        if others:
            self.look()

    def action_pause(self) -> None:
        self.clock.toggle()
        self._moved()

    def action_seek(self, seconds: float) -> None:
        self.clock.seek_by(seconds)
        self._moved()

    def action_seek_to(self, share: float) -> None:
        self.clock.seek(share * self.clock.length)
        self._moved()

    def action_speed(self, factor: float) -> None:
        self.clock.change_speed(factor)
        self._moved()

    def action_shorten(self) -> None:
        found = self.clock.shorten()
        told = quantity(found, "time", "times") + f" of more than {IDLE_SECONDS:g} s in which nothing happens"
        kept = "shortened to a second each" if self.clock.shortened else "as long as they were"
        self.notify(f"{told}: {kept}." if found else f"There is no time of more than {IDLE_SECONDS:g} s to shorten.")
        self._moved()

    def on_playback_bar_sought(self, message: PlaybackBar.Sought) -> None:
        self.clock.seek(message.position)
        self._moved()

    def _moved(self) -> None:
        self.query_one(PlaybackBar).look()
        self.post_message(Moved())

    def action_leave(self) -> None:
        self.app.exit()


class Moved(Message):
    """The play clock was set."""


class PlayApp(WorkbenchApp):
    """The app on a recording. Raises UsageError where its files are none that a run leaves."""

    def __init__(
        self,
        recording: Recording,
        settings: Settings | None = None,
        speed: float = 1.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(recording.folder, settings)
        self._recording = recording
        self._played = Played(recording)
        self.clock = PlayClock(self._played.length, speed, self._played.idle, now)

    def get_default_screen(self) -> Screen[None]:
        return PlayScreen(self._recording, self._played, self.clock)

    def _start(self) -> None:
        self._feed.follow("run", PlaySource(self._played, self.clock))
        self._feed.start()
        for note in self._recording.manifest.notes:
            self.notify(safe(note), title="This recording", severity="warning", markup=False, timeout=15)

    def on_moved(self) -> None:
        self._feed.look()

    def on_say(self, message: Say) -> None:
        """Refuses: a recording starts nothing."""
        message.prevent_default()  # what the app does with it elsewhere
        command = Command(message.words, self.project)
        self.notify(f"{REFUSED}\n$ {safe(command)}", severity="warning", markup=False)
