"""A text that is not saved yet, kept so that a closed terminal or a lost connection does not take it along."""

from __future__ import annotations

import contextlib
from pathlib import Path
from urllib.parse import quote

from workbench.document import read_text
from workbench.errors import WorkbenchError
from workbench.store import Store, write_atomically


class Draft:
    """The draft of the file ``name`` of a project, in the project's folder of ours, which git does not see."""

    def __init__(self, project: Path, name: str) -> None:
        self._ours = project / ".workbench"
        self._path = self._ours / "drafts" / quote(name, safe="")

    def keep(self, text: str) -> None:
        """Keeps ``text``; where that fails there is no draft, and the text is still on the screen."""
        with contextlib.suppress(WorkbenchError, OSError):
            Store(self._ours).create()
            self._path.parent.mkdir(exist_ok=True)
            write_atomically(self._path, text.encode())

    def drop(self) -> None:
        """Forgets it."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def kept(self) -> str | None:
        """The text that was kept; None where there is none."""
        try:
            return read_text(self._path)
        except WorkbenchError:
            return None
