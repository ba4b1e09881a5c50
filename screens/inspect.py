"""What ``workbench inspect`` prints of a model."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from json import dumps
from typing import Any

from screens import words
from screens.blocks import Block, Cell, cell, row
from screens.output import say, show
from screens.words import ABSENT, items, mapping, number

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_HEAVIEST = 15


def print_model(found: Mapping[str, Any], *, json: bool) -> None:
    """Prints the summary that :func:`workbench.model.inspect.inspect` gives: tables, or whole as JSON."""
    if json:
        say(dumps(found, indent=2, ensure_ascii=False), sys.stdout)
    else:
        show(model_blocks(found), sys.stdout)


def model_blocks(found: Mapping[str, Any]) -> Iterator[Block]:
    """The signature, the operators by kind, and the heaviest layers."""
    opset = number(found.get("opset"))
    yield Block(
        f"Model, opset {ABSENT if opset is None else f'{opset:g}'}",
        rows=(
            row("size", words.size(found.get("size"))),
            row("parameters", words.count(found.get("parameters"))),
            row("FLOPs for one sample", flops(found.get("flops"))),
        ),
    )
    signature = mapping(found, "signature")
    rows = [
        row(side, each.get("name", ABSENT), each.get("dtype", ABSENT), shape(each.get("shape")))
        for side, key in (("input", "inputs"), ("output", "outputs"))
        for each in map(mapping, items(signature, key))
    ]
    yield Block("Signature", ("", "name", "dtype", "shape"), tuple(rows))
    operators = sorted(mapping(found, "operators").items(), key=lambda pair: (-(number(pair[1]) or 0), pair[0]))
    if operators:
        counted = tuple(row(name, words.count(count)) for name, count in operators)
        yield Block("Operators", ("operator", "nodes"), counted, right=frozenset({1}))
    yield from _layers([mapping(layer) for layer in items(found, "layers")])


def _layers(layers: list[Mapping[str, Any]]) -> Iterator[Block]:
    if not layers:
        return
    heaviest = sorted(range(len(layers)), key=lambda index: (-(number(layers[index].get("bytes")) or 0), index))
    shown = [layers[index] for index in sorted(heaviest[:_HEAVIEST])]
    left = len(layers) - len(shown)
    yield Block(
        "Size by layer",
        ("layer", "operator", "parameters", "size", "FLOPs"),
        tuple(
            row(
                layer.get("name") or ABSENT,
                layer.get("op", ABSENT),
                words.count(layer.get("parameters")),
                words.size(layer.get("bytes")),
                flops(layer.get("flops")),
            )
            for layer in shown
        ),
        (cell(f"{words.quantity(left, 'smaller layer')} left out; --json has them.", "dim"),) if left else (),
        right=frozenset({2, 3, 4}),
    )


def flops(value: object) -> str:
    """Operations with an SI prefix, ``1.25 M``; in words where a dynamic axis leaves them open."""
    found = number(value)
    if found is None:
        return "unknown (dynamic axes)"
    for scale, prefix in _PREFIXES:
        if found >= scale:
            return f"{found / scale:.3g} {prefix}"
    return f"{found:g}"


def shape(value: object) -> Cell:
    """A shape as ``[batch, 1, 28, 28]``."""
    return cell(f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else ABSENT)
