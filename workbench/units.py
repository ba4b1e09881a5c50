"""Quantities as people write them in a recipe: ``1MiB``, ``5ms``, ``200/s``. Held as bytes, seconds and 1/s."""

from __future__ import annotations

import re

_SIZES = {
    "B": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_TIMES = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-zµ/]+)\s*")


def _parse(value: object, units: dict[str, float] | dict[str, int], example: str) -> float:
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in units:
        raise ValueError(f"write a number with a unit ({', '.join(units)}), such as {example}")
    return float(match[1]) * units[match[2]]


def parse_size(value: object) -> int:
    """Bytes of ``512MiB``; binary (KiB) and decimal (kB) units. Raises ValueError with what is allowed."""
    return int(_parse(value, _SIZES, "512MiB"))


def parse_duration(value: object) -> float:
    """Seconds of ``5ms``. Raises ValueError with what is allowed."""
    seconds = _parse(value, _TIMES, "10s")
    if seconds <= 0:
        raise ValueError("must be longer than nothing, such as 10s")
    return seconds


def parse_rate(value: object) -> float:
    """Queries a second of ``200/s``. Raises ValueError with what is allowed."""
    rate = _parse(value, {"/s": 1.0}, "200/s")
    if rate <= 0:
        raise ValueError("must be more than nothing, such as 200/s")
    return rate


def format_size(count: float) -> str:
    """``count`` bytes in the largest binary unit below it: ``1.0 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def format_seconds(seconds: float) -> str:
    """A duration in s, ms, µs or ns with three significant digits."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(seconds) >= scale:
            return f"{seconds / scale:.3g} {unit}" if abs(seconds) / scale < 100 else f"{seconds / scale:.0f} {unit}"
    return f"{seconds / 1e-9:.0f} ns"
