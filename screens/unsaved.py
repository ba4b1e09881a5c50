"""What one has written and not saved is neither lost nor left out unasked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.screen import Screen

from screens.stage import Stage


def before_leaving(screen: Screen[Any], leave: Callable[[], object]) -> None:
    """Calls ``leave``; where a stage of ``screen`` has something unsaved, after it is saved or discarded, as chosen."""
    _ask(screen, leave, "Discard", lambda stage: stage.discard())


def when_saved(screen: Screen[Any], go: Callable[[], object], without: str) -> None:
    """Calls ``go``; where a stage of ``screen`` has something unsaved, after it is saved, or ``without`` is chosen."""
    _ask(screen, go, without, lambda _: None)


def _ask(screen: Screen[Any], go: Callable[[], object], without: str, give_up: Callable[[Stage], None]) -> None:
    stage = next((each for each in screen.query(Stage) if each.unsaved), None)
    if stage is None:
        go()
        return

    def answered(answer: str | None) -> None:
        if answer == "without":
            give_up(stage)
        if answer == "without" or answer == "save" and stage.save():
            go()

    from screens.question import Question

    asked = f"{stage.recipe} has changes that are not saved."
    screen.app.push_screen(Question("Not saved", asked, {"save": "Save", "without": without}), answered)
