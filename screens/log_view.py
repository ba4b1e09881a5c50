"""The widget that shows a log of any size: it holds a window of lines, and reads on where one scrolls."""

from __future__ import annotations

import asyncio
import re
import threading
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rich.cells import cell_len
from rich.text import Text
from textual import work
from textual.geometry import Size
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.timer import Timer

from screens import log_file, log_rows
from screens.log_file import Line, Matches, Page

PERIOD_SECONDS = 0.25
"""Time between two looks at a log that grows."""

_T = TypeVar("_T")


class LogView(ScrollView, can_focus=True):
    """Lines of the file that :meth:`open` names. All reading is done on other threads."""

    ALLOW_SELECT = True
    COMPONENT_CLASSES = {"log--trouble", "log--match", "log--at"}
    DEFAULT_CSS = """
    LogView {
        scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0;
        & > .log--trouble { color: $text-error; }
        & > .log--match { background: $warning; color: $background; text-style: bold; }
        & > .log--at { background: $primary-muted; text-style: bold; }
    }
    """

    status: reactive[str] = reactive("", init=False)
    """What is shown of which file, in a line."""

    def __init__(self, *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self.path: Path | None = None
        self.following = True
        self.wrap = False
        self.said = ""
        self._live = False
        self._window = Page()
        self._rows: list[Line] = []
        self._matches: Matches | None = None
        self._filter = ""
        self._wanted: re.Pattern[bytes] | None = None
        self._at: int | None = None
        self._moving = False
        self._scanning: Matches | None = None
        self._clock: Timer | None = None

    def on_mount(self) -> None:
        self._clock = self.set_interval(PERIOD_SECONDS, self._tick, pause=True)

    # What it shows

    def open(self, path: Path, *, live: bool) -> None:
        """Shows the end of ``path`` (which need not be there yet); follows it while it is ``live``."""
        if path != self.path:
            self.path = path
            self._forget()
            self._show(Page())
            self._read_end()
        elif self._live and not live:
            self._grow()  # what came last
        self._live = live
        if self._clock is not None:
            (self._clock.resume if live else self._clock.pause)()

    def _forget(self) -> None:
        self._window, self._matches, self._filter, self._at = Page(), None, "", None
        self.following, self.said = True, ""

    @property
    def filter(self) -> str:
        """What the lines shown all have; "" where all are shown."""
        return self._filter

    @property
    def window(self) -> Page:
        """The part of the file that is held."""
        return self._window

    def shown_text(self) -> str:
        """The lines on the screen."""
        top = self.scroll_offset.y
        return "\n".join(row.text for row in self._rows[top : top + self.size.height])

    # Going about

    def follow(self) -> None:
        """Goes to the end and stays there while the log grows."""
        self.following, self.said = True, ""
        if self._matches is None:
            self._read_end()
        else:
            self._scroll(len(self._rows))

    def action_scroll_end(self) -> None:
        self.follow()

    def action_scroll_home(self) -> None:
        self.following = False
        if self._matches is None and self._window.start > 0:
            self._go_to(0)
        else:
            self._scroll(0)

    def toggle_wrap(self) -> None:
        """Long lines are cut, or go on below."""
        self.wrap = not self.wrap
        self._lay_out()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if self._moving:
            return
        if new_value < old_value:
            self.following = False
        height = max(self.size.height, 1)
        if self._matches is None and self.path is not None:
            if new_value < height and self._window.start > 0:
                self._read_before()
            elif new_value + 2 * height > len(self._rows) and not self._window.has_end:
                self._read_after()
        self._tell()

    # Search and filter

    def search(self, text: str) -> None:
        """Goes to the next line that has ``text``, from the one on top of the screen on; "" ends the search."""
        self._wanted = log_file.pattern(text) if text else None
        self._at = None
        self.refresh()
        self.find_next()

    def search_trouble(self, message: str = "") -> None:
        """Goes to the first line that has ``message``, else to the first that looks like an error."""
        told = log_file.pattern(message.strip().partition("\n")[0]) if message.strip() else None
        self._find_trouble(told)

    def find_next(self) -> None:
        """Goes to the next line that has what is searched."""
        if self._wanted is not None and self.path is not None:
            top = self._rows[self.scroll_offset.y].offset if self._rows else 0
            self._find(self._wanted, top if self._at is None else self._at, skip=self._at is not None)

    def find_before(self) -> None:
        """Goes to the line before that has what is searched."""
        if self._wanted is not None and self.path is not None:
            top = self._rows[self.scroll_offset.y].offset if self._rows else 0
            self._find(self._wanted, top if self._at is None else self._at, backwards=True)

    def keep_only(self, text: str) -> None:
        """Shows only the lines that have ``text``; all of them where it is ""."""
        at = self._rows[self.scroll_offset.y].offset if self._rows and self._matches is not None else None
        self._filter = text
        self._matches = Matches(log_file.pattern(text)) if text else None
        self.following, self.said = True, ""
        if self._matches is not None:
            self._show(Page())
            self._scan()
        elif at is not None:
            self._go_to(at)
        else:
            self._read_end()

    # Reading, on other threads

    def _tick(self) -> None:
        if self.region:  # it is on the screen
            self._grow()

    async def _off(self, work: Callable[[], _T], otherwise: _T) -> _T:
        """What ``work`` gives, done on another thread; ``otherwise`` where the file cannot be read."""
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            self.said = f"cannot be read: {error.strerror}"
            return otherwise

    @work(exclusive=True, group="log-read")
    async def _read_end(self) -> None:
        path = self.path
        if path is not None:
            self._show(await self._off(lambda: log_file.last_page(path), Page()))

    @work(exclusive=True, group="log-read")
    async def _read_before(self) -> None:
        path, now = self.path, self._window
        assert path is not None
        page = await self._off(lambda: log_file.page_before(path, now.start), None)
        if page is not None and self._matches is None:
            self._show(log_file.joined(page, now, keep_end=False))

    @work(exclusive=True, group="log-read")
    async def _read_after(self) -> None:
        path, now = self.path, self._window
        assert path is not None
        page = await self._off(lambda: log_file.page_at(path, now.end), None)
        if page is not None and self._matches is None:
            self._show(log_file.joined(now, page, keep_end=True))

    @work(exclusive=True, group="log-read")
    async def _go_to(self, offset: int, rows_above: int = 0) -> None:
        path = self.path
        assert path is not None
        before, after = await self._off(
            lambda: (log_file.page_before(path, offset), log_file.page_at(path, offset)), (Page(), Page())
        )
        if self._matches is None:
            self._show(log_file.joined(before, after, keep_end=True), at=offset, rows_above=rows_above)

    @work(exclusive=True, group="log-grow")
    async def _grow(self) -> None:
        """Takes in what the file has grown by: at its end where it is followed, else only its size."""
        path, now = self.path, self._window
        if path is None:
            return
        if self._matches is not None:
            if self._scanning is not self._matches:
                self._scan()
            return
        found = await self._off(lambda: log_file.grown(path, now, follow=self.following), None)
        if found is not None and found != now and self._window is now and self._matches is None:
            self._show(found)

    @work(exclusive=True, group="log-scan")
    async def _scan(self) -> None:
        path, matches = self.path, self._matches
        if path is None or matches is None:
            return
        stop = threading.Event()
        self._scanning, more = matches, True
        try:
            while more and matches is self._matches:
                more, end = await self._off(lambda: matches.scan_some(path, stop.is_set), (False, 0))
                self._show(Page(0, matches.scanned, end, tuple(matches.lines)))
        finally:
            stop.set()
            if self._scanning is matches:
                self._scanning = None
            self._tell()

    @work(exclusive=True, group="log-find")
    async def _find(
        self, wanted: re.Pattern[bytes], start: int, *, backwards: bool = False, skip: bool = False
    ) -> None:
        where = "above" if backwards else "below"
        self.said = f"searching {where}…"
        self._tell()
        at = await self._found(wanted, start, backwards=backwards, skip=skip)
        said = ""
        if at is None:
            end = self._window.size if backwards else 0
            at = await self._found(wanted, end, backwards=backwards)
            said = f"none {where}: went on from the {'end' if backwards else 'top'}"
        if at is not None:
            self._reach(at, said)
        else:
            self.said = "not found"
            self._tell()

    @work(exclusive=True, group="log-find")
    async def _find_trouble(self, told: re.Pattern[bytes] | None) -> None:
        self.said = "searching…"
        self._tell()
        for wanted in (told, re.compile(log_file.TROUBLE.encode(), re.IGNORECASE)):
            at = await self._found(wanted, 0) if wanted is not None else None
            if at is not None:
                self._wanted = wanted
                self._reach(at)
                return
        self.said = "no line looks like an error"
        self._tell()

    async def _found(
        self, wanted: re.Pattern[bytes], start: int, *, backwards: bool = False, skip: bool = False
    ) -> int | None:
        """The offset of the next line with ``wanted``, past the one at ``start`` where ``skip`` says so."""
        if self._matches is not None:
            return log_file.among(self._rows, wanted, start, backwards=backwards, skip=skip)
        path, stop = self.path, threading.Event()
        assert path is not None

        def search() -> int | None:
            if backwards:
                return log_file.find_before(path, wanted, start, stop.is_set)
            return log_file.find(path, wanted, log_file.next_line(path, start) if skip else start, stop.is_set)

        try:
            return await self._off(search, None)
        finally:
            stop.set()

    def _reach(self, offset: int, said: str = "") -> None:
        """Shows the line at ``offset``, a third of the screen above it."""
        self._at, self.following, self.said = offset, False, said
        if self._matches is None and not self._window.start <= offset < self._window.end:
            self._go_to(offset, self.size.height // 3)
        else:
            self._scroll(self._row_of(offset) - self.size.height // 3)
            self.refresh()
            self._tell()

    # Painting

    def _show(self, window: Page, at: int | None = None, rows_above: int = 0) -> None:
        """Takes ``window`` in place of the one there was; the line on top of the screen (or ``at``) stays there."""
        top = self.scroll_offset.y
        if at is None and self._rows:
            at = self._rows[min(top, len(self._rows) - 1)].offset
            rows_above = 0
        self._window = window
        self._lay_out(at, rows_above)

    def _lay_out(self, at: int | None = None, rows_above: int = 0) -> None:
        if at is None and self._rows:
            at = self._rows[min(self.scroll_offset.y, len(self._rows) - 1)].offset
        width = max(self.scrollable_content_region.width, 20)
        self._rows = (
            [row for line in self._window.lines for row in log_rows.wrapped(line, width)]
            if self.wrap
            else list(self._window.lines)
        )
        widest = max((cell_len(row.text) for row in self._rows), default=0)
        self._moving = True
        self.virtual_size = Size(0 if self.wrap else widest, len(self._rows))
        self._moving = False
        self._scroll(len(self._rows) if self.following or at is None else self._row_of(at) - rows_above)
        self.refresh()
        self._tell()

    def _row_of(self, offset: int) -> int:
        return bisect_left(self._rows, offset, key=lambda row: row.offset)

    def _scroll(self, row: int) -> None:
        self._moving = True
        self.scroll_to(y=max(row, 0), animate=False, force=True)
        self._moving = False

    def on_resize(self) -> None:
        if self.wrap or self.following:
            self._lay_out()

    def render_line(self, y: int) -> Strip:
        left, top = self.scroll_offset
        style = self.rich_style
        if top + y >= len(self._rows):
            return Strip.blank(self.size.width, style)
        row = self._rows[top + y]
        text = Text(row.text, style=style, no_wrap=True, end="")
        self._stylize(text, row, top + y)
        strip = Strip(text.render(self.app.console), cell_len(row.text))
        return strip.crop_extend(left, left + self.size.width, style).apply_offsets(left, top + y)

    def _stylize(self, text: Text, row: Line, y: int) -> None:
        if log_rows.TROUBLE.search(row.text):
            text.stylize(self.get_component_rich_style("log--trouble", partial=True))
        if row.offset == self._at:
            text.stylize(self.get_component_rich_style("log--at", partial=True))
        if self._wanted is not None:
            for start, end in log_rows.hits(self._wanted, row.text):
                text.stylize(self.get_component_rich_style("log--match", partial=True), start, end)
        if self.text_selection is not None and (span := self.text_selection.get_span(y)) is not None:
            start, end = span
            selected = self.screen.get_component_rich_style("screen--selection")
            text.stylize(selected, start, len(text) if end == -1 else end)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        return selection.extract("\n".join(row.text for row in self._rows)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:  # noqa: ARG002
        self.refresh()

    def _tell(self) -> None:
        """Brings ``status`` up to date."""
        self.status = self._status()

    def _status(self) -> str:
        if self.path is None:
            return ""
        place = "following" if self.following and self._live else "end" if self._at_end else f"{self._percent} %"
        if not self._window.size:
            place = self.said or ("nothing printed yet" if self._live else "nothing was printed")
        what = log_rows.amount(self._window, self._matches, self._filter, scanning=self._scanning is not None)
        return "  ".join(filter(None, (self.path.name, what, place, self.said if self._window.size else "")))

    @property
    def _at_end(self) -> bool:
        below = len(self._rows) - self.scroll_offset.y - self.size.height
        return below <= 0 and (self._matches is not None or self._window.has_end)

    @property
    def _percent(self) -> int:
        if self._matches is not None or not self._rows:
            return 100 * self.scroll_offset.y // max(len(self._rows), 1)
        return 100 * self._rows[min(self.scroll_offset.y, len(self._rows) - 1)].offset // max(self._window.size, 1)
