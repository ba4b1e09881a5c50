"""The value of a sensor that is not there: formats as N/A, computes as NaN (the idea is nvitop's)."""

from __future__ import annotations

import math
from typing import Any, TypeVar

_Value = TypeVar("_Value")


class NaType(float):
    """NaN that says so. There is one, :data:`NA`."""

    __slots__ = ()

    def __new__(cls) -> NaType:
        """NaN as a float, whose arithmetic it inherits."""
        return super().__new__(cls, math.nan)

    def __repr__(self) -> str:
        return "NA"

    def __str__(self) -> str:
        return "N/A"

    def __format__(self, spec: str) -> str:
        """``N/A``, as wide as ``spec`` says and on its side; what it says about digits has no meaning here."""
        width = spec.lstrip("<>^=+- #0").split(".")[0].rstrip("abcdefgxosnEFGX%,_")
        side = spec[0] if spec[:1] in ("<", "^") else ">"
        return format("N/A", f"{side}{width}" if width.isdecimal() else "")

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        return "NA"


NA = NaType()


def known(value: _Value | None) -> _Value | NaType:
    """``value``, or NA for None."""
    return NA if value is None else value


def as_json(value: Any) -> Any:
    """``value`` with every NA as None: JSON has no NaN."""
    if isinstance(value, NaType):
        return None
    if isinstance(value, dict):
        return {key: as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    return value
