"""Lines of a log as rows of a screen, and what is said of them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.cells import chop_cells

from screens import log_file
from screens.log_file import Line, Matches, Page
from screens.words import size

TROUBLE = re.compile(log_file.TROUBLE, re.IGNORECASE)
"""What a line has that is painted as trouble."""


def wrapped(line: Line, width: int) -> list[Line]:
    """A line in rows of ``width``."""
    text = line.text
    if text.isascii():
        pieces = [text[start : start + width] for start in range(0, len(text), width)] or [""]
    else:
        pieces = chop_cells(text, width)
    return [Line(line.offset, piece) for piece in pieces]


def hits(wanted: re.Pattern[bytes], text: str) -> Iterator[tuple[int, int]]:
    """Where ``text`` has ``wanted``, in letters."""
    raw = text.encode(errors="replace")
    for match in wanted.finditer(raw):
        start = len(raw[: match.start()].decode(errors="replace"))
        yield start, start + len(match[0].decode(errors="replace"))


def amount(window: Page, matches: Matches | None, wanted: str, *, scanning: bool) -> str:
    """How much there is of a log, or of the lines that a filter keeps; "" where there is nothing."""
    if matches is None:
        return size(window.size) if window.size else ""
    kept = len(matches.lines)
    many = f"the last {kept:,} of {matches.count:,}" if matches.count > kept else f"{kept:,}"
    far = f", {100 * window.end // max(window.size, 1)} % looked through" if scanning else ""
    return f"{many} lines with “{wanted}”{far}"
