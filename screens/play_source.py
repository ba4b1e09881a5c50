"""A recorded run at any moment of it, and at the moment that a play clock shows."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from screens.play_clock import PlayClock, gaps
from screens.sample_track import SampleTrack
from screens.view import RunView
from workbench.recording import Recording
from workbench.runs import marked
from workbench.timeline import LONGEST, Timeline

NOT_YET = """\
This is a recording. The lines of a log have no times: this one is shown when its step has ended.
"""
_NOT_YET_NAME = "not-yet.txt"


class PlayedView(RunView):
    """A run as it stood at some moment of its recording."""

    def log(self, step: str) -> Path:
        """The log of a step that has ended; of one at work what says that it has not."""
        found = self.state.steps.get(step)
        if found is not None and found.status == "running":
            return self.folder / _NOT_YET_NAME
        ended = found is not None and found.status != "waiting" and "\0" not in step
        return super().log(step if ended else "")


class Played:
    """The run of a recording at any moment of it."""

    def __init__(self, recording: Recording) -> None:
        """Reads through its files. Raises UsageError where they are none that a run leaves."""
        self.folder = recording.run
        self._timeline = Timeline(self.folder / "events.jsonl")
        self._samples = SampleTrack(self.folder / "samples.jsonl")
        self.begin = self._timeline.begin
        self.end = self._timeline.end
        self.last = self._timeline.state(self.end)
        if self.last.status == "running":  # it died, and samples may tell more than its last event
            self.end = max(self.end, min(self._samples.end, self.begin + LONGEST))
            self.last = marked(self.last, alive=False)
        (self.folder / _NOT_YET_NAME).write_text(NOT_YET)

    @property
    def length(self) -> float:
        """Seconds from the first event to the end."""
        return self.end - self.begin

    @property
    def steps(self) -> dict[str, tuple[float, float]]:
        """When each step started and ended, in seconds since the begin."""
        return {name: (a - self.begin, b - self.begin) for name, (a, b) in self._timeline.steps.items()}

    @property
    def idle(self) -> tuple[tuple[float, float], ...]:
        """The spans without an event and without a query, in seconds since the begin."""
        happened = sorted(chain(self._timeline.times, self._samples.measured))
        return gaps(time - self.begin for time in happened if time <= self.end)

    def at(self, position: float) -> RunView:
        """The run as it stood so many seconds after its begin."""
        time = self.begin + position
        state = self.last if position >= self.length else self._timeline.state(time)
        return PlayedView(self.folder, state, state.ended or float(int(time)), self._samples.at(time))


class PlaySource:
    """A recorded run as the feed sees it: at every look as it stood when the clock says."""

    def __init__(self, played: Played, clock: PlayClock) -> None:
        self._played = played
        self._clock = clock
        self._last: RunView | None = None

    def advance(self) -> RunView | None:
        """The run as it stood at the moment that is played; None where it is as at the last look."""
        view, last = self._played.at(self._clock.position), self._last
        if last is not None and view.state is last.state and view.now == last.now and view.samples is last.samples:
            return None
        self._last = view
        return view
