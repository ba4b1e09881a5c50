"""The plot of variants as a widget that the arrow keys walk in."""

from __future__ import annotations

from collections.abc import Sequence

from textual.binding import Binding
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from screens.pareto import Axis, Line, Point, beside, plot
from screens.stage_bar import TONES


def painted(lines: Sequence[Line]) -> Content:
    """Lines in the theme's colours."""
    return Content("\n").join(
        Content("").join(Content.styled(cell.text, TONES[cell.tone]) for cell in line) for line in lines
    )


class ParetoView(Static, can_focus=True):
    """Shows points; the one under the cursor is also the one of the table beside it."""

    BINDINGS = [
        Binding("left", "walk(-1, 0)", "Left", id="plot.left", tooltip="the next variant to the left", show=False),
        Binding("right", "walk(1, 0)", "Right", id="plot.right", tooltip="the next variant to the right", show=False),
        Binding("up", "walk(0, 1)", "Up", id="plot.up", tooltip="the next variant above", show=False),
        Binding("down", "walk(0, -1)", "Down", id="plot.down", tooltip="the next variant below", show=False),
    ]
    DEFAULT_CSS = """
    ParetoView { height: 1fr; width: 1fr; }
    """

    class Walked(Message):
        """The cursor was moved to the point ``name``."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    def __init__(self, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id, markup=False)
        self._shown: tuple[tuple[Point, ...], Axis, Axis, str] = ((), Axis(""), Axis(""), "")
        self._instead = ""

    def show(self, points: Sequence[Point], across: Axis, up: Axis, at: str, instead: str = "") -> None:
        """Shows ``points``, the cursor on ``at``; the sentence ``instead`` where there are none."""
        shown = (tuple(points), across, up, at)
        if (shown, instead) != (self._shown, self._instead):
            self._shown, self._instead = shown, instead
            self._paint()

    def on_resize(self) -> None:
        self._paint()

    def _paint(self) -> None:
        points, across, up, at = self._shown
        lines = plot(points, across, up, self.content_size.width, self.content_size.height, at)
        small = "There is no room for the plot." if points else self._instead
        self.update(painted(lines) if lines else small)

    def action_walk(self, across: int, up: int) -> None:
        points, *_, at = self._shown
        if name := beside(points, at, across, up):
            self.post_message(self.Walked(name))
