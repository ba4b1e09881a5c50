"""What ``workbench image`` prints: the layers, what is in them, what they cost, what changed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from json import dumps
from typing import Any

from screens import words
from screens.blocks import Block, cell, row
from screens.output import say, show
from screens.words import ABSENT, items, mapping, number, quantity, short

_HELD = 12


def print_image(found: Mapping[str, Any], *, json: bool) -> None:
    """Prints what :func:`workbench.image.report.report` gives: tables, or whole as JSON."""
    if json:
        say(dumps(found, indent=2, ensure_ascii=False), sys.stdout)
    else:
        show(image_blocks(found), sys.stdout)


def image_blocks(found: Mapping[str, Any]) -> Iterator[Block]:
    """The image, its layers, and a table for each question that has an answer."""
    yield _layers(found)
    for layer in map(mapping, items(found, "layers")):
        yield _holds(layer)
    biggest = [row(words.size(each["bytes"]), each["layer"], each["path"]) for each in items(found, "biggest")]
    yield Block("Biggest files", ("size", "layer", "path"), tuple(biggest), right=frozenset({0}))
    yield _wasted(mapping(found, "wasted"))
    yield _duplicates(mapping(found, "duplicates"))
    if changes := mapping(found, "changes"):
        yield from _changes(changes)


def _layers(found: Mapping[str, Any]) -> Block:
    rows = tuple(
        row(
            each["name"],
            words.size(each["size"]),
            words.size(each["uncompressed"]),
            words.count(each.get("files")),
            short(each["diff_id"]),
        )
        for each in items(found, "layers")
    )
    below = f"{words.size(found.get('size'))} compressed, {words.size(found.get('uncompressed'))} unpacked"
    columns = ("layer", "compressed", "unpacked", "files", "content")
    return Block(
        f"Image {short(found.get('config'))} of {found.get('run')}", columns, rows, (cell(below),), _right(1, 2, 3)
    )


def _right(*columns: int) -> frozenset[int]:
    return frozenset(columns)


def _holds(layer: Mapping[str, Any]) -> Block:
    held = items(layer, "holds")
    rows = tuple(row(words.size(each["bytes"]), words.count(each["files"]), each["what"]) for each in held[:_HELD])
    rest = held[_HELD:]
    size = words.size(sum(int(each["bytes"]) for each in rest))
    below = (cell(f"{len(rest)} more, {size}; --json has them.", "dim"),) if rest else ()
    return Block(f"In layer {layer.get('name')}", ("size", "files", "what"), rows, below, _right(0, 1))


def _wasted(found: Mapping[str, Any]) -> Block:
    rows = tuple(
        row(words.size(each["bytes"]), f"{each['layer']} by {each['by']}", each["path"])
        for each in items(found, "first")
    )
    total = f"{words.size(found.get('bytes'))} in {quantity(int(number(found.get('files')) or 0), 'file')}"
    title = f"Wasted, for a higher layer replaces or removes it: {total}"
    return Block(title, ("size", "layer", "path") if rows else (), rows, right=_right(0))


def _duplicates(found: Mapping[str, Any]) -> Block:
    rows = tuple(row(words.size(each["bytes"]), "\n".join(each["paths"])) for each in items(found, "first"))
    contents = quantity(int(number(found.get("contents")) or 0), "content")
    title = f"There more than once: {words.size(found.get('bytes'))} in {contents}"
    return Block(title, ("too much", "paths") if rows else (), rows, right=_right(0))


def _changes(found: Mapping[str, Any]) -> Iterator[Block]:
    layers = [mapping(each) for each in items(found, "layers")]
    rows = tuple(
        row(
            each["layer"],
            each["change"],
            *(words.count(each.get(key)) for key in ("added", "removed", "changed")),
            more(each),
        )
        for each in layers
    )
    columns = ("layer", "", "added", "removed", "changed", "size")
    yield Block(f"Changed against {found.get('against')}", columns, rows, right=_right(2, 3, 4, 5))
    files = [(each["layer"], file) for each in layers for file in items(each, "first")]
    if files:
        listed = tuple(row(more(file), file["change"], layer, file["path"]) for layer, file in files)
        yield Block("Changed files", ("size", "", "layer", "path"), listed, right=_right(0))


def more(each: Mapping[str, Any]) -> str:
    """By how much something grew or shrank, ``+1.5 MiB``."""
    found = number(each.get("bytes"))
    if found is None:
        return ABSENT
    return f"{'-' if found < 0 else '+'}{words.size(abs(found))}"


def print_scan(found: Mapping[str, Any], *, json: bool) -> None:
    """Prints what :func:`workbench.image.vulnerabilities.scan` gives: tables, or whole as JSON."""
    if json:
        say(dumps(found, indent=2, ensure_ascii=False), sys.stdout)
    else:
        show(scan_blocks(found), sys.stdout)


def scan_blocks(found: Mapping[str, Any]) -> Iterator[Block]:
    """What is known of the packages, and for each source whether it was asked: an empty table alone says nothing."""
    columns = ("package", "version", "id", "severity", "fixed in")
    rows = tuple(
        row(*(each[key] or ABSENT for key in ("package", "version", "id", "severity", "fixed_in")))
        for each in items(found, "found")
    )
    if rows:
        yield Block("Known vulnerabilities", columns, rows)
    asked = tuple(
        row(
            each["source"],
            quantity(each["packages"], "package"),
            f"{each['found']} found" if each["scanned"] else cell(f"not scanned: {each['why']}", "warn"),
        )
        for each in items(found, "sources")
    )
    yield Block("Asked of OSV", (), asked)
