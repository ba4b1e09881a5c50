"""The lines of every screen that show the exact command behind what was done, and what it had to say."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from screens.command import Answer, Command
from screens.words import safe

SHOWN_LINES = 6


class CommandBar(Vertical):
    """The last command and, where it failed, its sentence and cure."""

    DEFAULT_CSS = """
    CommandBar {
        height: auto;
        padding: 0 1;
        #command { height: 1; color: $text-muted; }
        #said { display: none; height: auto; max-height: 6; color: $text-warning; }
    }
    """

    def compose(self) -> ComposeResult:
        yield Static(id="said", markup=False)
        yield Static(id="command", markup=False)

    def show(self, command: Command | str, answer: Answer | None) -> None:
        """Shows a command that was said; ``answer`` is None while it is at work."""
        self.query_one("#command", Static).update(f"$ {command}" if command else "")
        said = self.query_one("#said", Static)
        lines = (answer.stderr.strip() or answer.stdout.strip()).splitlines() if answer and answer.exit_code else []
        said.display = bool(lines)
        said.update("\n".join(map(safe, lines[-SHOWN_LINES:])))
