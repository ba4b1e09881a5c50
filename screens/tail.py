"""The end of a log that may be large and may grow."""

from __future__ import annotations

import os
from pathlib import Path

from screens.words import safe

SHOWN_BYTES = 64 << 10
"""What of a log's end is read: a screenful many times over, and nothing to wait for with a log of 500 MB."""


def tail(path: Path, limit: int = SHOWN_BYTES) -> tuple[list[str], bool]:
    """The last whole lines of a file within ``limit`` bytes, made safe to show, and whether more lie before.

    No lines where there is no file.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit))
            data = file.read(limit)
    except FileNotFoundError:
        return [], False
    cut = size > limit
    lines = data.decode(errors="replace").split("\n")
    if cut:
        lines = lines[1:] or lines  # the first is the end of a line
    # A carriage return paints a line anew at a terminal: its last state is what stands there.
    return [safe(line.rstrip("\r").rpartition("\r")[2]) for line in (lines[:-1] if lines[-1] == "" else lines)], cut
