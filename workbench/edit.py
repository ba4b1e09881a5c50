"""Editing a YAML document in place: what is not asked for keeps every byte, comments and alignment too.

A change cuts the text of one value out and puts another in. Whether that came to what was asked for is then read from
the new text; nothing is taken on trust.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.document import Where, parse
from workbench.errors import UsageError

_BY_HAND = "Change it in an editor."


@dataclass(frozen=True)
class _Node:
    """A value in the text, from ``start`` to ``end``: a scalar, or a mapping or sequence with its entries."""

    start: int
    end: int
    entries: tuple[_Entry, ...] | None = None
    mapping: bool = False
    flow: bool = False


@dataclass(frozen=True)
class _Entry:
    """One entry of a mapping or sequence. Of a mapping it begins with the key, which ends at ``key_end``."""

    key: str | int
    start: int
    key_end: int
    value: _Node


def where_of(data: Any, key: str) -> Where:
    """The way that ``a.b.0.c`` names in ``data``. Where a key has dots itself the longest that is there is meant."""
    parts, where = key.split("."), list[str | int]()
    if not all(parts):
        raise UsageError(f"{key!r} is not of the form key.key.", "Write for example gate.metric_drop.")
    while parts:
        taken: str | int = parts[0]
        used = 1
        if isinstance(data, dict):
            there = (count for count in range(len(parts), 0, -1) if ".".join(parts[:count]) in data)
            used = next(there, 1)
            taken = ".".join(parts[:used])
            data = data.get(taken)
        elif isinstance(data, list) and parts[0].isascii() and parts[0].isdigit() and int(parts[0]) < len(data):
            taken = int(parts[0])
            data = data[taken]
        elif data is not None:
            raise UsageError(f"{key} does not lead to a setting.", "See what there may be: workbench schema")
        where.append(taken)
        parts = parts[used:]
    return tuple(where)


def set_value(text: str, where: Where, written: str, order: Sequence[str] = ()) -> str:
    """``text`` with the value at ``where`` replaced by ``written`` (YAML), made if it is not there.

    A new key at the root comes after those that precede it in ``order``. Raises UsageError where that cannot be done.
    """
    data = _data(text)
    value = _data(f"value: {written}")["value"]
    wanted = copy.deepcopy(data)
    put(wanted, where, value)
    # As the user wrote it where that means the same inside of braces; else as JSON, which is YAML, too.
    for form in (written.strip(), json.dumps(value, ensure_ascii=False)):
        if "\n" not in form and (new := _verified(_with(text, where, form, order), wanted)) is not None:
            return new
    raise UsageError(f"{'.'.join(map(str, where))} cannot be set in this text.", _BY_HAND)


def remove(text: str, where: Where) -> str:
    """``text`` without the entry at ``where``. Raises UsageError where there is none, or it cannot be cut out."""
    data = _data(text)
    name = ".".join(map(str, where))
    parent: Any = data
    for part in where[:-1]:
        parent = parent[part] if part in _keys(parent) else None
    if where[-1] not in _keys(parent):
        raise UsageError(f"There is no {name} to remove.", f"There are: {', '.join(map(str, _keys(parent)))}.")
    del parent[where[-1]]
    if (new := _verified(_without(text, where), data)) is not None:
        return new
    raise UsageError(f"{name} cannot be cut out of this text.", _BY_HAND)


def _keys(value: Any) -> list[str | int]:
    return list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []


def _data(text: str) -> dict[str, Any]:
    return parse(text, Path("recipe")).data


def _verified(text: str, wanted: dict[str, Any]) -> str | None:
    """``text`` if it means what is wanted: the types too, for 1 is True to Python."""
    try:
        found = _data(text)
    except UsageError:
        return None
    return text if json.dumps(found, sort_keys=True) == json.dumps(wanted, sort_keys=True) else None


def put(data: Any, where: Where, value: Any) -> None:
    """Sets what stands at ``where`` (:func:`where_of`) in plain ``data``."""
    for part in where[:-1]:
        if isinstance(data, dict) and data.get(str(part)) is None:
            data[str(part)] = {}
        data = data[part]
    data[where[-1]] = value


def _tree(text: str) -> _Node:
    from ruamel.yaml import YAML

    return _node(YAML(typ="safe", pure=True).compose(text))


def _node(node: Any) -> _Node:
    """A composed node; a block's own end mark lies behind the comments that follow it, so its last value's counts."""
    start, end = node.start_mark.index, node.end_mark.index
    if isinstance(node.value, str):
        return _Node(start, end)
    mapping, entries = node.id == "mapping", list[_Entry]()
    for index, item in enumerate(node.value):
        key, value = item if mapping else (None, item)
        inner = _node(value)
        begin, key_end = (inner.start, inner.start) if key is None else (key.start_mark.index, key.end_mark.index)
        entries.append(_Entry(index if key is None else str(key.value), begin, key_end, inner))
    flow = bool(node.flow_style)
    return _Node(start, end if flow or not entries else entries[-1].value.end, tuple(entries), mapping, flow)


def _find(node: _Node, where: Where) -> tuple[_Node, _Entry | None, Where]:
    """The nearest node on the way, its entry that is meant, and what of the way is not there."""
    for place, part in enumerate(where):
        entry = next((each for each in node.entries or () if each.key == part), None)
        if entry is None or place == len(where) - 1:
            return node, entry, where[place:]
        if entry.value.entries is None:  # nothing is there yet (key:), or a plain value
            return node, entry, where[place:]
        node = entry.value
    raise AssertionError


def _with(text: str, where: Where, form: str, order: Sequence[str]) -> str:
    node, entry, rest = _find(_tree(text), where)
    for part in reversed(rest[1:]):
        form = f"{{{part}: {form}}}"
    if entry is not None:
        value = entry.value
        if node.mapping and value.start == value.end:  # nothing, and a comment may follow
            colon = text.index(":", entry.key_end) + 1
            return f"{text[:colon]} {form}{text[colon:]}"
        if "\n" in text[entry.key_end : value.start]:  # what stood in lines of its own now stands behind its key
            colon = text.index(":", entry.key_end) + 1
            return f"{text[:colon]} {form}{text[colon : text.index(chr(10), colon)]}{text[value.end :]}"
        # A literal block (| or >) ends behind its last line.
        return _spliced(text, value.start, value.end, form + "\n" * text[: value.end].endswith("\n"))
    written = f"{rest[0]}: {form}"
    if not node.entries:
        return _spliced(text, node.start, node.end, f"{{{written}}}")
    if node.flow:
        last = node.entries[-1].value.end
        return text[:last] + f", {written}" + text[last:]
    return _inserted(text, node, str(rest[0]), written, order)


def _inserted(text: str, node: _Node, key: str, written: str, order: Sequence[str]) -> str:
    """With a line for a new key of a block mapping, behind those that precede it in ``order``, else at its end."""
    assert node.entries
    before = node.entries[-1]
    if key in order:
        ahead = order[: order.index(key)]
        before = next((each for each in reversed(node.entries) if each.key in ahead), before)
    first = node.entries[0].start
    indent = " " * (first - (text.rfind("\n", 0, first) + 1))
    end = _line_end(text, before.value.end)
    return f"{text[:end]}\n{indent}{written}{text[end:]}"


def _line_end(text: str, place: int) -> int:
    """Where the line ends in which the text up to ``place`` ends."""
    if place and text[place - 1] == "\n":
        return place - 1
    found = text.find("\n", place)
    return len(text) if found < 0 else found


def _spliced(text: str, start: int, end: int, form: str) -> str:
    """``form`` instead of what is there; a comment aligned behind it stays where it is, as far as there is room."""
    rest, longer = text[end:], len(form) - (end - start)
    aligned = re.match(r"([^\n#'\"]*?)( {2,})(?=#)", rest)
    if aligned and "\n" not in text[start:end]:
        gap = max(1, len(aligned[2]) - longer)
        rest = aligned[1] + " " * gap + rest[aligned.end() :]
    return text[:start] + form + rest


def _without(text: str, where: Where) -> str:
    root = _tree(text)
    node, entry, _ = _find(root, where)
    assert entry is not None
    assert node.entries is not None
    place = node.entries.index(entry)
    if node.flow:
        start, end = entry.start, entry.value.end
        if place < len(node.entries) - 1:
            end = node.entries[place + 1].start
        elif place:
            start = node.entries[place - 1].value.end
        return text[:start] + text[end:]
    start, end = text.rfind("\n", 0, entry.start) + 1, _line_end(text, entry.value.end) + 1
    cut = text[:start] + text[end:]
    if len(node.entries) > 1 or len(where) == 1:
        return cut
    _, parent, _ = _find(root, where[:-1])
    assert parent is not None
    colon = text.index(":", parent.key_end) + 1
    return f"{cut[:colon]} {'{}' if node.mapping else '[]'}{cut[colon:]}"
