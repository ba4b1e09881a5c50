"""Small charts in letters: lines in braille, columns in eighths. Pure: values in, lines of text out.

plotext would do as much; it is a second way of colours and 150 KB of code for what is 80 lines here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.text import Text

from screens.samples import bucket_end

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bits of a braille letter by line (0 to 3) and column (0 and 1)."""

_EIGHTHS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Line:
    """A series of a line chart: its name, its values (None: no point there), and its style."""

    name: str
    values: Sequence[float | None]
    style: str = ""


def line_chart(lines: Sequence[Line], width: int, height: int, show: Callable[[float], str]) -> list[Text]:
    """The series over their index, newest at the right, from 0 to the greatest value, which ``show`` writes.

    The last line names the series. Empty where there is no value or no room.
    """
    top = max((value for line in lines for value in line.values if value is not None), default=0.0)
    label = max(len(show(top)), 1)
    columns, rows = width - label - 1, height - 1
    if top <= 0 or columns < 4 or rows < 2:
        return []
    cells = [[0] * columns for _ in range(rows)]
    styles = [[""] * columns for _ in range(rows)]
    for line in lines:
        for x, value in enumerate(line.values[-2 * columns :]):
            if value is not None:
                y = min(int((1 - value / top) * (rows * 4 - 1) + 0.5), rows * 4 - 1)
                cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
                styles[y // 4][x // 2] = line.style
    marks = {0: show(top), rows - 1: "0"}
    painted = []
    for y in range(rows):
        text = Text(f"{marks.get(y, ''):>{label}} ", style="dim", no_wrap=True)
        for bits, style in zip(cells[y], styles[y], strict=True):
            text.append(chr(0x2800 + bits) if bits else " ", style=style)
        painted.append(text)
    return [*painted, legend(lines, label + 1)]


def legend(lines: Sequence[Line], indent: int) -> Text:
    """The names of series in their styles."""
    text = Text(" " * indent, no_wrap=True)
    for line in lines:
        text.append(f"{line.name}  ", style=line.style)
    return text


def columns(histogram: Sequence[tuple[int, int]], width: int, height: int, show: Callable[[float], str]) -> list[Text]:
    """A histogram of ``(lower bound, count)`` over a logarithmic axis, its ends written by ``show``."""
    if not histogram or width < 8 or height < 3:
        return []
    low, high = math.log(max(histogram[0][0], 1)), math.log(bucket_end(histogram[-1][0]))
    heights = [0.0] * width
    for bound, count in histogram:
        first, last = (
            min(int((math.log(max(edge, 1)) - low) / (high - low) * width), width - 1)
            for edge in (bound, bucket_end(bound))
        )
        for x in range(first, max(last, first + 1)):
            heights[x] += count
    rows, top = height - 1, max(heights)
    painted = []
    for row in range(rows, 0, -1):
        eighths = [min(max(math.ceil(count / top * rows * 8) - (row - 1) * 8, 0), 8) for count in heights]
        painted.append(Text("".join(_EIGHTHS[each] for each in eighths), no_wrap=True))
    least, most = show(float(histogram[0][0])), show(float(histogram[-1][0]))
    return [*painted, Text(f"{least}{most:>{max(width - len(least), 0)}}", style="dim", no_wrap=True)]


def bar(share: float, width: int) -> str:
    """A bar of ``share`` (0 to 1) of ``width`` letters."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    whole = "█" * (eighths // 8)
    part = _EIGHTHS[eighths % 8] if eighths % 8 else ""
    return f"{whole}{ {'▁': '▏', '▂': '▎', '▃': '▍', '▄': '▌', '▅': '▋', '▆': '▊', '▇': '▉'}.get(part, '') }"


def spark(values: Sequence[float], width: int, top: float = 100.0) -> str:
    """The newest ``width`` of the values as columns of one line, from 0 to ``top``; the newest at the right."""
    newest = list(values)[-width:] if width > 0 else []
    return "".join(_EIGHTHS[1 + min(max(round(value / top * 7), 0), 7)] for value in newest).rjust(max(width, 0))
