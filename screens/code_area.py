"""Code on the screen, read or written, its words painted in the theme's colours. No grammar needs installing."""

from __future__ import annotations

from collections.abc import Collection

from rich.style import Style
from rich.text import Text
from textual.events import Key
from textual.widgets import TextArea

from screens.code import Highlight, Kind
from screens.words import safe

_KINDS: tuple[Kind, ...] = ("comment", "key", "string", "number", "word", "added", "removed", "head")


_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) != "\t"} | {0x7F: 0x2421}


def _visible(line: str) -> str:
    """``line``, as long as it is, with a letter of its own for each that would steer a terminal or turn text around."""
    if line.isprintable():
        return line
    pictured = line.translate(_PICTURES)
    return "".join(char if char == "\t" or safe(char) == char else "\N{REPLACEMENT CHARACTER}" for char in pictured)


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

    async def _on_key(self, event: Key) -> None:
        """Escape is left to those around: the text area's own way is to go on to whatever comes next."""
        if event.key == "escape":
            event.prevent_default()

    def go_to(self, line: int) -> None:
        """Puts the cursor on the first word of a line (the first is 1), the line in the middle of the screen."""
        at = min(max(line, 1), self.document.line_count) - 1
        text = self.document.get_line(at)
        self.move_cursor((at, len(text) - len(text.lstrip())), center=True)

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
        text = Text(_visible(self.document.get_line(line_index)), end="", no_wrap=True)
        for start, end, kind in self._highlight(text.plain):
            text.stylize(self._style(f"code--{kind}"), start, end)
        if line_index + 1 in self._problems:
            text.stylize(self.get_component_rich_style("code--problem", partial=True))
        return text

    def _style(self, name: str) -> Style:
        """A component's style as painted here, its background left to what is below.

        A partial style would do but for muted colours: they are a share of what suits the background.
        """
        whole = self.get_component_rich_style(name)
        return Style(color=whole.color, bold=whole.bold, italic=whole.italic, underline=whole.underline)
