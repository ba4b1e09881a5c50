"""A log of any size, read in pages of whole lines by offset: what is held of 500 MB are a few hundred KiB of it.

Nothing here is called on the app's own thread (screens.log_view calls it on others), and nothing holds more than a
bounded part of the file.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from screens.words import safe

PAGE_BYTES = 64 << 10
"""What is read at once: a screenful many times over. A longer line is shown in pieces of this size."""

WINDOW_BYTES = 4 * PAGE_BYTES
"""What is held to be scrolled through; beyond it pages come and go."""

LINE_LETTERS = 4096
"""What is shown of a line."""

BLOCK_BYTES = 256 << 10
"""What a search looks through at once: short enough that the app moves on beside it and that it stops at once."""

KEPT_MATCHES = 5000
"""Matching lines that a filter keeps: the last ones."""

FILTER_BLOCKS = 16
"""Blocks that a filter looks through between two repaints."""

TROUBLE = r"\b(error|fatal|failed|failure|traceback|exception|panic|denied|no such file)\b"
"""What the first line of trouble looks like in the logs of builders, pip, apt and Python."""

Stopped = Callable[[], bool]
"""Whether what is under way is no longer wanted."""


@dataclass(frozen=True)
class Line:
    """A line as it is shown, and where it begins in the file."""

    offset: int
    text: str


@dataclass(frozen=True)
class Page:
    """Whole lines of a file: its bytes from ``start`` to ``end``, of ``size`` when they were read.

    The last line of a file is there before its end is written; then ``end`` is where it begins, to be read again.
    """

    start: int = 0
    end: int = 0
    size: int = 0
    lines: tuple[Line, ...] = ()

    @property
    def has_end(self) -> bool:
        """Whether the file's last line is among them."""
        return self.end >= self.size or bool(self.lines) and self.lines[-1].offset >= self.end


def shown(raw: bytes) -> str:
    """A raw line as text that cannot steer the terminal; of one painted anew by carriage returns, its last state."""
    text = raw.decode(errors="replace").rstrip("\r\n").rpartition("\r")[2]
    return safe(text if len(text) <= LINE_LETTERS else f"{text[:LINE_LETTERS]}… ({len(text) - LINE_LETTERS} more)")


def page_at(path: Path, offset: int, limit: int = PAGE_BYTES) -> Page:
    """The lines from ``offset`` (a line's begin) on, of at most ``limit`` bytes. Empty where there is no file."""
    data, size = _read(path, offset, limit)
    raw = _split(data)
    last = offset + len(data) >= size
    if not last and len(raw) > 1 and not raw[-1].endswith(b"\n"):
        raw.pop()
    end = offset + sum(map(len, raw))
    lines = tuple(_lines(raw, offset))
    if last and raw and not raw[-1].endswith(b"\n") and len(raw[-1]) < limit:
        end -= len(raw[-1])
    return Page(offset, end, size, lines)


def page_before(path: Path, offset: int, limit: int = PAGE_BYTES) -> Page:
    """The lines that end at ``offset``, of at most ``limit`` bytes."""
    start = max(0, offset - limit)
    data, size = _read(path, start, offset - start)
    raw = _split(data)
    if start > 0 and len(raw) > 1:
        start += len(raw.pop(0))  # the end of a line that begins before
    return Page(start, start + sum(map(len, raw)), size, tuple(_lines(raw, start)))


def last_page(path: Path, limit: int = PAGE_BYTES) -> Page:
    """The end of a file."""
    size = size_of(path)
    before = page_before(path, size, limit)
    return page_at(path, before.start, 2 * limit)


def joined(first: Page, then: Page, *, keep_end: bool) -> Page:
    """Two pages that lie one after the other as one of at most ``WINDOW_BYTES``, cut at its begin or its end."""
    lines = [line for line in first.lines if line.offset < then.start] + list(then.lines)
    start, end, size = first.start, then.end, max(first.size, then.size)
    if end - start > WINDOW_BYTES and keep_end:
        lines = [line for line in lines if line.offset >= end - WINDOW_BYTES]
        start = lines[0].offset if lines else end
    elif end - start > WINDOW_BYTES:
        rest = [line for line in lines if line.offset >= start + WINDOW_BYTES]
        lines = lines[: len(lines) - len(rest)]
        end = rest[0].offset if rest else end
    return Page(start, end, size, tuple(lines))


def grown(path: Path, window: Page, *, follow: bool) -> Page:
    """``window`` with what the file has grown by, where it is to ``follow`` the end; else only its size."""
    size = size_of(path)
    if size == window.size:
        return window
    if size < window.size or follow and size - window.end > WINDOW_BYTES:
        return last_page(path)
    if not follow:
        return Page(window.start, window.end, size, window.lines)
    return joined(window, page_at(path, window.end, WINDOW_BYTES), keep_end=True)


def next_line(path: Path, offset: int) -> int:
    """Where the line after the one at ``offset`` begins, as far as a page goes."""
    data, _ = _read(path, offset, PAGE_BYTES)
    return offset + (data.find(b"\n") + 1 or len(data))


def line_start(path: Path, offset: int) -> int:
    """Where the line begins that the byte at ``offset`` is in (at most a page before it)."""
    start = max(0, offset - PAGE_BYTES)
    data, _ = _read(path, start, offset - start)
    return start + data.rfind(b"\n") + 1


def size_of(path: Path) -> int:
    """The size of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def pattern(text: str) -> re.Pattern[bytes]:
    """What finds ``text`` as it stands; capitals count where it has some."""
    return re.compile(re.escape(text.encode()), 0 if any(map(str.isupper, text)) else re.IGNORECASE)


def find(path: Path, wanted: re.Pattern[bytes], start: int, stopped: Stopped) -> int | None:
    """Where the first line at or after ``start`` (a line's begin) begins that has ``wanted``; None where none has."""
    for offset, block in _blocks(path, start, stopped):
        if match := wanted.search(block):
            return offset + block.rfind(b"\n", 0, match.start()) + 1
    return None


def find_before(path: Path, wanted: re.Pattern[bytes], end: int, stopped: Stopped) -> int | None:
    """Where the last line begins that has ``wanted`` and ends at or before ``end``."""
    while end > 0 and not stopped():
        begin = max(0, end - BLOCK_BYTES)
        start = line_start(path, begin) if begin else 0
        block, _ = _read(path, start, end - start)
        last = None
        for match in wanted.finditer(block):
            last = match
        if last:
            return start + block.rfind(b"\n", 0, last.start()) + 1
        end = start
    return None


@dataclass
class Matches:
    """The lines of a file that have what a filter wants: the last ``KEPT_MATCHES``, and how many there were."""

    wanted: re.Pattern[bytes]
    lines: deque[Line] = field(default_factory=lambda: deque(maxlen=KEPT_MATCHES))
    count: int = 0
    scanned: int = 0
    """How much of the file has been looked through, in bytes."""

    def scan(self, path: Path, stopped: Stopped) -> Iterator[int]:
        """Looks through what has not been looked through; after each block where it is, in bytes.

        A last line that has not ended is left for the next time.
        """
        for offset, block in _blocks(path, self.scanned, stopped):
            whole = block.rfind(b"\n") + 1 or (len(block) if len(block) >= BLOCK_BYTES else 0)
            self._take(block[:whole], offset)
            self.scanned = offset + whole
            yield self.scanned

    def scan_some(self, path: Path, stopped: Stopped) -> tuple[bool, int]:
        """Looks through some blocks more; whether there is more to look through, and the file's size."""
        for count, _ in enumerate(self.scan(path, stopped), 1):
            if count == FILTER_BLOCKS:
                return True, size_of(path)
        return False, size_of(path)

    def _take(self, block: bytes, offset: int) -> None:
        end = 0
        for match in self.wanted.finditer(block):
            if match.start() < end:
                continue  # another one of the same line
            begin = block.rfind(b"\n", 0, match.start()) + 1
            end = block.find(b"\n", match.start()) + 1 or len(block)
            self.count += 1
            self.lines.append(Line(offset + begin, shown(block[begin : min(end, begin + PAGE_BYTES)])))


def among(lines: Sequence[Line], wanted: re.Pattern[bytes], start: int, *, backwards: bool, skip: bool) -> int | None:
    """The offset of the next of ``lines`` with ``wanted`` from ``start`` on, past that one where ``skip`` says so."""
    found = [line.offset for line in lines if wanted.search(line.text.encode())]
    if backwards:
        return next((offset for offset in reversed(found) if offset < start), None)
    return next((offset for offset in found if offset > start or offset == start and not skip), None)


def _blocks(path: Path, start: int, stopped: Stopped) -> Iterator[tuple[int, bytes]]:
    """The file from ``start`` on in blocks of whole lines, each with its offset; one without a line's end as it is."""
    while not stopped():
        block, size = _read(path, start, BLOCK_BYTES)
        if not block:
            return
        if start + len(block) < size and (cut := block.rfind(b"\n") + 1):
            block = block[:cut]
        yield start, block
        start += len(block)


def _read(path: Path, offset: int, limit: int) -> tuple[bytes, int]:
    """At most ``limit`` bytes from ``offset`` on, and the file's size. Nothing where there is no file."""
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(offset)
            return file.read(limit), size
    except FileNotFoundError:
        return b"", 0


def _split(data: bytes) -> list[bytes]:
    """The lines of ``data`` with their ends: only a newline ends one."""
    return [part for part in re.split(rb"(?<=\n)", data) if part]


def _lines(raw: Iterable[bytes], offset: int) -> Iterator[Line]:
    for each in raw:
        yield Line(offset, shown(each))
        offset += len(each)
