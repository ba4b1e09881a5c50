"""A run that is over by time: how it stood at any moment, found again fast, in bounded memory however long it was."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from workbench.errors import UsageError
from workbench.events import AnyEvent, Note, RunState, StepFailed, StepFinished, StepNote, StepStarted, decode, reduce

SPACING = 32
"""Events between two states that are kept, at first: 10 ms of reducing, measured."""

MOST_MARKS = 512
"""States that are kept; where there would be more, every second one is dropped and the spacing doubled."""

MOST_STEPS, MOST_NOTES = 1000, 20_000
LONGEST, LATEST = 30 * 86_400.0, 4e9
"""What a run of strangers may have at most: steps, notes, seconds, and seconds since the epoch."""


LINE_BYTES = 4 << 20
"""The longest line."""


def lines(path: Path, offset: int = 0) -> Iterator[bytes]:
    """The lines of a file from ``offset`` (a line's begin) on. Raises UsageError where one is longer than they are."""
    with path.open("rb") as file:
        file.seek(offset)
        while line := file.readline(LINE_BYTES):
            if len(line) == LINE_BYTES:
                raise odd(f"a line of {path.name} has more than {LINE_BYTES} bytes")
            yield line


class Mark(NamedTuple):
    """A state, the time from which on it holds, and where in the file the events after it begin."""

    time: float
    offset: int
    state: RunState


class Timeline:
    """The events of a run by time. A clock that was set back meanwhile counts as one that stood still."""

    def __init__(self, path: Path) -> None:
        """Reads the events at ``path``. Raises UsageError where they are no run's."""
        self._path = path
        self._marks = [Mark(0.0, 0, RunState())]
        self._at = self._marks[0]
        self.times = array("d")
        """When something happened, in seconds since the epoch, in order."""
        self.steps: dict[str, tuple[float, float]] = {}
        """When each step that ran started and ended, in the order of their starts."""
        try:
            self._read()
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise odd(f"its events cannot be read: {error}") from None

    @property
    def begin(self) -> float:
        """When the run began, in seconds since the epoch."""
        return self.times[0]

    @property
    def end(self) -> float:
        """When the last thing happened."""
        return self.times[-1]

    def state(self, time: float) -> RunState:
        """How the run stood at ``time``; the same object as long as nothing happens."""
        kept = self._marks[max(bisect_right(self._marks, time, key=lambda mark: mark.time) - 1, 0)]
        if self._at.time > time or self._at.offset < kept.offset:
            self._at = kept
        for mark, _ in self._after(self._at, time):
            self._at = mark
        return self._at.state

    def _after(self, mark: Mark, until: float) -> Iterator[tuple[Mark, AnyEvent]]:
        """The events after ``mark`` until ``until``, each with the mark after it."""
        for line in lines(self._path, mark.offset):
            event = decode(line)
            when = max(mark.time, event.time)
            if when > until:
                return
            mark = Mark(when, mark.offset + len(line), reduce(mark.state, event))
            yield mark, event

    def _read(self) -> None:
        """Goes through all events once: times, steps, and the states that are kept."""
        spacing, notes = SPACING, 0
        for count, (mark, event) in enumerate(self._after(self._marks[0], float("inf")), 1):
            notes += isinstance(event, Note | StepNote)
            if len(mark.state.steps) > MOST_STEPS or notes > MOST_NOTES:
                raise odd(f"it has more than {MOST_STEPS} steps or {MOST_NOTES} notes")
            self.times.append(mark.time)
            if isinstance(event, StepStarted):
                self.steps[event.step] = (mark.time, mark.time)
            elif isinstance(event, StepFinished | StepFailed) and event.step in self.steps:
                self.steps[event.step] = (self.steps[event.step][0], mark.time)
            if count % spacing == 0:
                self._marks.append(mark)
            if len(self._marks) > MOST_MARKS:
                del self._marks[1::2]
                spacing *= 2
        if not self.times:
            raise odd("nothing happened in it")
        if not (self.begin > 0 and self.end < LATEST and self.end - self.begin <= LONGEST):
            raise odd("its times are none")


def odd(why: str) -> UsageError:
    """The error of a recording that holds what no run leaves."""
    return UsageError(f"The recording's run cannot be shown: {why}.", "Record it anew: workbench record RUN -o FILE")
