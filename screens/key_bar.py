"""The last line of a screen: its keys. One widget, painted as one line.

Textual's own footer makes a widget of every key and makes them all anew whenever the focus moves: that cost more than
all else of going from stage to stage (135 of 200 ms of processor time), and it kept the ones of before for good.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.style import Style
from rich.text import Text
from textual.binding import ActiveBinding
from textual.events import Click
from textual.screen import Screen
from textual.widget import Widget


@dataclass(frozen=True)
class Entry:
    """A place on the line: ``keys`` (what each is called, and what is pressed by it) and what they do."""

    keys: tuple[tuple[str, str], ...]
    told: str
    enabled: bool = True

    @property
    def width(self) -> int:
        """Its columns, with the blank before and the one between the keys and what they do."""
        return sum(1 + len(shown) for shown, _ in self.keys) + 1 + len(self.told)


class KeyBar(Widget):
    """The keys of the screen that can be pressed now, those of a group side by side; a click presses one."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES = {"key-bar--key", "key-bar--told"}
    DEFAULT_CSS = """
    KeyBar {
        dock: bottom; height: 1; background: $footer-background; color: $footer-foreground;
        .key-bar--key { color: $footer-key-foreground; background: $footer-background; text-style: bold; }
        .key-bar--told { color: $footer-description-foreground; background: $footer-background; }
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self._entries: tuple[Entry, ...] = ()
        self._palette: Entry | None = None

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._look)

    def on_unmount(self) -> None:
        self.screen.bindings_updated_signal.unsubscribe(self)

    def _look(self, screen: Screen[object]) -> None:
        """Takes the keys as they are now."""
        if not self.is_attached or screen is not self.screen or not self.app.app_focus:
            return
        active = screen.active_bindings
        entries = tuple(self._found([each for each in active.values() if each.binding.show]))
        last = active.get(self.app.COMMAND_PALETTE_BINDING)
        palette = self._entry([last]) if last is not None else None
        if (entries, palette) != (self._entries, self._palette):
            self._entries, self._palette = entries, palette
            self.refresh()

    def _found(self, shown: Sequence[ActiveBinding]) -> Iterator[Entry]:
        """The entries: of several keys for one action the first, those of a group as one."""
        firsts = {each.binding.action: each for each in reversed(shown)}
        in_order = sorted(firsts.values(), key=shown.index)
        for group, each in groupby(in_order, lambda found: found.binding.group):
            several = list(each)
            if group is not None and len(several) > 1:
                yield self._entry(several, group.description)
            else:
                yield from (self._entry([one]) for one in several)

    def _entry(self, of: Sequence[ActiveBinding], told: str = "") -> Entry:
        keys = tuple((self.app.get_key_display(each.binding), each.binding.key) for each in of)
        return Entry(keys, told or of[0].binding.description, any(each.enabled for each in of))

    def _placed(self) -> Iterator[tuple[int, Entry]]:
        """The entries that there is room for, with the column where each begins; the palette's stands at the right."""
        room = self.size.width
        if self._palette is not None:
            room -= self._palette.width + 1
            yield room, self._palette
        at = 0
        for entry in self._entries:
            if at + entry.width > room:
                return
            yield at, entry
            at += entry.width + 1

    def render(self) -> Text:
        key, told = (self.get_component_rich_style(f"key-bar--{part}") for part in ("key", "told"))
        line = Text(no_wrap=True, end="")
        for at, entry in sorted(self._placed(), key=lambda placed: placed[0]):
            line.append(" " * (at - len(line)))
            dim = Style(dim=not entry.enabled)
            line.append("".join(f" {shown}" for shown, _ in entry.keys), key + dim)
            line.append(f" {entry.told}", told + dim)
        return line

    def on_click(self, event: Click) -> None:
        """Presses the key under the mouse; of a group that of its key, and none where its name is."""
        for at, entry in self._placed():
            edge = at
            for shown, pressed in entry.keys:
                edge += 1 + len(shown)
                if at < event.x <= edge or len(entry.keys) == 1 and at < event.x < at + entry.width:
                    self.app.simulate_key(pressed)
                    return
                at = edge
