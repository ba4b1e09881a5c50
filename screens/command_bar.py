"""The lines of every screen that show the exact command behind what was done, and what it had to say."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from screens.command import Answer, Command
from screens.words import safe

SHOWN_LINES = 6
TELLING = frozenset({"export", "report"})
"""Commands whose answer is where something lies now: it stands there when they are done, too."""


class CommandBar(Vertical):
    """The last command and, where it failed, its sentence and cure; of some, what they have made."""

    DEFAULT_CSS = """
    CommandBar {
        height: auto;
        padding: 0 1;
        #command { height: 1; color: $text-muted; }
        #said { display: none; height: auto; max-height: 6; color: $text-warning; }
        #said.-done { color: $text-success; }
    }
    """

    def compose(self) -> ComposeResult:
        yield Static(id="said", markup=False)
        yield Static(id="command", markup=False)

    def show(self, command: Command | str, answer: Answer | None) -> None:
        """Shows a command that was said; ``answer`` is None while it is at work."""
        self.query_one("#command", Static).update(f"$ {command}" if command else "")
        said = self.query_one("#said", Static)
        lines = []
        if answer is not None and answer.exit_code:
            lines = (answer.stderr.strip() or answer.stdout.strip()).splitlines()
        elif answer is not None and isinstance(command, Command) and command.words[0] in TELLING:
            lines = answer.stdout.splitlines()
        said.set_class(answer is not None and not answer.exit_code, "-done")
        said.display = bool(lines)
        said.update("\n".join(map(safe, lines[-SHOWN_LINES:])))
