"""The clock of a recording: paused or not, faster or slower, set to any moment. Seconds since the recording's begin."""

from __future__ import annotations

import itertools
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

SLOWEST, FASTEST = 0.25, 64.0

IDLE_SECONDS = 4.0
"""Nothing new for longer than this is a gap; where gaps are shortened, each takes a second."""

SHORTENED_SECONDS = 1.0


def gaps(times: Iterable[float]) -> tuple[tuple[float, float], ...]:
    """The spans between two of ``times`` (in order) in which nothing happened for longer than :data:`IDLE_SECONDS`."""
    return tuple((a, b) for a, b in itertools.pairwise(times) if b - a > IDLE_SECONDS)


class Course:
    """How much of a recording has passed after so much playing: the same, or less time in its gaps."""

    def __init__(self, spans: Iterable[tuple[float, float]] = ()) -> None:
        """``spans`` are the gaps that are to be shortened, in order."""
        self._recorded, self._played = [0.0], [0.0]
        for begin, end in spans:
            at = self._played[-1] + begin - self._recorded[-1]
            self._recorded += [begin, end]
            self._played += [at, at + SHORTENED_SECONDS]

    def recorded(self, played: float) -> float:
        """The moment of the recording after ``played`` seconds at normal speed."""
        return _along(self._played, self._recorded, played)

    def played(self, recorded: float) -> float:
        """Seconds of playing at normal speed until a moment of the recording."""
        return _along(self._recorded, self._played, recorded)


def _along(these: list[float], those: list[float], value: float) -> float:
    at = max(bisect_right(these, value) - 1, 0)
    if at + 1 == len(these):
        return those[at] + value - these[at]
    share = (value - these[at]) / (these[at + 1] - these[at])
    return those[at] + share * (those[at + 1] - those[at])


@dataclass(frozen=True)
class _Set:
    """How the clock was set last: replaced whole, so that the feed's thread reads all of it or the one before."""

    played: float
    since: float
    speed: float
    running: bool
    course: Course


class PlayClock:
    """Goes from 0 to ``length`` and stays there."""

    def __init__(
        self,
        length: float,
        speed: float = 1.0,
        idle: tuple[tuple[float, float], ...] = (),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``idle`` are the gaps that may be shortened; ``now`` tells the real time in seconds."""
        self.length = length
        self._idle = idle
        self._now = now
        self._set = _Set(0.0, now(), _in_range(speed), running=True, course=Course())
        self.shortened = False

    @property
    def position(self) -> float:
        """The moment of the recording that is shown."""
        return min(self._set.course.recorded(self._played), self.length)

    @property
    def _played(self) -> float:
        at = self._set
        return at.played + (self._now() - at.since) * at.speed if at.running else at.played

    @property
    def speed(self) -> float:
        """Seconds of the recording in a second."""
        return self._set.speed

    @property
    def playing(self) -> bool:
        """Whether it goes on by itself."""
        return self._set.running and not self.ended

    @property
    def ended(self) -> bool:
        """Whether it is at the end."""
        return self.position >= self.length

    def toggle(self) -> None:
        """Goes on or stops; at the end it begins again."""
        if self.ended:
            self._put(0.0, running=True)
        else:
            self._put(self.position, running=not self._set.running)

    def seek(self, position: float) -> None:
        """Goes to a moment of the recording, the nearest that there is. What was at the end goes on when set back."""
        self._put(min(max(position, 0.0), self.length))

    def seek_by(self, seconds: float) -> None:
        """Goes so much forth, or back where it is negative."""
        self.seek(self.position + seconds)

    def change_speed(self, factor: float) -> None:
        """Plays so many times as fast, as far as it goes."""
        self._put(self.position, speed=_in_range(self.speed * factor))

    def shorten(self) -> int:
        """Shortens gaps from now on, or no longer; how many there are."""
        self.shortened = not self.shortened
        self._put(self.position, course=Course(self._idle if self.shortened else ()))
        return len(self._idle)

    def _put(self, position: float, **changed: object) -> None:
        course = changed.get("course", self._set.course)
        assert isinstance(course, Course)
        self._set = replace(self._set, played=course.played(position), since=self._now(), **changed)  # type: ignore[arg-type]


def _in_range(speed: float) -> float:
    return min(max(speed, SLOWEST), FASTEST)
