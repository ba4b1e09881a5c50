"""Several views in one panel, of which one is on the screen; the panel's title names them."""

from __future__ import annotations

from collections.abc import Mapping

from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import ContentSwitcher


def title_of(names: Mapping[str, str], current: str) -> Content:
    """The names of views side by side, the one on the screen marked."""
    parts = [
        Content.styled(f" {name} ", "$text-primary bold reverse" if view == current else "$text-muted")
        for view, name in names.items()
    ]
    return Content("").join(parts)


class Views(ContentSwitcher):
    """A panel of views by id, each a widget with that id."""

    DEFAULT_CSS = """
    Views { height: 1fr; }
    """

    class Switched(Message):
        """Another view is on the screen."""

        def __init__(self, view: str) -> None:
            super().__init__()
            self.view = view

    def __init__(self, names: Mapping[str, str], *children: Widget, id: str) -> None:  # noqa: A002
        """``names`` are the views' names by their ids, in their order; the first is on the screen."""
        super().__init__(*children, initial=next(iter(names)), id=id, classes="panel")
        self._names = dict(names)

    def on_mount(self) -> None:
        self.border_title = title_of(self._names, self.shown)

    @property
    def shown(self) -> str:
        """The view on the screen."""
        return self.current or next(iter(self._names))

    def go(self, view: str) -> None:
        """Puts a view on the screen; the focus goes with it where it was in another."""
        focused = self.has_focus_within
        self.current = view
        self.border_title = title_of(self._names, view)
        there = self.query_one(f"#{view}")
        inside = [each for each in (there, *there.query("*")) if each.focusable]
        if focused and inside:
            inside[0].focus()
        self.post_message(self.Switched(view))

    def go_on(self) -> None:
        """Puts the next view on the screen."""
        names = list(self._names)
        self.go(names[(names.index(self.shown) + 1) % len(names)])
