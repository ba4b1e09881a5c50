"""A file that grows: what it takes is with the system at once, so a kill loses nothing of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from workbench.errors import UsageError

FRESH = "Say --fresh to score from the first row."


class Appended:
    """The file at ``path``, of which ``size`` bytes count; what was written after them is cut off."""

    def __init__(self, path: Path, size: int) -> None:
        """UsageError where it is shorter than that, OSError where it cannot be written."""
        path.touch()
        self._file = path.open("r+b", buffering=0)
        if self._file.seek(0, os.SEEK_END) < size:
            self._file.close()
            raise UsageError(f"{path} is damaged: it has less than the {size} bytes that were written.", FRESH)
        self._file.truncate(size)
        self.size = self._file.seek(size)

    def write(self, data: Any) -> None:
        """Appends ``data``: bytes, or the memory of an array."""
        left = memoryview(data)
        if not left.nbytes:
            return
        left = left.cast("B")
        self.size += len(left)
        while left:
            left = left[self._file.write(left) or 0 :]

    def sync(self) -> int:
        """Has what was written reach the disk; the size."""
        os.fsync(self._file.fileno())
        return self.size

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
