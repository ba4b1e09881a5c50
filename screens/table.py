"""A table of the app whose rows change in place: the cursor stays on its row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textual.widgets import DataTable

from screens.blocks import Cell
from screens.paint import text


class Rows(DataTable[object]):
    """A table of cells by row key, each row ``lines`` high; :meth:`show` changes only what is another than before."""

    def __init__(self, columns: Sequence[str], *, id: str, lines: int = 1) -> None:  # noqa: A002
        super().__init__(id=id, cursor_type="row", zebra_stripes=False)
        self._names = tuple(columns)
        self._lines = lines
        self._before = ""
        self._widths: tuple[int, ...] = ()
        self._shown: dict[str, tuple[Cell, ...]] = {}

    def on_mount(self) -> None:
        for name in self._names:
            self.add_column(name, key=name)

    def head(self, columns: Sequence[str]) -> None:
        """Has other columns from now on; the rows are to be shown anew."""
        if tuple(columns) != self._names:
            at = self.key_at_cursor
            self.clear(columns=True)
            self._names, self._shown, self._before = tuple(columns), {}, at
            self.on_mount()

    def show(self, rows: Mapping[str, tuple[Cell, ...]]) -> None:
        """Shows ``rows`` in their order."""
        if rows == self._shown:
            return
        if list(rows) == list(self._shown):
            for key, cells in rows.items():
                self._update(key, cells)
        elif rows:
            at = self.key_at_cursor or self._before
            self.clear()
            for key, cells in rows.items():
                self.add_row(*map(text, cells), key=key, height=self._lines)
            if at in rows:
                self.move_cursor(row=list(rows).index(at), animate=False)
        else:
            self.clear()
        self._shown = dict(rows)
        self.call_after_refresh(self._paint_head)

    def watch_virtual_size(self) -> None:
        """Columns may have become wider only now."""
        self._paint_head()

    def _paint_head(self) -> None:
        """Paints all anew where columns became wider: the head is painted from a cache that knows nothing of that."""
        widths = tuple(column.get_render_width(self) for column in self.ordered_columns)
        if widths != self._widths:
            self._widths = widths
            self.notify_style_update()

    @property
    def key_at_cursor(self) -> str:
        """The key of the row that the cursor is on; "" where there is none."""
        keys = list(self._shown)
        return keys[self.cursor_row] if self.cursor_row < len(keys) else ""

    @property
    def cells_at_cursor(self) -> tuple[Cell, ...]:
        """The cells of the row that the cursor is on, whole; none where there is no row."""
        return self._shown.get(self.key_at_cursor, ())

    def _update(self, key: str, cells: tuple[Cell, ...]) -> None:
        for name, before, now in zip(self._names, self._shown[key], cells, strict=True):
            if before != now:
                self.update_cell(key, name, text(now), update_width=True)
