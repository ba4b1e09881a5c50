"""Plots as SVG that take the page's colours: axes with round values, lines, columns, points with intervals.

A plot is drawn for its :data:`WIDTH` and scales with the page. Coordinates are whole: same figures, same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from screens.html import el
from screens.pareto import Scale

WIDTH, HEIGHT = 480, 264
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 30, 42
_LETTER = 7
"""How wide a letter of a plot is at most."""

Show = Callable[[float], str]


@dataclass(frozen=True)
class Frame:
    """The field of a plot: what lies along its axes, in the figures' own units."""

    x: Scale
    y: Scale
    height: int = HEIGHT

    def across(self, value: float) -> int:
        return LEFT + self.x.place(value, WIDTH - LEFT - RIGHT + 1)

    def up(self, value: float) -> int:
        return self.height - BOTTOM - self.y.place(value, self.height - TOP - BOTTOM + 1)

    def axes(self, x_title: str, y_title: str, x_show: Show, y_show: Show) -> list[Element]:
        """Round values along both axes with lines in the field, and what is along them."""
        bottom, right = self.height - BOTTOM, WIDTH - RIGHT
        drawn = []
        for value in self.y.ticks(max((self.height - TOP - BOTTOM) // 30, 3)):
            y = self.up(value)
            drawn.append(el("line", x1=LEFT, x2=right, y1=y, y2=y, class_="grid"))
            drawn.append(el("text", y_show(value), x=LEFT - 7, y=y + 4, text_anchor="end"))
        end = 0
        for value in self.x.ticks(6):
            x, text = self.across(value), x_show(value)
            half = len(text) * _LETTER // 2
            drawn.append(el("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="axis"))
            if x - half > end:
                drawn.append(el("text", text, x=min(x, WIDTH - half), y=bottom + 17, text_anchor="middle"))
                end = x + half + _LETTER
        drawn.append(el("line", x1=LEFT, x2=right, y1=bottom, y2=bottom, class_="axis"))
        x_title += " (log)" if self.x.log else ""
        drawn.append(el("text", x_title, x=right, y=self.height - 6, text_anchor="end", class_="title"))
        if y_title:
            drawn.append(el("text", y_title, x=0, y=12, class_="title"))
        return drawn


def plot(title: str, parts: Sequence[Element], height: int = HEIGHT) -> Element:
    """The parts as one picture; ``title`` is what it says to those who cannot see it."""
    return el(
        "svg",
        el("title", title),
        *parts,
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
        class_="plot",
    )


def path(points: Sequence[tuple[int, int] | None], class_: str) -> Element:
    """A line through ``points``, broken where there is none. A point alone between two gaps is a short stroke."""
    said, gap = [], True
    for point in points:
        if point is not None:
            said.append(f"{'M' if gap else 'L'}{point[0]} {point[1]}")
        gap = point is None
    return el("path", d="".join(_stroke(each) for each in _parts(said)), class_=class_)


def _parts(said: Sequence[str]) -> list[list[str]]:
    found: list[list[str]] = []
    for each in said:
        if each.startswith("M"):
            found.append([])
        found[-1].append(each)
    return found


def _stroke(part: Sequence[str]) -> str:
    return "".join(part) + ("h1" if len(part) == 1 else "")
