"""The lines that say that this is a recording, of what, and where in it one is; a click goes elsewhere."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.widget import Widget

from screens.play_clock import PlayClock
from screens.words import part, safe
from workbench.events import RunState

PERIOD_SECONDS = 0.25
"""Time between two looks at the clock: as often as the run itself is looked at."""


def named(state: RunState) -> str:
    """What a recording is of: ``digits · 2026-11-24 on AMD EPYC``."""
    day = datetime.datetime.fromtimestamp(state.started, datetime.UTC).strftime("%Y-%m-%d")
    cpu = part(state.machine, "class", "cpu")
    return safe(f"{state.name or state.run} · {day}{f' on {cpu}' if cpu else ''}").replace("\n", " ")


def standing(clock: PlayClock) -> str:
    """Whether it plays, and how fast."""
    state = "■ ended" if clock.ended else "▶ playing" if clock.playing else "❚❚ paused"
    return f"{state} ×{clock.speed:g}{', idle time shortened' if clock.shortened else ''}"  # noqa: RUF001


def digits(seconds: float) -> str:
    """A position: ``1:05``, ``2:00:07``."""
    whole = int(seconds)
    hours = f"{whole // 3600}:" if whole >= 3600 else ""
    return f"{hours}{whole // 60 % 60:0{2 if hours else 1}d}:{whole % 60:02d}"


def track(position: float, length: float, chapters: Iterable[float], width: int) -> Content:
    """A line of ``width`` letters: what is behind, the position, what is before one; a notch where a chapter begins."""
    at = cell_of(position, length, width)
    letters = ["━"] * at + ["●"] + ["─"] * (width - at - 1)
    for chapter in chapters:
        cell = cell_of(chapter, length, width)
        letters[cell] = {"━": "┿", "─": "┼"}.get(letters[cell], letters[cell])
    line = "".join(letters)
    return Content.assemble((line[: at + 1], "$warning"), (line[at + 1 :], "$text-muted"))


def cell_of(position: float, length: float, width: int) -> int:
    """Where on a track of ``width`` letters a position lies."""
    return min(max(int(position / length * width), 0), width - 1) if length > 0 else width - 1


class PlaybackBar(Widget):
    """Two lines: what is played, and how far."""

    DEFAULT_CSS = """
    PlaybackBar { height: 2; padding: 0 1; background: $surface; }
    """

    class Sought(Message):
        """A click on the track: seconds since the begin of the recording."""

        def __init__(self, position: float) -> None:
            super().__init__()
            self.position = position

    def __init__(self, clock: PlayClock, state: RunState, chapters: Iterable[float]) -> None:
        super().__init__()
        self._clock = clock
        self._named = named(state)
        self._chapters = tuple(chapters)
        self._shown = ""

    def on_mount(self) -> None:
        self.set_interval(PERIOD_SECONDS, self.look)

    def look(self) -> None:
        """Paints anew where it is another than before."""
        now = str(self.render())
        if now != self._shown:
            self._shown = now
            self.refresh()

    def render(self) -> Content:
        width = max(self.content_size.width, 20)
        badge = Content.styled(" RECORDING ", "bold reverse $warning")
        right = standing(self._clock)
        room = max(width - len(badge.plain) - len(right) - 2, 0)
        name = self._named if len(self._named) <= room else f"{self._named[: max(room - 1, 0)]}…"
        first = Content.assemble(badge, f" {name:<{room}} ", Content.styled(right, "bold"))
        before, after = self._ends()
        line = track(self._clock.position, self._clock.length, self._chapters, width - len(before) - len(after))
        return Content("\n").join([first, Content.assemble(before, line, after)])

    def _ends(self) -> tuple[str, str]:
        length = digits(self._clock.length)
        return f"{digits(self._clock.position):>{len(length)}} ", f" {length}"

    def on_click(self, event: Click) -> None:
        before, after = self._ends()
        width = max(self.content_size.width, 20) - len(before) - len(after)
        x = event.get_content_offset(self)
        if x is not None and x.y == 1 and 0 <= x.x - len(before) < width:
            self.post_message(self.Sought((x.x - len(before)) / max(width - 1, 1) * self._clock.length))
