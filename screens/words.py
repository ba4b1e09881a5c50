"""Values as people read them. Everything here takes what a file said as it is: odd or absent values read as ``—``."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.units import format_seconds, format_size

ABSENT = "—"
DISTURBED = "Disturbed while this was measured."

_TIMES = (("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1.0))
_SMALL = 1e-4
"""Numbers below it are written with an exponent."""

_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories that steer a terminal or turn text around: names from a file must not."""


def safe(value: object) -> str:
    """``value`` as text that shows on a terminal what it is: control characters are written out, as ``\\x1b``."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(_shown(char) for char in text)


def _shown(char: str) -> str:
    if char in "\n\t":
        return char if char == "\n" else " "
    return char.encode("unicode_escape").decode() if unicodedata.category(char) in _HIDDEN else char


def part(values: object, *names: str) -> Any:
    """What lies in nested mappings under ``names``; None where any of it is absent."""
    for name in names:
        if not isinstance(values, Mapping):
            return None
        values = values.get(name)
    return values


def mapping(values: object, *names: str) -> Mapping[str, Any]:
    """The mapping under ``names``, empty where there is none."""
    found = part(values, *names)
    return found if isinstance(found, Mapping) else {}


def items(values: object, *names: str) -> list[Any]:
    """The list under ``names``, empty where there is none."""
    found = part(values, *names)
    return list(found) if isinstance(found, Sequence) and not isinstance(found, str | bytes) else []


def number(value: object) -> float | None:
    """``value`` as a finite number, None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def interval_of(value: object) -> tuple[float, float] | None:
    """``[low, high]`` as two numbers, None where it is no interval."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return None if low is None or high is None else (low, high)


def decimals(value: float, interval: tuple[float, float] | None) -> int:
    """Decimals so that the interval's half width has two digits; four significant digits without an interval.

    A lower end that lies far below the half width has two digits too: 0.21 ms to 43 ms is not 0 ms to 43 ms.
    """
    half = (interval[1] - interval[0]) / 2 if interval else 0.0
    first, digits = (half, 2) if half > 0 else (abs(value), 4)
    if interval and half / 1000 < interval[0] < half:
        first = interval[0]
    return min(max(digits - 1 - math.floor(math.log10(first)), 0), 9) if first > 0 else 1


def measured(value: object, interval: object, *, unit: str = "", sign: bool = False) -> str:
    """A value over its interval, ``0.9867\\n[0.9785, 0.9935]``: as many digits as the interval leaves meaning to."""
    found = number(value)
    if found is None:
        return ABSENT
    around = interval_of(interval)
    # z: what rounds to nothing has no minus.
    form = f"{'+' if sign else ''}z.{decimals(found, around)}f"
    if 0 < abs(found) < _SMALL:
        form = f"{'+' if sign else ''}z.3g"
    text = f"{found:{form}}{unit}"
    return text if around is None else f"{text}\n[{around[0]:{form}}, {around[1]:{form}}]"


def latency(value: object, interval: object) -> str:
    """Nanoseconds over their interval, in one unit that suits the value."""
    found = number(value)
    if found is None:
        return ABSENT
    around = interval_of(interval)
    unit, scale = next((each for each in _TIMES if abs(found) >= each[1]), _TIMES[-1])
    scaled = (around[0] / scale, around[1] / scale) if around else None
    if scaled is None:
        return f"{format_seconds(found / 1e9)}\n(no interval)"
    return measured(found / scale, scaled, unit=f" {unit}")


def size(value: object) -> str:
    """Bytes in a binary unit."""
    found = number(value)
    return ABSENT if found is None else format_size(found)


def count(value: object) -> str:
    """A count, thousands parted."""
    found = number(value)
    return ABSENT if found is None else f"{found:,.0f}"


def seconds(value: object) -> str:
    """A duration that was measured, three significant digits."""
    found = number(value)
    return ABSENT if found is None else format_seconds(found)


def clock(value: float) -> str:
    """A duration on the way, such as ``0.4 s`` or ``2 min 05 s``."""
    if value < 9.95:
        return f"{max(value, 0.0):.1f} s"
    whole = round(value)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


def quantity(amount: int, one: str, many: str = "") -> str:
    """``1 layer``, ``4 layers``."""
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"


def short(digest: object) -> str:
    """A digest by its first twelve hex digits."""
    text = str(digest or "")
    return safe(text[:19]) if text.startswith("sha256:") else safe(text) or ABSENT


_FACTS = (("os", ""), ("kernel", "kernel "), ("isa", ""))


def machine(found: object) -> str:
    """The machine that numbers are from, in a line: its class, then facts for information."""
    if not isinstance(found, Mapping) or not found:
        return ABSENT
    kind, facts = mapping(found, "class"), mapping(found, "facts")
    words = [str(kind.get("cpu", "unknown CPU"))]
    if (cores := number(kind.get("cores"))) is not None:
        words.append(quantity(int(cores), "core"))
    if (memory := number(kind.get("memory_gib"))) is not None:
        words.append(f"{memory:g} GiB")
    words += [str(gpu) for gpu in items(kind, "gpus")]
    more = [f"{label}{facts[name]}" for name, label in _FACTS if facts.get(name)]
    return safe(", ".join(words) + (f" ({', '.join(more)})" if more else ""))


def at_home(text: str) -> str:
    """``text`` with the user's own folder as ``~``."""
    return text.replace(f"{Path.home()}/", "~/")
