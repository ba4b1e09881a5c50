"""How a recipe stands, in cells: its state as glyph and word, the last figures of its choice against the original's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from screens.blocks import Cell, Tone
from screens.words import ABSENT, mapping, number, safe, size
from workbench.units import format_seconds

_STATES: Mapping[str, tuple[str, Tone]] = {
    "never run": ("·", "dim"),
    "as locked": ("✓", "good"),
    "changed since": ("~", "warn"),
    "running": ("●", "strong"),
}


def state(status: object, how_far: str = "") -> Cell:
    """The state of a row of ``workbench status``."""
    glyph, tone = _STATES.get(str(status), ("✗", "bad"))
    return Cell(f"{glyph} {safe(status)} {how_far}".rstrip(), tone)


def model_size(row: Mapping[str, Any]) -> Cell:
    """The size of the chosen variant, and how much of the original's that is."""
    found = mapping(row, "figures", "size")
    value, original = number(found.get("value")), number(found.get("original"))
    if value is None:
        return Cell(ABSENT)
    return Cell(f"{size(value)}{_times(value / original if original else None)}")


def median(row: Mapping[str, Any]) -> Cell:
    """The median latency of the chosen variant against the original's, and whether it is from another machine."""
    figures = mapping(row, "figures")
    value = number(mapping(figures, "p50").get("value"))
    if value is None:
        return Cell(ABSENT)
    elsewhere = not figures.get("here")
    told = f"{format_seconds(value / 1e9)}{_times(number(figures.get('ratio')))}"
    return Cell(f"{told}, elsewhere" if elsewhere else told, "dim" if elsewhere else "")


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f" ×{ratio:.2f}"  # noqa: RUF001


def in_words(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of ``workbench status`` with the figures in words, for people."""
    return {**row, "size": model_size(row).text, "p50": median(row).text}
