"""What variants cost against each other, as a plot in letters: one figure across, one up, less of each is better."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from screens.blocks import Cell, Tone

Interval = tuple[float, float]
Line = tuple[Cell, ...]
"""A line of the plot, in runs of one tone."""

GLYPHS = {"chosen": "◆", "original": "○", "": "●"}
LEGEND = "◆ chosen  ○ original  ● variant  ╌ front"
_WIDE_RATIO = 30.0
"""From here on figures stand on a logarithmic axis: on a linear one the small ones would fall together."""


@dataclass(frozen=True)
class Point:
    """A variant: its two figures with their intervals, and what is special about it."""

    name: str
    x: float
    y: float
    x_interval: Interval | None = None
    y_interval: Interval | None = None
    mark: Literal["", "chosen", "original"] = ""


@dataclass(frozen=True)
class Axis:
    """What is along an axis: its title with the unit, and how much one of the unit is in the figures' own."""

    title: str
    scale: float = 1.0


@dataclass(frozen=True)
class Scale:
    """The range of an axis."""

    low: float
    high: float
    log: bool = False

    def place(self, value: float, cells: int) -> int:
        """The cell of ``cells`` that a value is in."""
        low, high, at = (math.log(each) if self.log else each for each in (self.low, self.high, value))
        return min(max(round((at - low) / (high - low) * (cells - 1)), 0), cells - 1)

    def ticks(self, most: int) -> list[float]:
        """At most ``most`` round values within the range; at least one."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for digits in ((1,), (1, 3), (1, 2, 5)):
                every = [digit * 10.0**power for power in powers for digit in digits]
                found = [value for value in every if self.low <= value <= self.high]
                if len(found) >= min(most, 3):
                    break
            return found[:: max(math.ceil(len(found) / most), 1)] or [self.low]
        step = round_step((self.high - self.low) / max(most - 1, 1))
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)][:most]


def round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least ``least``."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(digit * power for digit in (1.0, 2.0, 5.0, 10.0) if digit * power >= least * (1 - 1e-9))


def scale_of(values: Sequence[float]) -> Scale:
    """A range with room for ``values``: from nothing on where that is meaningful, so that lengths are ratios."""
    low, high = min(values), max(values)
    if low > 0 and high / low > _WIDE_RATIO:
        return Scale(low / 1.5, high * 1.5, log=True)
    low, high = min(low, 0.0), max(high, 0.0)
    room = (high - low or 1.0) * 0.1
    return Scale(low - room if low < 0 else 0.0, high + room)


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other equals or beats in both figures, from left to right.

    By the figures themselves: how sure they are, the bars of the intervals say.
    """
    found: list[Point] = []
    for point in sorted(points, key=lambda each: (each.x, each.y)):
        if not found or point.y < found[-1].y:
            found.append(point)
    return found


def beside(points: Sequence[Point], name: str, across: int, up: int) -> str:
    """The name of the next point to the right (``across`` 1) or left (-1), or upwards or downwards."""
    order = sorted(points, key=lambda each: (each.x, each.y) if across else (each.y, each.x))
    names = [each.name for each in order]
    if name not in names:
        return names[0] if names else ""
    return names[min(max(names.index(name) + (across or up), 0), len(names) - 1)]


@dataclass
class _Canvas:
    """Letters with tones on a field of ``width`` by ``height``; row 0 is the lowest."""

    width: int
    height: int
    cells: dict[tuple[int, int], tuple[str, Tone]] = field(default_factory=dict)

    def put(self, column: int, row: int, text: str, tone: Tone) -> None:
        for offset, letter in enumerate(text):
            self.cells[column + offset, row] = letter, tone

    def free(self, column: int, row: int, text: str, over: str) -> bool:
        """Whether ``text`` fits there, over nothing but the letters ``over``."""
        inside = column >= 0 and column + len(text) <= self.width and 0 <= row < self.height
        taken = (self.cells.get((column + offset, row), (" ", "")) for offset in range(len(text)))
        return inside and all(letter in over for letter, _ in taken)

    def line(self, row: int) -> Iterator[Cell]:
        """A row in runs of one tone."""
        run, tone = "", ""
        for column in range(self.width):
            letter, its = self.cells.get((column, row), (" ", ""))
            if its != tone and run:
                yield Cell(run, tone)  # type: ignore[arg-type]
                run = ""
            run, tone = run + letter, its
        yield Cell(run, tone)  # type: ignore[arg-type]


def plot(points: Sequence[Point], across: Axis, up: Axis, width: int, height: int, at: str = "") -> list[Line]:
    """The lines of the plot; the point named ``at`` is the one under the cursor. None where there is no room."""
    if not points or width < 24 or height < 8:
        return []
    xs = scale_of([each / across.scale for point in points for each in (point.x, *(point.x_interval or ()))])
    ys = scale_of([each / up.scale for point in points for each in (point.y, *(point.y_interval or ()))])
    rows = height - 4
    labels = {ys.place(value, rows): f"{value:g}" for value in ys.ticks(max(rows // 2, 2))}
    margin = max(map(len, labels.values()))
    canvas = _Canvas(width - margin - 2, rows)
    _paint(canvas, [_scaled(point, across, up) for point in points], xs, ys, at)
    found: list[Line] = [(Cell(f"{up.title}{' (log)' if ys.log else ''}", "dim"),)]
    for row in reversed(range(rows)):
        tick = "┤" if row in labels else "│"
        found.append((Cell(f"{labels.get(row, ''):>{margin}} {tick}", "dim"), *canvas.line(row)))
    return found + list(_foot(xs, across, margin, canvas.width))


def _scaled(point: Point, across: Axis, up: Axis) -> Point:
    def by(interval: Interval | None, scale: float) -> Interval | None:
        return (interval[0] / scale, interval[1] / scale) if interval else None

    x, y = point.x / across.scale, point.y / up.scale
    return Point(point.name, x, y, by(point.x_interval, across.scale), by(point.y_interval, up.scale), point.mark)


def _paint(canvas: _Canvas, points: Sequence[Point], xs: Scale, ys: Scale, at: str) -> None:
    """The front's line, the bars, the points with the one under the cursor last, and names where they fit."""
    best = front(points)
    places = {each.name: (xs.place(each.x, canvas.width), ys.place(each.y, canvas.height)) for each in points}
    for first, second in itertools.pairwise(best):
        _step(canvas, places[first.name], places[second.name])
    order = sorted(points, key=lambda each: (each.name == at, each.mark == "chosen", each in best))
    tones: dict[str, Tone] = {each.name: "" if each in best else "dim" for each in points}
    tones.update({each.name: "good" for each in points if each.mark == "chosen"})
    tones[at] = "strong"
    for each in order:
        _bars(canvas, each, places[each.name], xs, ys, "dim")
    for each in order:
        canvas.put(*places[each.name], GLYPHS[each.mark], tones[each.name])
    for each in reversed(order):
        _name(canvas, each.name, places[each.name], tones[each.name], at)


def _step(canvas: _Canvas, first: tuple[int, int], second: tuple[int, int]) -> None:
    """Between two points of the front: what lies above and to the right of it is worse in both figures."""
    (left, top), (right, bottom) = first, second
    for column in range(left + 1, right):
        canvas.put(column, top, "╌", "good")
    for row in range(bottom + 1, top):
        canvas.put(right, row, "╎", "good")
    if right > left and top > bottom:
        canvas.put(right, top, "┐", "good")


def _bars(canvas: _Canvas, point: Point, place: tuple[int, int], xs: Scale, ys: Scale, tone: Tone) -> None:
    """The intervals, where they are longer than the point itself."""
    column, row = place
    if point.y_interval:
        low, high = (ys.place(each, canvas.height) for each in point.y_interval)
        for each in range(low, high + 1):
            canvas.put(column, each, "│", tone)
    if point.x_interval:
        low, high = (xs.place(each, canvas.width) for each in point.x_interval)
        for each in range(low, high + 1):
            canvas.put(each, row, "┼" if canvas.cells.get((each, row), ("",))[0] == "│" else "─", tone)


def _name(canvas: _Canvas, name: str, place: tuple[int, int], tone: Tone, at: str) -> None:
    """A point's name beside it, else above or below; that of the one under the cursor in brackets."""
    column, row = place
    text = f"[{name}]" if name == at else name
    centred = min(max(column - len(text) // 2, 0), max(canvas.width - len(text), 0))
    spots = [(column + 2, row), (column - 1 - len(text), row), (centred, row + 1), (centred, row - 1)]
    spot = next((each for over in (" ", " ╌╎┐") for each in spots if canvas.free(*each, text, over)), None)
    if spot is not None:
        canvas.put(*spot, text, tone)


def _foot(xs: Scale, across: Axis, margin: int, width: int) -> Iterator[Line]:
    """The axis across: its line, its values, its title."""
    rule, values = ["─"] * width, [" "] * width
    end = -2
    for value in xs.ticks(max(width // 10, 2)):
        text, column = f"{value:g}", xs.place(value, width)
        start = min(max(column - len(text) // 2, 0), width - len(text))
        if start > end + 1:
            rule[column] = "┬"
            values[start : start + len(text)] = text
            end = start + len(text)
    title = f"{across.title}{' (log)' if xs.log else ''}"
    yield (Cell(f"{' ' * margin} └{''.join(rule)}", "dim"),)
    yield (Cell(f"{' ' * margin}  {''.join(values)}", "dim"),)
    yield (Cell(f"{' ' * margin}  {title:>{width}}", "dim"),)
