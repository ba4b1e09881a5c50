"""A text file opened for writing: not overwritten unseen where somebody else wrote it meanwhile."""

from __future__ import annotations

from pathlib import Path

from workbench.document import read_text
from workbench.errors import UsageError
from workbench.store import write_atomically


class Overtaken(Exception):
    """The file is another than the one that was read."""


class Opened:
    """The file at ``path``: its ``text`` as it was last read or written here, or why there is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.text = ""
        self.problem = ""

    def read(self) -> None:
        """Takes the file in as it is now."""
        try:
            self.text, self.problem = read_text(self._path), ""
        except UsageError as error:
            self.text, self.problem = "", str(error)

    @property
    def overtaken(self) -> bool:
        """Whether the file is another now than the one that was read."""
        now = Opened(self._path)
        now.read()
        return (now.text, now.problem) != (self.text, self.problem)

    def write(self, text: str, *, over: bool = False) -> None:
        """Writes the file as a whole, through a link to what it names.

        Raises Overtaken, unless it is to be written ``over``, where it is another now; MachineLacks where it cannot be
        written.
        """
        if not over and self.overtaken:
            raise Overtaken
        write_atomically(self._path.resolve(), text.encode())
        self.text, self.problem = text, ""
