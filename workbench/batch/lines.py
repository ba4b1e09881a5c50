"""Lines of a text file, numbered, in pieces, from any place in it."""

from __future__ import annotations

from pathlib import Path

from workbench.batch.values import Position
from workbench.errors import UsageError

MAX_LINE = 16 << 20
"""Bytes of a row at most."""

_BOM = b"\xef\xbb\xbf"


class Lines:
    """The lines of ``path`` that are not blank. ``quoted``: a line goes on where a double quote is open, as in CSV."""

    def __init__(self, path: Path, *, quoted: bool = False) -> None:
        self._path = path
        self._quoted = quoted
        self._file = path.open("rb")
        self.size = path.stat().st_size
        self._offset = 0
        self._number = 0
        """Lines that were read."""

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def position(self) -> dict[str, int]:
        """Where the next line begins."""
        return {"offset": self._offset, "line": self._number}

    def seek(self, position: Position) -> None:
        """Goes on there."""
        self._offset, self._number = position["offset"], position["line"]
        self._file.seek(self._offset)

    def take(self, count: int) -> tuple[list[int], list[bytes]]:
        """The next ``count`` rows, fewer at the end: the number of the line where each begins, and its text."""
        numbers: list[int] = []
        texts: list[bytes] = []
        while len(texts) < count and (text := self._file.readline(MAX_LINE)):
            begin = self._number + 1
            if self._quoted and b'"' in text:
                text = self._whole(text, begin)
            if len(text) == MAX_LINE:
                self._too_long(begin)
            self._number += text.count(b"\n") if text.endswith(b"\n") else text.count(b"\n") + 1
            first = not self._offset
            self._offset += len(text)
            text = text.removeprefix(_BOM) if first else text
            if text := text.rstrip(b"\r\n"):
                numbers.append(begin)
                texts.append(text)
        return numbers, texts

    def _whole(self, text: bytes, begin: int) -> bytes:
        """With the lines that belong to it, as long as a quote is open."""
        parts, quotes, size = [text], text.count(b'"'), len(text)
        while quotes % 2 and (more := self._file.readline(MAX_LINE)):
            parts.append(more)
            quotes += more.count(b'"')
            size += len(more)
            if size >= MAX_LINE:
                self._too_long(begin)
        return b"".join(parts)

    def _too_long(self, number: int) -> None:
        raise UsageError(
            f"{self._path}, line {number}: it goes on for more than {MAX_LINE >> 20} MiB.",
            "A row is one line; a double quote that is opened must be closed.",
        )
