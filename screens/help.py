"""``?``: every key of the screen below, with what it does."""

from __future__ import annotations

from collections.abc import Iterable

from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from screens.blocks import aligned
from screens.keys import shown_key


def help_text(bindings: Iterable[Binding]) -> str:
    """The keys as a list, grouped by where they belong (the first part of their ids)."""
    groups: dict[str, list[list[str]]] = {}
    for binding in bindings:
        if binding.id:
            group = binding.id.partition(".")[0]
            groups.setdefault(group, []).append([shown_key(binding), binding.description, binding.tooltip])
    lines = []
    for group, rows in groups.items():
        lines += [group.capitalize(), *(f"  {line}" for line in aligned(rows)), ""]
    return "\n".join(lines)


class HelpScreen(ModalScreen[None]):
    """The keys of a screen; any of its own keys closes it."""

    BINDINGS = [Binding("escape,question_mark,q", "dismiss", "Close", id="help.close", tooltip="close the help")]
    DEFAULT_CSS = """
    HelpScreen {
        align: center middle;
        VerticalScroll {
            width: auto; max-width: 90%; height: auto; max-height: 90%;
            border: round $primary; padding: 0 1; background: $surface;
        }
        Static { width: auto; }
    }
    """

    def __init__(self, active: Iterable[ActiveBinding]) -> None:
        super().__init__()
        self._text = help_text(dict.fromkeys(each.binding for each in active))

    def compose(self) -> ComposeResult:
        with VerticalScroll() as box:
            box.border_title = "Keys"
            yield Static(self._text, markup=False)
