"""The moving display of a run at a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from screens import paint, progress
from workbench.events import AnyEvent, Note, RunState, StepNote

REPAINT_SECONDS = 0.1
"""Least time between two paintings: ten a second look smooth, more cost the machine that is measured on."""

TICK_SECONDS = 1.0
"""Time after which the display is painted though nothing happened, for its clocks."""

_LINES_AROUND = 3
"""Lines that are no step: the title, and what the shell writes after."""


class Pacer:
    """Says when to paint: at once where something is new and the last painting is long enough ago, else for clocks."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._painted = float("-inf")

    def due(self, changed: bool) -> bool:
        """Whether to paint now; counts as painted where so."""
        now = self._clock()
        if now - self._painted < (REPAINT_SECONDS if changed else TICK_SECONDS):
            return False
        self._painted = now
        return True


def frame(state: RunState, now: float, height: int) -> Group:
    """The display: a title and a line a step, no more than ``height`` lines."""
    steps, before, after = progress.window(state, max(height - _LINES_AROUND, 3))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0), expand=True)
    table.add_column(no_wrap=True, min_width=11)
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(no_wrap=True, justify="right", min_width=6)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for step in steps:
        table.add_row(*(paint.text(cell) for cell in progress.step_row(step, now)))
    lines = [Padding(table, (0, 0, 0, 2))]
    if before:
        lines.insert(0, _left_out(before, "before"))
    if after:
        lines.append(_left_out(after, "after"))
    title = paint.text(progress.title(state, now))
    title.no_wrap, title.overflow = True, "ellipsis"
    return Group(title, *lines)


def _left_out(count: int, where: str) -> Padding:
    return Padding(Text(f"… {count} steps {where}", style="dim"), (0, 0, 0, 2))


class Display:
    """Shows a run on ``console`` while it goes on. Use as a context manager; all steps stay standing at its end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pacer = Pacer()
        self.state = RunState()
        self._changed = False
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def __enter__(self) -> Display:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.update(frame(self.state, time.time(), len(self.state.steps) + 2 * _LINES_AROUND))
        self._live.stop()

    def see(self, state: RunState, event: AnyEvent | None) -> None:
        """Takes a new state in. Notes stay above the display."""
        self.state, self._changed = state, True
        if isinstance(event, Note | StepNote):
            for line in progress.quiet(event):
                self._console.print(Text(line, style="yellow", overflow="fold"))
        self.tick()

    def wait(self, seconds: float) -> None:
        """Sleeps between two looks at the run, painting where it is time."""
        self.tick()
        time.sleep(seconds)

    def tick(self) -> None:
        """Paints where it is time."""
        if self._pacer.due(self._changed):
            self._changed = False
            self._live.update(frame(self.state, time.time(), self._console.height), refresh=True)
