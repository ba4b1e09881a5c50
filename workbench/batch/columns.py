"""Which columns of a table feed which input of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workbench.batch.values import row_shape, width
from workbench.errors import UsageError
from workbench.server.tensors import TensorSpec


def names_of(name: str, count: int) -> list[str]:
    """The columns that a tensor with ``count`` elements a row has in a table: its name, or name.0, name.1 and so on."""
    return [name] if count == 1 else [f"{name}.{number}" for number in range(count)]


def match(columns: Sequence[str], specs: Mapping[str, TensorSpec], location: object) -> dict[str, list[int]]:
    """The numbers of the columns of each input, in the order of its elements.

    By name where every input has its columns (:func:`names_of`); others are not used then. Else a model with one input
    takes all columns in their order. UsageError where neither goes.
    """
    at = {name: number for number, name in reversed(list(enumerate(columns)))}
    found: dict[str, list[int]] = {}
    for spec in specs.values():
        names = names_of(spec.name, width(spec) or 0)
        if names and all(name in at for name in names):
            found[spec.name] = [at[name] for name in names]
    if len(found) == len(specs):
        twice = {name for name in columns if columns.count(name) > 1}
        for spec in specs.values():
            for name in twice.intersection(names_of(spec.name, width(spec) or 0)):
                raise UsageError(f"{location} has the column {name!r} twice.", "Give each column a name of its own.")
        return found
    if len(specs) == 1:
        spec = next(iter(specs.values()))
        if width(spec) == len(columns) or row_shape(spec) == (-1,):
            return {spec.name: list(range(len(columns)))}
    plural = "" if len(columns) == 1 else "s"
    shown = ", ".join(map(repr, columns[:5])) + (", …" if len(columns) > 5 else "")
    raise UsageError(
        f"{location} has {len(columns)} column{plural} ({shown}) and not the inputs of the model.",
        f"It takes {wanted(specs)}: {_in_table(specs)}.",
    )


def wanted(specs: Mapping[str, TensorSpec]) -> str:
    """The inputs of a model, for a sentence."""
    shapes = (
        (spec, ["n", *("any" if extent < 0 else extent for extent in row_shape(spec))]) for spec in specs.values()
    )
    return ", ".join(f"{spec.name} ({spec.datatype.name}, {', '.join(map(str, shape))})" for spec, shape in shapes)


def _in_table(specs: Mapping[str, TensorSpec]) -> str:
    parts = []
    for spec in specs.values():
        count = width(spec)
        if count is None:
            return "npz, or JSON lines, can hold that"
        names = names_of(spec.name, count)
        parts.append(f"{names[0]} … {names[-1]}" if len(names) > 2 else ", ".join(names))
    only = f", or {width(next(iter(specs.values())))} columns in their order" if len(specs) == 1 else ""
    return f"columns {', '.join(parts)}{only}"
