"""A form above the screen that ends in one command: shown as it will be said, its error where the form is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Select, Static

from screens.command import Answer, Command
from screens.words import safe

_PAUSE_SECONDS = 0.25
"""How long the form has to be left alone before a process is started that looks at what it would do."""


@dataclass(frozen=True)
class Carried:
    """A command that was carried out from a form, and how it ended."""

    command: Command
    answer: Answer


class Unanswered(ValueError):
    """What a form still waits for, in a sentence: nothing is wrong yet."""


def _change(answer: Answer) -> str:
    """What a dry run would change: its difference without the head, which names the file and the line."""
    _, found, lines = answer.stdout.partition("\n@@")
    return lines.partition("\n")[2] if found else answer.stdout or "Nothing would change."


class Field(Horizontal):
    """A named line of a form."""

    DEFAULT_CSS = """
    Field {
        height: auto;
        Label { width: 14; color: $text-muted; }
        Input, Select { width: 1fr; }
    }
    """

    def __init__(self, name: str, widget: Input | Select[str]) -> None:
        super().__init__(Label(name), widget, id=f"{widget.id}-field")


class Dialog(ModalScreen[Carried | None]):
    """What is asked, and the command it comes to. A subclass gives :meth:`fields` and :meth:`words`."""

    BINDINGS = [
        Binding("escape", "leave", "Cancel", id="form.cancel", tooltip="close the form; nothing is changed"),
        Binding("ctrl+s", "carry_out", "Do it", id="form.do", tooltip="carry out the command that the form shows"),
    ]
    DEFAULT_CSS = """
    Dialog {
        align: center middle;
        #form {
            width: 76; max-width: 96%; height: auto; max-height: 96%;
            border: round $primary; border-title-color: $text-primary; padding: 0 1; background: $surface;
        }
        #fields { height: auto; max-height: 1fr; }
        #form-command { color: $text-muted; height: auto; max-height: 4; margin-top: 1; }
        #form-said-scroll { height: auto; max-height: 12; }
        #form-said { height: auto; }
        #form-said.bad { color: $text-error; }
        #buttons { height: 1; margin-top: 1; align-horizontal: right; }
        Button { margin-left: 2; }
    }
    """
    ASKS = ""
    DOES = "Do it"
    LOOKS: tuple[str, ...] = ()
    """Words with which the command tells what it would do, while the form is filled."""

    def __init__(self, project: Path) -> None:
        super().__init__()
        self.project = project
        self._at_work = False

    def fields(self) -> ComposeResult:
        """What is asked."""
        yield from ()

    def words(self) -> tuple[str, ...]:
        """The words after ``workbench``. Raises ValueError, a sentence, where the form says nothing usable yet."""
        raise NotImplementedError

    def preview(self) -> ComposeResult:
        """What shows the answer of a look, where a few lines of text do not."""
        yield from ()

    def looked(self, answer: Answer) -> None:
        """Shows what the command would do."""
        self.say(_change(answer) if answer.exit_code == 0 else answer.stderr, bad=answer.exit_code != 0)

    def compose(self) -> ComposeResult:
        with Vertical(id="form") as form:
            form.border_title = self.ASKS
            with VerticalScroll(id="fields", can_focus=False):
                yield from self.fields()
            yield Static(id="form-command", markup=False)
            with VerticalScroll(id="form-said-scroll", can_focus=False):
                yield Static(id="form-said", markup=False)
            yield from self.preview()
            with Horizontal(id="buttons"):
                yield Button("Cancel", id="cancel", compact=True)
                yield Button(self.DOES, id="do", compact=True, variant="primary")

    def on_mount(self) -> None:
        self.changed()

    @on(Input.Changed)
    @on(Select.Changed)
    def changed(self) -> None:
        """Shows the command that the form comes to now, or what is missing."""
        try:
            words = self.words()
        except ValueError as error:
            self.workers.cancel_group(self, "look")
            self._show_command("")
            self.say(str(error), bad=not isinstance(error, Unanswered))
            return
        self._show_command(str(Command(words, self.project)))
        self.say("")
        if self.LOOKS:
            self._look(words)

    @work(exclusive=True, group="look")
    async def _look(self, words: tuple[str, ...]) -> None:
        await asyncio.sleep(_PAUSE_SECONDS)
        answer = await Command((*words, *self.LOOKS), self.project).answer()
        if not self._at_work:
            self.looked(answer)

    @on(Input.Submitted)
    @on(Button.Pressed, "#do")
    def action_carry_out(self) -> None:
        if self._at_work:
            return
        try:
            words = self.words()
        except ValueError as error:
            self.say(str(error), bad=True)
            return
        self._at_work = True
        self.workers.cancel_group(self, "look")
        self._carry_out(Command(words, self.project))

    @work(group="carry-out")
    async def _carry_out(self, command: Command) -> None:
        """Carries it out; the form stays where it failed, with what the command had to say."""
        self.say("at it …")
        answer = await command.answer()
        self._at_work = False
        if answer.exit_code == 0:
            self.dismiss(Carried(command, answer))
        else:
            self.say(answer.stderr.strip() or answer.stdout.strip() or f"It ended with {answer.exit_code}.", bad=True)

    @on(Button.Pressed, "#cancel")
    def action_leave(self) -> None:
        if not self._at_work:
            self.dismiss(None)

    def say(self, text: str, *, bad: bool = False) -> None:
        """Shows a text below the form."""
        said = self.query_one("#form-said", Static)
        said.set_class(bad, "bad")
        said.update("\n".join(map(safe, text.rstrip().splitlines())))

    def _show_command(self, command: str) -> None:
        self.query_one("#form-command", Static).update(f"$ {safe(command)}" if command else "")
        self.query_one("#do", Button).disabled = not command
