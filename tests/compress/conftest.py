"""What a step is given here: a scratch folder of its own, and a listener for what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Listener:
    """An ``Emit`` that keeps the notes."""

    scratch: Path
    notes: list[str] = field(default_factory=list)

    def progress(self, done: float, total: float, text: str = "") -> None:
        assert 0 <= done <= total, text

    def note(self, text: str) -> None:
        self.notes.append(text)

    def sample(self, kind: str, values: Mapping[str, Any]) -> None: ...


@pytest.fixture
def emit(tmp_path: Path) -> Listener:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Listener(scratch)
