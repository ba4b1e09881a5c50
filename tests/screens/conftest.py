from __future__ import annotations

import io
from collections.abc import Callable, Iterable

import pytest
from rich.console import Console

from screens.blocks import Block
from screens.paint import paint


@pytest.fixture
def painted() -> Callable[[Iterable[Block], int], str]:
    """What blocks look like at a terminal of a width, without its colours."""

    def painted(blocks: Iterable[Block], width: int) -> str:
        file = io.StringIO()
        paint(blocks, Console(file=file, width=width, force_terminal=False, highlight=False, markup=False, emoji=False))
        return "\n".join(line.rstrip() for line in file.getvalue().splitlines())

    return painted


@pytest.fixture(autouse=True)
def _plain_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests decide themselves about what faces read from the environment."""
    for name in ("NO_COLOR", "CI", "COLUMNS", "LINES", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
