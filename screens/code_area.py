"""Code on the screen, read or written, its words painted in the theme's colours. No grammar needs installing."""

from __future__ import annotations

from collections.abc import Collection

from rich.text import Text
from textual.widgets import TextArea

from screens.code import Highlight, Kind

_KINDS: tuple[Kind, ...] = ("comment", "key", "string", "number", "word", "added", "removed", "head")


class CodeArea(TextArea):
    """A text area with line numbers; only :attr:`read_only` False lets it be written in."""

    COMPONENT_CLASSES = {f"code--{kind}" for kind in _KINDS} | {"code--problem"}
    DEFAULT_CSS = """
    CodeArea {
        border: none; padding: 0; height: 1fr; background: $background;
        &:focus { border: none; }
        & > .code--comment { color: $text-muted; text-style: italic; }
        & > .code--key { color: $text-primary; text-style: bold; }
        & > .code--string { color: $text-success; }
        & > .code--number { color: $text-warning; }
        & > .code--word { color: $text-accent; }
        & > .code--added { color: $text-success; }
        & > .code--removed { color: $text-error; }
        & > .code--head { color: $text-primary; }
        & > .code--problem { background: $error-muted; text-style: underline; }
    }
    """

    def __init__(self, highlight: Highlight, *, id: str, line_numbers: bool = True) -> None:  # noqa: A002
        super().__init__(
            id=id, read_only=True, show_line_numbers=line_numbers, soft_wrap=False, tab_behavior="indent", theme="css"
        )
        self._highlight = highlight
        self._problems: frozenset[int] = frozenset()

    def mark(self, lines: Collection[int]) -> None:
        """Marks lines (the first is 1) as having problems."""
        if frozenset(lines) != self._problems:
            self._problems = frozenset(lines)
            self._line_cache.clear()
            self.refresh()

    def show(self, text: str) -> None:
        """Shows ``text``; the cursor stays at its line where nothing else is to be shown than before."""
        if text != self.text:
            self.load_text(text)

    def get_line(self, line_index: int) -> Text:
        text = super().get_line(line_index)
        for start, end, kind in self._highlight(text.plain):
            text.stylize(self.get_component_rich_style(f"code--{kind}", partial=True), start, end)
        if line_index + 1 in self._problems:
            text.stylize(self.get_component_rich_style("code--problem", partial=True))
        return text
