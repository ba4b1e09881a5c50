"""A question above the screen, with an answer a button each."""

from __future__ import annotations

from collections.abc import Mapping

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from screens.words import safe


class Question(ModalScreen[str]):
    """Asks; what is chosen is the answer's name, "" where one would rather not. The first answer is at hand."""

    BINDINGS = [
        Binding("escape", "dismiss('')", "Cancel", id="question.cancel", tooltip="leave all as it is"),
        Binding("left", "app.focus_previous", "Before", id="question.before", tooltip="the answer before", show=False),
        Binding("right", "app.focus_next", "Next", id="question.next", tooltip="the next answer", show=False),
    ]
    DEFAULT_CSS = """
    Question {
        align: center middle;
        #question {
            width: 70; max-width: 96%; height: auto; padding: 0 1;
            border: round $warning; border-title-color: $text-warning; background: $surface;
        }
        #asked { height: auto; }
        #answers { height: 1; margin-top: 1; align-horizontal: right; }
        Button { margin-left: 2; }
    }
    """

    def __init__(self, title: str, asked: str, answers: Mapping[str, str]) -> None:
        """``answers`` are the buttons' texts by the answers' names."""
        super().__init__()
        self._title = title
        self._asked = asked
        self._answers = dict(answers)

    def compose(self) -> ComposeResult:
        with Vertical(id="question") as box:
            box.border_title = safe(self._title)
            yield Static(safe(self._asked), id="asked", markup=False)
            with Horizontal(id="answers"):
                for at, (name, text) in enumerate(self._answers.items()):
                    yield Button(text, id=name, compact=True, variant="default" if at else "primary")
                yield Button("Cancel", id="cancel", compact=True)

    @on(Button.Pressed)
    def _chosen(self, event: Button.Pressed) -> None:
        self.dismiss("" if event.button.id == "cancel" else event.button.id)
